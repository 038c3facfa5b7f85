"""Large JSON objects read entry by entry: the masks of all videos are in one file of several hundred megabytes."""

from __future__ import annotations

import json
import mmap
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from fiftyone_refvos.datasets.files import DatasetError

# Texts as a whole, so that brackets in them do not count. RLEs are full of them.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)

Span = tuple[int, int]  # the first byte of a value in a file, and the one after its last


class JsonIndex(Mapping[str, Any]):
    """The entries of the object in a JSON file; each is parsed when it is asked for, and not kept.

    The file is scanned once, when the first entry is asked for; memory holds the keys and where their values are.

    Args:
        path: the file

    Raises:
        DatasetError: when it is used, if the file is missing or no JSON object
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()  # one thread scans, the others wait
        self._file: mmap.mmap | None = None
        self._spans: dict[str, Span] = {}

    def __getitem__(self, key: str) -> Any:
        return self.parse(self._index()[key], f"the entry {key!r}")

    def items_of(self, key: str) -> Iterator[Span]:
        """Where the items of the list are that is the value of a key; they have to be objects or lists.

        Raises:
            DatasetError: if the value is no such list
        """
        start, end = self._index()[key]
        assert self._file is not None
        yield from _items(self._file, start, end, f"{self.path}: the entry {key!r}")

    def parse(self, span: Span, what: str = "an item of a list") -> Any:
        """The value that is between two places of the file.

        Args:
            span: its first byte, and the one after its last
            what: what errors call it

        Raises:
            DatasetError: if it is no JSON
        """
        self._index()
        assert self._file is not None
        try:
            return json.loads(self._file[slice(*span)])
        except ValueError as error:
            raise DatasetError(f"{self.path}: {what} is not valid JSON ({error}): download it again") from error

    def __contains__(self, key: object) -> bool:
        return key in self._index()

    def __iter__(self) -> Iterator[str]:
        return iter(self._index())

    def __len__(self) -> int:
        return len(self._index())

    def _index(self) -> dict[str, Span]:
        with self._lock:
            if self._file is None:
                file = _map(self.path)
                self._spans = dict(_entries(file, self.path))
                self._file = file
            return self._spans


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing: is {path.parent} the folder of the dataset?") from None
    except ValueError:
        raise DatasetError(f"{path} is empty: download it again") from None


def _entries(file: mmap.mmap, path: Path) -> Iterator[tuple[str, Span]]:
    """Key and place of the value of every entry of the outermost object."""
    depth, key, start = 0, None, 0
    for token in _TOKEN.finditer(file):
        sign = token.group()[:1]
        if sign in b"]}":
            depth -= 1
        if key is not None and ((depth == 1 and sign == b'"') or (depth == 0 and sign == b"}")):
            before = file[start : token.start()].rstrip()
            if before:  # a number, true, false or null
                yield key, (start, start + len(before.removesuffix(b",")))
                key = None
        if depth == 1 and key is None and sign == b'"':
            key = json.loads(token.group())
            start = file.find(b":", token.end()) + 1
        elif depth == 1 and key is not None and sign in b'"]}':
            yield key, (start, token.end())
            key = None
        elif (depth == 1 and key is None and sign in b"[{") or (depth == 0 and sign == b"["):
            break
        if sign in b"[{":
            depth += 1
        elif depth == 0:
            return
    raise DatasetError(f"{path} is not a complete JSON object: download it again")


def _items(file: mmap.mmap, start: int, end: int, where: str) -> Iterator[Span]:
    """The places of the lists and objects in the list at `file[start:end]`."""
    depth, first = 0, start
    for token in _TOKEN.finditer(file, start, end):
        sign = token.group()[:1]
        if sign in b"[{":
            if depth == 0 and sign == b"{":
                break
            if depth == 1:
                first = token.start()
            depth += 1
        elif sign in b"]}":
            depth -= 1
            if depth == 1:
                yield first, token.end()
            elif depth == 0:
                return
        elif depth <= 1:
            break
    raise DatasetError(f"{where} is not a list of objects: download it again")
