"""Scores of videos, one after the other or in processes; without FiftyOne and torch, which workers would wait for."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from fiftyone_refvos.metrics import (
    DAVIS17_SEMI_SUPERVISED,
    MEVIS,
    PROTOCOLS,
    REF_DAVIS17_PER_ANNOTATOR,
    SAV,
    Protocol,
    UnitScores,
    VideoMasks,
)

ReadVideo = Callable[[], list[VideoMasks]]
Argument = TypeVar("Argument")
Result = TypeVar("Result")

AHEAD = 1  # videos per worker that wait for it, so that it need not wait for the database


@dataclass(frozen=True)
class VideoScores:
    """The scores of one video, or of those of its frames in which the same expressions are evaluated.

    Attributes:
        units: what the protocol counts
        expressions: J and F of every expression by itself, in all its frames; mostly the same as `units`
    """

    units: list[UnitScores]
    expressions: list[UnitScores]


def find_protocol(protocol: Protocol | str | None) -> Protocol:
    """The protocol of a name; MeViS' mean over all frames and expressions by default.

    Raises:
        ValueError: for an unknown name, and for protocols without expressions
    """
    if protocol is None:
        return MEVIS
    if isinstance(protocol, str):
        if protocol not in PROTOCOLS:
            raise ValueError(f"there is no protocol {protocol!r}, but: {', '.join(PROTOCOLS)}")
        protocol = PROTOCOLS[protocol]
    if isinstance(protocol, (type(DAVIS17_SEMI_SUPERVISED), type(SAV))):
        raise ValueError(
            f"the protocol {protocol.name!r} scores objects that no expression names, and masklets of expressions "
            f"are evaluated here: use {MEVIS.name!r}, or fiftyone_refvos.metrics on masks of your own"
        )
    return protocol


def score_video(protocol: Protocol, video: VideoMasks) -> VideoScores:
    """Scores one video.

    Raises:
        ValueError: for masks and ids that do not fit, named in the message
    """
    units = protocol.score(video)
    # Ref-DAVIS17's units are objects, whose numbers look like ids of expressions.
    of_expressions = not isinstance(protocol, type(REF_DAVIS17_PER_ANNOTATOR)) and all(
        unit.frames in ((), tuple(video.frames)) for unit in units
    )
    if of_expressions and [unit.id for unit in units] == [query.id for query in video.queries]:
        return VideoScores(units, units)
    return VideoScores(units, MEVIS.score(video))


def score_videos(
    videos: Iterable[ReadVideo], protocol: Protocol, num_workers: int
) -> Generator[list[VideoScores] | Exception, None, None]:
    """Yields, in order, the scores of every video, or the error that it ended with.

    Memory holds one video at a time; with workers, two for each.

    Args:
        videos: functions that read the masks of one video each, called here one after the other
        protocol: how to score
        num_workers: number of processes; 1 scores in this one
    """
    if num_workers <= 1:
        for read in videos:
            yield _attempt(lambda read: [score_video(protocol, part) for part in read()], read)
        return
    # Not forked: a process with threads, such as the server of the App, may leave locks held in its copies.
    executor = ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from _in_order(executor, videos, protocol, num_workers * (1 + AHEAD))
    finally:
        executor.shutdown(cancel_futures=True)


def _in_order(
    executor: ProcessPoolExecutor, videos: Iterable[ReadVideo], protocol: Protocol, limit: int
) -> Iterator[list[VideoScores] | Exception]:
    def submit(read: ReadVideo) -> list[Future[VideoScores]]:
        return [executor.submit(score_video, protocol, part) for part in read()]

    waiting: deque[list[Future[VideoScores]] | Exception] = deque()
    for read in videos:
        if len(waiting) >= limit:
            yield _collect(waiting.popleft())
        waiting.append(_attempt(submit, read))
    while waiting:
        yield _collect(waiting.popleft())


def _collect(futures: list[Future[VideoScores]] | Exception) -> list[VideoScores] | Exception:
    if isinstance(futures, Exception):
        return futures
    return _attempt(lambda futures: [future.result() for future in futures], futures)


def _attempt(action: Callable[[Argument], Result], argument: Argument) -> Result | Exception:
    """The result of an action, or what is wrong with this video."""
    try:
        return action(argument)
    except BrokenExecutor:  # a process died; no other video would do better
        raise
    except Exception as error:  # whatever it is, the caller decides about the other videos
        return error
