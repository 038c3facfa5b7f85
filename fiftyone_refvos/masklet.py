"""Masklets: the masks of one expression over a video, as COCO RLE, without FiftyOne or torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float32]


class RLE(TypedDict):
    """A compressed COCO run-length mask: `size` is [H, W], `counts` the encoded bytes."""

    size: list[int]
    counts: bytes


@dataclass(frozen=True, slots=True)
class Expression:
    """A referring expression of one video: what is looked for, and the id it is known by."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class FrameResult:
    """What a model says of one expression in one frame.

    Attributes:
        frame: index of the frame in the video, from 0
        expression_id: the expression that was looked for
        masks: `(num_objects, H, W) bool`, at the size of the frame
        scores: `(num_objects,)` the segmenter's own score of each mask, in [0, 1]
        found: False where the model says that the object is not in the frame; masks are then zero, unless the model
            was told to keep them
    """

    frame: int
    expression_id: str
    masks: BoolArray
    scores: FloatArray
    found: bool


@dataclass(frozen=True, eq=False)
class Masklet:
    """The masks of one expression over the frames of a video. Two are equal if all their contents are.

    Attributes:
        expression: the expression that was looked for
        size: (H, W) of the frames
        frames: indices of the covered frames, from 0, ascending; T of them
        masks: for each of the T frames one RLE per object, the same number N of objects everywhere
        scores: `(T, N) float32` the segmenter's own scores, in [0, 1]
        found: `(T,) bool`, False where the model says that the object is not in the frame
        key_frame: index of the frame from which the masks were propagated, if there is one

    Raises:
        ValueError: if the frames do not ascend, or masks, scores and found do not fit them
    """

    expression: Expression
    size: tuple[int, int]
    frames: tuple[int, ...]
    masks: tuple[tuple[RLE, ...], ...]
    scores: FloatArray
    found: BoolArray
    key_frame: int | None = None

    def __post_init__(self) -> None:
        name, count = f"the masklet of expression {self.expression.id!r}", len(self.frames)
        if any(later <= earlier for earlier, later in pairwise(self.frames)):
            raise ValueError(f"{name} must have ascending frames, got {self.frames}")
        if len(self.masks) != count or self.found.shape != (count,) or self.scores.ndim != 2:
            raise ValueError(
                f"{name} covers {count} frames, but has {len(self.masks)} lists of masks, "
                f"scores of shape {self.scores.shape} and found of shape {self.found.shape}"
            )
        if self.scores.shape[0] != count or any(len(rles) != self.num_objects for rles in self.masks):
            raise ValueError(
                f"{name} must have as many masks as scores in each of its {count} frames: scores are "
                f"{self.scores.shape}, numbers of masks are {sorted({len(rles) for rles in self.masks})}"
            )

    def __eq__(self, other: object) -> bool:
        # The comparison that dataclasses write would ask an array for its truth.
        if not isinstance(other, Masklet):
            return NotImplemented
        return (
            (self.expression, self.size, self.frames, self.masks, self.key_frame)
            == (other.expression, other.size, other.frames, other.masks, other.key_frame)
            and np.array_equal(self.scores, other.scores)
            and np.array_equal(self.found, other.found)
        )

    @classmethod
    def collect(
        cls,
        results: Iterable[FrameResult],
        expressions: Sequence[Expression],
        *,
        key_frames: Mapping[str, int] | None = None,
    ) -> list[Masklet]:
        """Gathers the streamed results of a video, in any frame order, into one masklet per expression.

        Masks are encoded as they come, so that memory holds run lengths only.

        A frame with fewer objects than the others is filled up with empty masks of score 0.

        Args:
            results: each (frame, expression) exactly once, in any order
            expressions: what was looked for; the masklets come in their order
            key_frames: frame index from 0 per expression id, to keep with the masklets

        Raises:
            ValueError: for an expression id that is unknown or stands for two expressions, a (frame,
                expression) given twice or never, masks that do not fit the scores or the other frames
        """
        builders = {expression.id: _Builder(expression) for expression in expressions}
        if len(builders) < len(expressions):
            raise ValueError(f"expression ids must be unique, got {[expression.id for expression in expressions]}")
        for result in results:
            if result.expression_id not in builders:
                raise ValueError(
                    f"result for the unknown expression id {result.expression_id!r}, known: {[*builders]}"
                )
            builders[result.expression_id].add(result)
        expected = set().union(*(builder.frames for builder in builders.values()))
        for builder in builders.values():
            if missing := expected - set(builder.frames):
                raise ValueError(
                    "the expressions of a video must cover the same frames: there is no result of expression "
                    f"{builder.expression.id!r} for {len(missing)} of {len(expected)}, first {min(missing)}"
                )
        return [builder.finish((key_frames or {}).get(builder.expression.id)) for builder in builders.values()]

    @property
    def num_objects(self) -> int:
        """N, the number of objects, the same in every frame."""
        return self.scores.shape[1]

    @property
    def no_target(self) -> bool:
        """True if there is no such object in the video: no frame holds a pixel, or the model finds it in none.

        The masks of a model that was told to keep what it rejects say nothing of that.
        """
        return not self._areas.any() or not self.found.any()

    @property
    def score(self) -> float:
        """Mean of the scores over all masks that are not empty; 0 where there are none."""
        kept = self.scores[self._areas > 0]
        return float(kept.mean(dtype=np.float64)) if kept.size else 0.0

    def mask(self, frame: int) -> BoolArray:
        """Decodes the masks of the video frame with index `frame`: `(N, H, W) bool`.

        Raises:
            KeyError: if the masklet does not cover that frame
        """
        if frame not in self._positions:
            raise KeyError(f"frame {frame} is not covered by the masklet of expression {self.expression.id!r}")
        return decode(self.masks[self._positions[frame]], self.size)

    def union(self, frame: int) -> BoolArray:
        """The union of all objects in the video frame with index `frame`: `(H, W) bool`."""
        return np.asarray(self.mask(frame).any(axis=0))

    def dense(self) -> Iterator[BoolArray]:
        """Decodes the covered frames in order, one `(N, H, W) bool` at a time."""
        return (decode(rles, self.size) for rles in self.masks)

    @cached_property
    def _positions(self) -> dict[int, int]:
        return {frame: position for position, frame in enumerate(self.frames)}

    @cached_property
    def _areas(self) -> NDArray[np.uint32]:
        """`(T, N)` the number of pixels of every mask."""
        # One by one: pycocotools 2.0 raises an OverflowError for lists of more than 255 masks.
        areas = [int(coco_mask.area(rle)) for frame_rles in self.masks for rle in frame_rles]
        return np.array(areas, dtype=np.uint32).reshape(self.scores.shape)


