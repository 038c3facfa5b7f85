"""How a running operator tells what it has done: to the App while a form is open, and to run records."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from fiftyone.core.utils import ProgressBar
from fiftyone.operators.executor import ExecutionContext

from fiftyone_refvos.segment import Progress

INTERVAL = 0.5
"""Seconds between two updates: models report every frame, and an update is a write to the database."""

Result = TypeVar("Result")
Tell = Callable[[Progress], None]


def is_from_app(ctx: ExecutionContext) -> bool:
    """Whether the App waits for messages. Its requests name the operator, which those from Python do not."""
    return "operator_uri" in ctx.request_params and not ctx.delegated


class Throttle:
    """Passes on the first update, and then at most one per interval."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._next = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + INTERVAL
            self._tell(progress)


def stream(work: Callable[[Tell], Result]) -> Generator[Progress, None, Result]:
    """Does some work in a thread, yields its progress meanwhile, and returns its result.

    The work goes on if nobody listens any more, as when the browser is closed.
    """
    updates: deque[Progress] = deque(maxlen=1)
    pool = ThreadPoolExecutor(1, thread_name_prefix="refvos")
    future = pool.submit(work, updates.append)
    pool.shutdown(wait=False)
    while not wait([future], timeout=INTERVAL).done:
        if updates:
            yield updates.pop()
    yield from updates
    return future.result()


def follow(tell: Tell) -> Callable[[ProgressBar], None]:
    """What makes a FiftyOne import or export tell its progress: the argument `progress` of these."""

    def told(bar: ProgressBar) -> None:
        if bar.total:
            tell(Progress(min(bar.iteration + 1, bar.total), bar.total, bar.iteration / bar.total))

    return told
