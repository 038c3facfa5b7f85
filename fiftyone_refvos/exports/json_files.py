"""JSON files that are written entry by entry: the masks of a whole dataset do not fit into memory."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO


class JsonEntries:
    """One large object or list in a JSON file, of which an entry at a time is in memory.

    Args:
        path: of the file; its folder is made if need be
        kind: `dict` or `list`
        under: the key that holds the entries in an outer object; None if they are the whole content
        before: what the outer object has besides

    Attributes:
        after: what the outer object has after the entries; can be changed until the file is closed
    """

    def __init__(
        self, path: Path, kind: type = dict, *, under: str | None = None, before: dict[str, Any] | None = None
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("w", encoding="utf-8")
        self._opening, self._closing = "{}" if kind is dict else "[]"
        self._count = 0
        self._outer = under is not None
        self.after: dict[str, Any] = {}
        if under is not None:
            head = "".join(f"{_dump(key)}: {_dump(value)},\n" for key, value in (before or {}).items())
            self._file.write(f"{{{head}{_dump(under)}: ")
        self._file.write(self._opening)

    def set(self, key: str, value: Any) -> None:
        """Adds an entry to an object."""
        self._write(f"{_dump(key)}: {_dump(value)}")

    def append(self, value: Any) -> None:
        """Adds an entry to a list."""
        self._write(_dump(value))

    def __enter__(self) -> JsonEntries:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            tail = "".join(f",\n{_dump(key)}: {_dump(value)}" for key, value in self.after.items())
            self._file.write(f"\n{self._closing}{tail}{'}' if self._outer else ''}\n")
        self._file.close()

    def _write(self, text: str) -> None:
        self._file.write(f"{',' if self._count else ''}\n{text}")
        self._count += 1


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
