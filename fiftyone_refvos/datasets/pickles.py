"""Pickles of datasets, read as plain data: nothing in such a file is called.

Several published annotations are pickles, and `pickle.load` runs whatever a pickle names. Here the operations that
build numbers, texts, bytes, lists, tuples and dicts are the only ones that there are.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fiftyone_refvos.datasets.files import DatasetError

# Not among them: all that calls or looks up something, and byte arrays, which are allocated as long as they say.
_PLAIN = """
    PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT
    BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES
    BINBYTES8 LIST EMPTY_LIST APPEND APPENDS TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 DICT EMPTY_DICT SETITEM SETITEMS
    PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
"""
_KEYS = (str, bytes, int, float, type(None))  # a key of nested tuples is hashed without a limit of depth
_DAMAGE = (pickle.UnpicklingError, EOFError, ValueError, TypeError, LookupError, AttributeError, struct.error)


def read_pickle(path: Path, kind: type | tuple[type, ...] = dict) -> Any:
    """The plain data in a pickle of any protocol; texts of Python 2 are taken as Latin-1.

    Args:
        path: the file
        kind: what it has to hold

    Raises:
        DatasetError: if it is missing, damaged, holds something else, or names anything to call; nothing was called
    """
    try:
        content = _Reader(io.BytesIO(path.read_bytes())).load()
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing: is {path.parent} the folder of the dataset?") from None
    except _RefusedError as error:
        raise DatasetError(
            f"{path} wants to {error}, which annotations have no need of; nothing of it was run. Download the file "
            "again from where the dataset was published"
        ) from None
    except _DAMAGE as error:
        raise DatasetError(
            f"{path} is no complete pickle ({type(error).__name__}: {error}): download it again"
        ) from error
    if not isinstance(content, kind):
        names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        raise DatasetError(f"{path} holds a {type(content).__name__}, but should hold a {names}")
    return content


class _RefusedError(Exception):
    """What a pickle may not do."""


_ENCODE = object()  # stands for codecs.encode, by which Python 3 writes bytes for Python 2


def _encode(reader: Any) -> None:
    arguments, function = reader.stack.pop(), reader.stack.pop()
    if function is not _ENCODE or not isinstance(arguments, tuple) or arguments[1:] != ("latin1",):
        raise _RefusedError(f"call a {type(function).__name__}")
    reader.append(arguments[0].encode("latin1"))


def _set_item(reader: Any) -> None:
    _check_keys(reader.stack[-2:-1])
    value, key = reader.stack.pop(), reader.stack.pop()
    reader.stack[-1][key] = value


def _set_items(operation: Callable[[Any], None]) -> Callable[[Any], None]:
    def checked(reader: Any) -> None:
        _check_keys(reader.stack[::2])
        operation(reader)

    return checked


def _check_keys(keys: list[Any]) -> None:
    for key in keys:
        if not isinstance(key, _KEYS):
            raise TypeError(f"a dict has a {type(key).__name__} as a key")


def _refuse(name: str) -> Callable[[Any], None]:
    def refuse(reader: Any) -> None:
        raise _RefusedError(f"run the operation {name}")

    return refuse


def _operations() -> dict[int, Callable[[Any], None]]:
    known = pickle._Unpickler.dispatch
    found: dict[int, Callable[[Any], None]] = {}
    for operation in pickletools.opcodes:
        code, name = ord(operation.code), operation.name
        found[code] = known[code] if name in _PLAIN.split() else _refuse(name)
    for sign in (pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.INST):
        found[sign[0]] = known[sign[0]]  # they end in find_class, which says what was named
    for sign in (pickle.DICT, pickle.SETITEMS):
        found[sign[0]] = _set_items(known[sign[0]])
    return found | {pickle.SETITEM[0]: _set_item, pickle.REDUCE[0]: _encode}


# The unpickler in Python: that in C allocates whatever a file says, and has no way to leave operations out.
class _Reader(pickle._Unpickler):
    dispatch = _operations()

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return _ENCODE
        raise _RefusedError(f"call {module:.80}.{name:.80}")
