"""How far a command is."""

from __future__ import annotations

import sys
import time

from fiftyone_refvos.segment import Progress

_EVERY = 60.0  # seconds between lines where there is no terminal


class ProgressLine:
    """Tells progress on stderr: over one line of a terminal; in files and pipes in a line of its own each minute.

    Args:
        counted: of what there are so many
    """

    def __init__(self, counted: str = "video") -> None:
        self._counted = counted
        self._terminal = sys.stderr.isatty()
        self._due = time.monotonic() + _EVERY

    def __call__(self, progress: Progress) -> None:
        line = f"{self._counted} {progress.video}/{progress.num_videos}, {progress.fraction:4.0%}"
        if self._terminal:
            print(f"\r{line}", end="\n" if progress.fraction >= 1 else "", file=sys.stderr, flush=True)
        elif time.monotonic() >= self._due:
            self._due = time.monotonic() + _EVERY
            print(line, file=sys.stderr, flush=True)
