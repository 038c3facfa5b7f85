"""Scores of videos and images, one by one or in processes; without FiftyOne and torch, which is slow."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from fiftyone_refvos.masklet import RLE
from fiftyone_refvos.metrics import (
    DAVIS17_SEMI_SUPERVISED,
    IMAGE_PROTOCOLS,
    MEVIS,
    PROTOCOLS,
    REF_DAVIS17_PER_ANNOTATOR,
    SAV,
    BitMask,
    ImageProtocol,
    ImageScore,
    Protocol,
    UnitScores,
    VideoMasks,
    score_image,
)
from fiftyone_refvos.metrics.bitmask import difference

DEFAULT_IMAGE_PROTOCOL = IMAGE_PROTOCOLS["gres"]

Part = TypeVar("Part")
Scores = TypeVar("Scores")
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


@dataclass(frozen=True)
class ImageQuery:
    """An expression of an image.

    Attributes:
        id: of the expression
        truth: its true masks, none without a target
        prediction: the masks of the model
        rejected: whether the model says that there is no target; None where its masks say it
    """

    id: str
    truth: tuple[RLE, ...]
    prediction: tuple[RLE, ...]
    rejected: bool | None


@dataclass(frozen=True)
class ImageMasks:
    """The masks of one image.

    Attributes:
        name: of the image
        size: (H, W)
        queries: its expressions
        void: pixels that nobody annotated, which count in no mask
    """

    name: str
    size: tuple[int, int]
    queries: tuple[ImageQuery, ...]
    void: tuple[RLE, ...] = ()


@dataclass(frozen=True)
class ExpressionScore:
    """What protocols count of an expression of an image."""

    id: str
    score: ImageScore

    @property
    def iou(self) -> float:
        """Of the expression by itself, as gIoU counts it: without a target 1 if the model rejects it, else 0."""
        if not self.score.truth_area:
            return float(self.score.no_target)
        return 0.0 if self.score.no_target else self.score.intersection / self.score.union


def find_protocol(protocol: Protocol | ImageProtocol | str | None) -> Protocol:
    """The protocol of a name; MeViS' mean over all frames and expressions by default.

    Raises:
        ValueError: for an unknown name, and for protocols of images
    """
    if isinstance(protocol, str):
        return _named(protocol, PROTOCOLS, IMAGE_PROTOCOLS, "images", "videos")
    if isinstance(protocol, ImageProtocol):
        raise _of_other_media(protocol.name, PROTOCOLS, "images", "videos")
    return protocol or MEVIS


def find_image_protocol(protocol: ImageProtocol | Protocol | str | None) -> ImageProtocol:
    """The protocol of a name; that of gRefCOCO by default.

    Raises:
        ValueError: for an unknown name, and for protocols of videos
    """
    if isinstance(protocol, str):
        return _named(protocol, IMAGE_PROTOCOLS, PROTOCOLS, "videos", "images")
    if isinstance(protocol, Protocol):
        raise _of_other_media(protocol.name, IMAGE_PROTOCOLS, "videos", "images")
    return protocol or DEFAULT_IMAGE_PROTOCOL


def _named(name: str, known: Mapping[str, Part], others: Container[str], theirs: str, ours: str) -> Part:
    if name in others:
        raise _of_other_media(name, known, theirs, ours)
    if name not in known:
        raise ValueError(f"there is no protocol {name!r}, but: {', '.join(known)}")
    return known[name]


def _of_other_media(name: str, known: Iterable[str], theirs: str, ours: str) -> ValueError:
    return ValueError(
        f"the protocol {name!r} is for {theirs}, and {ours} are to be evaluated: choose one of {', '.join(known)}"
    )


def counts_objects(protocol: Protocol) -> bool:
    """Whether the units of a protocol are the objects of a video, whatever expressions name them."""
    return isinstance(protocol, (type(DAVIS17_SEMI_SUPERVISED), type(SAV)))


def score_video(protocol: Protocol, video: VideoMasks) -> VideoScores:
    """Scores one video.

    For protocols that count objects, the masks of these come apart, in a `VideoMasks` without queries.

    Raises:
        ValueError: for masks and ids that do not fit, named in the message
    """
    if counts_objects(protocol):
        return VideoScores([], MEVIS.score(video)) if video.queries else VideoScores(protocol.score(video), [])
    units = protocol.score(video)
    # Ref-DAVIS17's units are objects, whose numbers look like ids of expressions.
    of_expressions = not isinstance(protocol, type(REF_DAVIS17_PER_ANNOTATOR)) and all(
        unit.frames in ((), tuple(video.frames)) for unit in units
    )
    if of_expressions and [unit.id for unit in units] == [query.id for query in video.queries]:
        return VideoScores(units, units)
    return VideoScores(units, MEVIS.score(video))


def score_expressions(image: ImageMasks) -> list[ExpressionScore]:
    """Scores the expressions of one image.

    Raises:
        ValueError: for masks that do not fit, named in the message
    """
    void = BitMask.of(list(image.void), image.size)
    return [
        ExpressionScore(
            query.id,
            score_image(
                *(difference(BitMask.of(list(rles), image.size), void) for rles in (query.truth, query.prediction)),
                image=image.name,
                no_target=query.rejected,
                size=image.size,
            ),
        )
        for query in image.queries
    ]


def score_all(
    media: Iterable[Callable[[], list[Part]]], score: Callable[[Part], Scores], num_workers: int
) -> Generator[list[Scores] | Exception, None, None]:
    """Yields, in order, the scores of every video or image, or the error that it ended with.

    Memory holds one video at a time; with workers, two for each.

    Args:
        media: functions that read the masks of one video each, in parts, called here one after the other
        score: scores a part; a function that can be sent to other processes
        num_workers: number of processes; 1 scores in this one
    """
    if num_workers <= 1:
        for read in media:
            yield _attempt(lambda read: [score(part) for part in read()], read)
        return
    # Not forked: a process with threads, such as the server of the App, may leave locks held in its copies.
    executor = ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from _in_order(executor, media, score, num_workers * (1 + AHEAD))
    finally:
        executor.shutdown(cancel_futures=True)


def _in_order(
    executor: ProcessPoolExecutor,
    media: Iterable[Callable[[], list[Part]]],
    score: Callable[[Part], Scores],
    limit: int,
) -> Iterator[list[Scores] | Exception]:
    def submit(read: Callable[[], list[Part]]) -> list[Future[Scores]]:
        return [executor.submit(score, part) for part in read()]

    waiting: deque[list[Future[Scores]] | Exception] = deque()
    for read in media:
        if len(waiting) >= limit:
            yield _collect(waiting.popleft())
        waiting.append(_attempt(submit, read))
    while waiting:
        yield _collect(waiting.popleft())


def _collect(futures: list[Future[Scores]] | Exception) -> list[Scores] | Exception:
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
