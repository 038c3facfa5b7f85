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

Span = tuple[int, int]  # the first byte of a value, and the one after its last

# Texts as a whole, so that brackets in them do not count. RLEs are full of them.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


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
        start, end = self._index()[key]
        assert self._file is not None
        try:
            return json.loads(self._file[start:end])
        except ValueError as error:
            raise DatasetError(
                f"{self.path}: the entry {key!r} is not valid JSON ({error}): download it again"
            ) from error

    def __contains__(self, key: object) -> bool:
        return key in self._index()

    def __iter__(self) -> Iterator[str]:
        return iter(self._index())

    def __len__(self) -> int:
        return len(self._index())

    def objects(self, key: str) -> Iterator[tuple[Span, dict[str, Any]]]:
        """The objects in the list of an entry, parsed one after the other, each with its place in the file.

        Raises:
            DatasetError: if there is no such entry, or one of them is no valid JSON
        """
        if key not in self:
            raise DatasetError(f"{self.path} has no {key!r}")
        assert self._file is not None
        for span in _objects(self._file, self._index()[key]):
            yield span, self.object_at(span)

    def object_at(self, span: Span) -> dict[str, Any]:
        """Parses anew what `objects` gave for a place."""
        assert self._file is not None
        try:
            found: dict[str, Any] = json.loads(self._file[slice(*span)])
        except ValueError as error:
            raise DatasetError(
                f"{self.path}: what begins at byte {span[0]} is not valid JSON ({error}): download it again"
            ) from error
        return found

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
    """Key, and first and last byte of the value, of every entry of the outermost object."""
    depth, key, start = 0, None, 0
    for token in _TOKEN.finditer(file):
        sign = token.group()[:1]
        if depth == 1 and key is not None and sign in b'"}':
            # A number or a word is no token: if there is one, this token is the next key, or the end.
            value = file[start : token.start()].rstrip(b", \t\r\n")
            if value.strip():
                yield key, (start, start + len(value))
                key = None
        if sign in b"]}":
            depth -= 1
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


def _objects(file: mmap.mmap, span: Span) -> Iterator[Span]:
    """Where the objects in a list are."""
    depth, start = 0, 0
    for token in _TOKEN.finditer(file, *span):
        sign = token.group()[:1]
        if sign in b"[{":
            depth += 1
            if depth == 2:
                start = token.start()
        elif sign in b"]}":
            depth -= 1
            if depth == 1 and sign == b"}":
                yield start, token.end()