@dataclass
class _Builder:
    """Collects the frames of one expression while they stream in."""

    expression: Expression
    frames: dict[int, tuple[list[RLE], FloatArray, bool]] = field(default_factory=dict)
    size: tuple[int, int] | None = None

    def add(self, result: FrameResult) -> None:
        if result.frame in self.frames:
            raise ValueError(f"frame {result.frame} of expression {self.expression.id!r} was given twice")
        masks, scores = encode(result.masks), np.asarray(result.scores, dtype=np.float32)
        if scores.shape != (len(masks),):
            raise ValueError(f"frame {result.frame} has {len(masks)} masks, but scores of shape {scores.shape}")
        height, width = result.masks.shape[1:]
        if self.size not in (None, (height, width)):
            raise ValueError(
                f"frame {result.frame} has masks of size {(height, width)}, earlier ones are {self.size}"
            )
        self.size = (height, width)
        self.frames[result.frame] = (masks, scores, bool(result.found))

    def finish(self, key_frame: int | None) -> Masklet:
        if self.size is None:
            raise ValueError(f"there is no result for expression {self.expression.id!r}")
        ordered = sorted(self.frames.items())
        num_objects = max(len(rles) for _, (rles, _, _) in ordered)
        empty = encode(np.zeros((1, *self.size), dtype=bool))[0]
        scores = np.zeros((len(ordered), num_objects), dtype=np.float32)
        masks = []
        for t, (_, (rles, frame_scores, _)) in enumerate(ordered):
            scores[t, : len(frame_scores)] = frame_scores
            masks.append(tuple(rles) + (empty,) * (num_objects - len(rles)))
        return Masklet(
            expression=self.expression,
            size=self.size,
            frames=tuple(frame for frame, _ in ordered),
            masks=tuple(masks),
            scores=scores,
            found=np.array([found for _, (_, _, found) in ordered], dtype=bool),
            key_frame=key_frame,
        )


