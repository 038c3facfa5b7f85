"""Batches, one drawn ahead in a thread while the network works on the one before."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic

import numpy as np

from fiftyone_refvos.training.learner import BatchT


class Draws(Generic[BatchT]):
    """The batches of a run.

    Every forward pass of every process has a generator of its own, made of the seed and its number. So nothing that
    was drawn ahead has to be saved, and a run that is resumed draws the same.
    """

    def __init__(
        self, draw: Callable[[np.random.Generator], BatchT], seed: int, process: int, passes: Iterable[int]
    ) -> None:
        self._draw, self._seed, self._process, self._passes = draw, seed, process, iter(passes)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="draw")
        self._ahead = self._submit()

    def next(self) -> tuple[BatchT, np.random.Generator]:
        """The next batch, and the generator that its losses go on with.

        Raises:
            StopIteration: after the last pass
        """
        if self._ahead is None:
            raise StopIteration
        drawn = self._ahead.result()
        self._ahead = self._submit()
        return drawn

    def close(self) -> None:
        """Ends the thread; a batch that is being drawn is waited for."""
        self._thread.shutdown(cancel_futures=True)

    def _submit(self) -> Future[tuple[BatchT, np.random.Generator]] | None:
        number = next(self._passes, None)
        return None if number is None else self._thread.submit(self._drawn, number)

    def _drawn(self, number: int) -> tuple[BatchT, np.random.Generator]:
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(self._process, number)))
        return self._draw(rng), rng
