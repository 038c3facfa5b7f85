"""How far a command is."""

from __future__ import annotations

import sys
from time import monotonic
from typing import Self

from fiftyone_refvos.segment import Progress

_EVERY = 60.0  # seconds between lines where there is no terminal


class ProgressLine:
    """Tells progress on stderr: over one line of a terminal; in files and pipes in a line of its own each minute.

    The line of a terminal ends with the work, or with the `with` block where the work stops sooner.

    Args:
        counted: of what there are so many
    """

    def __init__(self, counted: str = "video") -> None:
        self._counted = counted
        self._terminal = sys.stderr.isatty()
        self._due = monotonic() + _EVERY
        self._open = self._done = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            print(file=sys.stderr, flush=True)
            self._open = False

    def __call__(self, progress: Progress) -> None:
        line = f"{self._counted} {progress.video}/{progress.num_videos}, {progress.fraction:4.0%}"
        if self._terminal:
            self._write_over(line, done=progress.fraction >= 1)
        elif monotonic() >= self._due:
            self._due = monotonic() + _EVERY
            print(line, file=sys.stderr, flush=True)

    def _write_over(self, line: str, *, done: bool) -> None:
        if done and self._done:  # the end may be told twice
            return
        print(f"\r{line}", end="\n" if done else "", file=sys.stderr, flush=True)
        self._open, self._done = not done, done
