"""Batches, drawn ahead while the network works on the one before."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from fiftyone_refvos.training.learner import BatchT

Drawn = tuple[BatchT, np.random.Generator]


class Draws(Generic[BatchT]):
    """The batches of a run.

    Every forward pass of every process has a generator of its own, made of the seed and its number. So nothing that
    was drawn ahead has to be saved, and a run that is resumed draws the same, whoever draws.

    Args:
        draw: makes a batch
        seed: of the run
        process: number of this process, under `accelerate launch`
        passes: numbers of the forward passes that are left
        workers: forked processes that draw ahead; 0 draws one batch ahead in a thread
    """

    def __init__(
        self,
        draw: Callable[[np.random.Generator], BatchT],
        seed: int,
        process: int,
        passes: Iterable[int],
        workers: int = 0,
    ) -> None:
        numbered = _Numbered(draw, seed, process)
        self._drawn = _by_processes(numbered, passes, workers) if workers else _by_a_thread(numbered, passes)

    def next(self) -> Drawn[BatchT]:
        """The next batch, and the generator that its losses go on with.

        Raises:
            StopIteration: after the last pass
        """
        return next(self._drawn)

    def close(self) -> None:
        """Ends the thread or the processes; a batch that the thread is drawing is waited for."""
        self._drawn.close()


class _Numbered(Dataset[Drawn[BatchT]]):
    """The batch of each pass, by its number."""

    def __init__(self, draw: Callable[[np.random.Generator], BatchT], seed: int, process: int) -> None:
        self._draw, self._seed, self._process = draw, seed, process

    def __getitem__(self, number: int) -> Drawn[BatchT]:
        rng = np.random.default_rng(np.random.SeedSequence(self._seed, spawn_key=(self._process, number)))
        return self._draw(rng), rng


def _by_a_thread(numbered: _Numbered[BatchT], passes: Iterable[int]) -> Generator[Drawn[BatchT], None, None]:
    with ThreadPoolExecutor(1, thread_name_prefix="draw") as thread:
        ahead = None
        for number in passes:
            drawn, ahead = ahead, thread.submit(numbered.__getitem__, number)
            if drawn is not None:
                yield drawn.result()
        if ahead is not None:
            yield ahead.result()


def _by_processes(
    numbered: _Numbered[BatchT], passes: Iterable[int], workers: int
) -> Generator[Drawn[BatchT], None, None]:
    yield from DataLoader(
        numbered,
        batch_size=None,
        sampler=list(passes),
        num_workers=workers,
        multiprocessing_context="fork",  # they share the data that the learner holds
        collate_fn=_as_it_is,
        worker_init_fn=_leave_interrupts_alone,
        generator=torch.Generator(),  # or it would draw its seed from the one of the network's dropout
    )


def _as_it_is(drawn: Any) -> Any:
    return drawn


def _leave_interrupts_alone(_: int) -> None:
    """Ctrl-C reaches every process of a terminal; the main one ends the run, and then these."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