def encode(masks: BoolArray) -> list[RLE]:
    """Encodes `(N, H, W) bool` masks as N compressed COCO RLEs."""
    if masks.ndim != 3:
        raise ValueError(f"expected masks of shape (N, H, W), got {masks.shape}")
    # One at a time: to bring all together into column order, as the COCO API has it, takes three times as
    # long.
    pixels = np.asarray(masks, dtype=bool).view(np.uint8)
    return [coco_mask.encode(np.asfortranarray(mask)) for mask in pixels]


def decode(rles: Sequence[RLE], size: tuple[int, int]) -> BoolArray:
    """Decodes N compressed COCO RLEs of frames of `size` (H, W): `(N, H, W) bool`.

    Raises:
        ValueError: if an RLE is of another size
    """
    for rle in rles:
        if tuple(rle["size"]) != tuple(size):
            raise ValueError(f"the mask is {tuple(rle['size'])}, the frame is {tuple(size)}")
    height, width = size
    masks = np.empty((len(rles), height, width), dtype=bool)
    for mask, rle in zip(masks, rles, strict=True):
        lengths = run_lengths(rle)
        mask[:] = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(width, height).T
    return masks


def run_lengths(rle: RLE) -> NDArray[np.int64]:
    """The lengths of the runs of a mask, column after column: zeros, ones, zeros, …, of all H * W pixels."""
    lengths, _ = rle_numbers(rle["counts"])
    undo_differences(lengths)
    return lengths


def rle_numbers(counts: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers that the encoded bytes of one or several masks hold, and which byte is the last of each.

    The inverse of `rleToString` of the COCO API, which Python cannot reach, and with which masks are decoded
    in half the time of `pycocotools`: 5 bits a byte from the lowest on, 0x20 says that more follow, the
    highest bit is the sign. See `undo_differences` for what the numbers mean.
    """
    symbols = np.frombuffer(counts, dtype=np.uint8) - np.uint8(48)
    is_last = symbols < 0x20
    bits = symbols & np.uint8(0x1F)
    # Nearly all numbers have one byte or two: these are put together at every byte, and the last ones taken.
    values = (bits ^ np.uint8(0x10)).astype(np.int16) - np.int16(0x10)
    values[1:] = np.where(is_last[:-1], values[1:], values[1:] << 5 | bits[:-1])
    last = np.flatnonzero(is_last)
    numbers = values[last].astype(np.int64)
    (longer,) = np.nonzero(is_last[2:] & ~is_last[1:-1] & ~is_last[:-2])
    if len(longer):
        which = np.searchsorted(last, longer + 2)
        while len(longer):
            numbers[which] = numbers[which] << 5 | bits[longer]
            going_on = (longer > 0) & ~is_last[longer - 1]
            longer, which = longer[going_on] - 1, which[going_on]
    return numbers, last


def undo_differences(numbers: NDArray[np.int64]) -> None:
    """Turns the numbers of one mask into its run lengths; from the fourth on each is less the last but one."""
    for runs in (numbers[1::2], numbers[2::2]):
        np.add.accumulate(runs, out=runs)
