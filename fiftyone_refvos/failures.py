"""What is wrong with a predicted masklet: one kind of failure per expression and video, by rules on the masks.

First every annotated frame is given a state (`_judge`), then the states of all frames decide (`_decide`). Both
are tables in `docs/failures.md`; where several rules fit, the first one of the table wins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum, auto
from math import ceil

from fiftyone_refvos.masklet import RLE, Masklet
from fiftyone_refvos.metrics import BOUND_TH, BitMask, score_frame
from fiftyone_refvos.metrics.bitmask import difference, intersection_area

Rles = tuple[RLE, ...]
Size = tuple[int, int]


class FailureKind(StrEnum):
    """What can be wrong; each is its own text, e.g. `kind == "late start"`."""

    NONE = "none"
    FALSE_POSITIVE = "false positive"
    WRONG_OBJECT = "wrong object"
    MISSED_OBJECT = "missed object"
    IDENTITY_SWITCH = "identity switch"
    LATE_START = "late start"
    LATE_LOSS = "late loss"
    DRIFT = "drift"
    TEMPORARY_LOSS = "temporary loss"
    MISSED_PART = "missed part"
    OVER_SEGMENTATION = "over-segmentation"
    UNDER_SEGMENTATION = "under-segmentation"
    LOW_OVERLAP = "low overlap"
    BOUNDARY_ONLY = "boundary only"


@dataclass(frozen=True, kw_only=True)
class FailureConfig:
    """The thresholds of the rules. Precision and recall are shares of pixels of the mask, of the truth.

    Attributes:
        hit_iou: a frame is right from this J on; what detection and tracking count as a match
        miss_iou: below it, a mask has lost the target: two boxes of equal size whose centres are 0.8 of their
            side apart still have 0.1, so less is neighbours touching
        other_iou: a mask is on another object from this IoU on; as `hit_iou`, so that it cannot be both for
            objects that do not overlap
        covered: recall from which the target counts as covered (then the mask is too large), precision from
            which the mask lies inside the target (then it is too small); strict, since the outline of a good
            mask costs up to 0.2 on small objects
        part_found: recall from which one of several objects is found
        part_missed: recall below which one of several objects is missed; more than 0, because neighbours
            touch
        boundary_iou: J from which only the boundary can be wrong; a mask of 30 pixels width that is 2 pixels
            too large has 0.78
        boundary_f: F below which the boundary is wrong: half of it is not where it should be
        min_share: share of the frames that must show a failure; 1 frame up to 20, then less is a flicker
        bound_th: tolerance of F, as in the metrics
    """

    hit_iou: float = 0.5
    miss_iou: float = 0.1
    other_iou: float = 0.5
    covered: float = 0.8
    part_found: float = 0.5
    part_missed: float = 0.1
    boundary_iou: float = 0.75
    boundary_f: float = 0.5
    min_share: float = 0.05
    bound_th: float = BOUND_TH

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "bound_th" and not 0 < value <= 1:
                raise ValueError(f"{name} must be above 0 and at most 1, got {value}")
        if self.miss_iou > self.hit_iou or self.part_missed > self.part_found:
            raise ValueError(
                f"miss_iou ({self.miss_iou}) must not exceed hit_iou ({self.hit_iou}), nor part_missed "
                f"({self.part_missed}) part_found ({self.part_found})"
            )

    def needed(self, num_frames: int) -> int:
        """How many of so many frames must show a failure; at least one."""
        return max(1, ceil(self.min_share * num_frames))


@dataclass(frozen=True)
class Failure:
    """What is wrong with one expression in one video.

    Attributes:
        kind: what is wrong
        runs: where: the first and the last frame index, from 0 and inclusive, of every run of annotated
            frames
        severity: what these frames take off the mean J of the video (off the mean F for `boundary only`), in
            [0, 1]
        switch_frame: for an identity switch the frame index at which the mask first goes from the target to
            another object, or back
        other: for a wrong object or an identity switch the position in `others` of the object it is on mostly
    """

    kind: FailureKind
    runs: tuple[tuple[int, int], ...] = ()
    severity: float = 0.0
    switch_frame: int | None = None
    other: int | None = None


class _State(StrEnum):
    """How the mask of one frame stands to the target."""

    ABSENT = auto()  # there is nothing, and nothing was predicted
    EXTRA = auto()  # there is nothing, but something was predicted
    EMPTY = auto()
    PART = auto()
    RIGHT = auto()
    OTHER = auto()
    OVER = auto()
    ASTRAY = auto()
    UNDER = auto()
    LOW = auto()


_LOST = {_State.EMPTY, _State.OTHER, _State.ASTRAY}
_TRACKED = {_State.RIGHT, _State.PART, _State.OVER, _State.UNDER}


@dataclass(frozen=True)
class _Frame:
    """One annotated frame: its state, J, the masks, and the position of the other object it is on."""

    state: _State
    J: float
    truth: BitMask
    prediction: BitMask
    other: int | None = None

    @property
    def visible(self) -> bool:
        return self.truth.area > 0


def classify(
    prediction: Masklet,
    truth: Masklet,
    others: Sequence[Masklet] = (),
    config: FailureConfig = FailureConfig(),
    *,
    void: Mapping[int, Rles] | None = None,
) -> Failure:
    """Says what is wrong with the masklet of an expression; `none` if it is good.

    Args:
        prediction: covers at least the frames of `truth`; the union of its objects counts
        truth: the annotated frames, with one mask per object that is meant; without objects, or with empty
            masks, nothing is meant
        others: masklets of other objects of the video; each of their objects is compared on its own. They may
            miss frames
        config: the thresholds
        void: by frame index the pixels that nobody annotated; they are taken out of all masks before anything is
            compared, as the metrics do it

    Raises:
        ValueError: if the masks differ in size, or the prediction lacks an annotated frame
    """
    size = _check(prediction, truth, others)
    frames = list(_frames(prediction, truth, others, void or {}, size, config))
    kind, where = _decide(frames, config)
    if not where:
        return Failure(FailureKind.NONE)
    if kind == FailureKind.BOUNDARY_ONLY:
        costs = [1 - _f(frames[t], config) for t in where]
    else:
        costs = [1 - frames[t].J for t in where]
    on_others = kind in (FailureKind.WRONG_OBJECT, FailureKind.IDENTITY_SWITCH)
    switch = _switch(frames) if kind == FailureKind.IDENTITY_SWITCH else None
    return Failure(
        kind,
        runs=tuple((truth.frames[first], truth.frames[last]) for first, last in _runs(where)),
        severity=sum(costs) / len(frames),
        switch_frame=None if switch is None else truth.frames[switch],
        other=_most_frequent(frames) if on_others else None,
    )


def _check(prediction: Masklet, truth: Masklet, others: Sequence[Masklet]) -> Size:
    """The size (H, W) of the frames; masklets without objects do not tell it.

    Raises:
        ValueError: as `classify`
    """
    name = f"expression {truth.expression.id!r}"
    known = [masklet for masklet in (truth, prediction, *others) if masklet.num_objects]
    size = (known or [truth])[0].size
    for masklet in known:
        if tuple(masklet.size) != tuple(size):
            raise ValueError(
                f"{name}: the masks of {known[0].expression.text!r} are {tuple(size)} (height, width), those of "
                f"{masklet.expression.text!r} are {tuple(masklet.size)}"
            )
    if missing := sorted(set(truth.frames) - set(prediction.frames)):
        raise ValueError(
            f"{name}: {len(missing)} of {len(truth.frames)} annotated frames have no prediction, the first is frame "
            f"{missing[0]} (from 0); segment the whole video, or classify the frames that are there"
        )
    return size


def _frames(
    prediction: Masklet,
    truth: Masklet,
    others: Sequence[Masklet],
    void: Mapping[int, Rles],
    size: Size,
    config: FailureConfig,
) -> Iterator[_Frame]:
    """Judges one annotated frame after the other; other objects are decoded only where it matters."""
    predicted = dict(zip(prediction.frames, prediction.masks, strict=True))
    of_others = [dict(zip(masklet.frames, masklet.masks, strict=True)) for masklet in others]
    for frame, rles in zip(truth.frames, truth.masks, strict=True):
        try:
            ignored = BitMask.of(void.get(frame, ()), size)
            objects = [difference(BitMask.of(rle, size), ignored) for rle in rles]
            mask = difference(BitMask.of(predicted[frame], size), ignored)
            yield _judge(mask, objects, _Others(of_others, frame, ignored), config)
        except ValueError as error:
            raise ValueError(f"expression {truth.expression.id!r}, frame {frame}: {error}") from error


@dataclass(frozen=True)
class _Others:
    """The other objects in one frame."""

    masks: Sequence[Mapping[int, Rles]]
    frame: int
    void: BitMask

    def best(self, mask: BitMask, threshold: float) -> int | None:
        """The position of the masklet with the object of highest IoU, if that reaches the threshold."""
        best, found = threshold, None
        for position, masks in enumerate(self.masks):
            for rle in masks.get(self.frame, ()):
                other = difference(BitMask.of(rle, mask.size), self.void)
                iou = _iou(mask, other)
                if iou > best or (iou == best and found is None):
                    best, found = iou, position
        return found


def _judge(mask: BitMask, objects: Sequence[BitMask], others: _Others, config: FailureConfig) -> _Frame:
    """The state of one frame; the conditions are asked in the order of the table in `docs/failures.md`."""
    truth = BitMask.of(list(objects), mask.size)
    if not truth.area:
        if not mask.area:
            return _Frame(_State.ABSENT, 1.0, truth, mask)
        other = others.best(mask, config.other_iou)
        return _Frame(_State.EXTRA if other is None else _State.OTHER, 0.0, truth, mask, other)
    if not mask.area:
        return _Frame(_State.EMPTY, 0.0, truth, mask)
    shared = intersection_area(truth, mask)
    iou = shared / (truth.area + mask.area - shared)
    precision, recall = shared / mask.area, shared / truth.area
    if _part_only(mask, objects, config):
        return _Frame(_State.PART, iou, truth, mask)
    if iou >= config.hit_iou:
        return _Frame(_State.RIGHT, iou, truth, mask)
    if recall < config.part_found and (other := others.best(mask, config.other_iou)) is not None:
        return _Frame(_State.OTHER, iou, truth, mask, other)
    if recall >= config.covered:
        return _Frame(_State.OVER, iou, truth, mask)
    if iou < config.miss_iou:
        return _Frame(_State.ASTRAY, iou, truth, mask)
    return _Frame(_State.UNDER if precision >= config.covered else _State.LOW, iou, truth, mask)


def _part_only(mask: BitMask, objects: Sequence[BitMask], config: FailureConfig) -> bool:
    """Whether some of the visible objects are found, and some are missed."""
    if len(objects) < 2:
        return False
    recalls = [intersection_area(each, mask) / each.area for each in objects if each.area]
    return max(recalls) >= config.part_found and min(recalls) < config.part_missed


def _decide(frames: Sequence[_Frame], config: FailureConfig) -> tuple[FailureKind, list[int]]:
    """The kind, and the positions of the frames where it happens; the order is that of `docs/failures.md`."""
    visible = [t for t, frame in enumerate(frames) if frame.visible]
    if not visible:
        return FailureKind.FALSE_POSITIVE, _having(frames, _State.EXTRA, _State.OTHER)
    needed = config.needed(len(visible))
    lost = [t for t in visible if frames[t].state in _LOST]
    if len(visible) - len(lost) < needed:
        other = [t for t in lost if frames[t].state == _State.OTHER]
        astray = [t for t in lost if frames[t].state == _State.ASTRAY]
        wrong = len(other) >= max(needed, len(astray))
        return (FailureKind.WRONG_OBJECT if wrong else FailureKind.MISSED_OBJECT), lost
    other = _having(frames, _State.OTHER)
    if len(other) >= needed:
        return FailureKind.IDENTITY_SWITCH, other
    kind, where = max(_candidates(frames, visible, config), key=lambda found: len(found[1]))
    if where:
        return kind, where
    rough = [t for t in visible if frames[t].state == _State.RIGHT and _is_rough(frames[t], config)]
    return FailureKind.BOUNDARY_ONLY, rough if len(rough) >= needed else []


def _candidates(
    frames: Sequence[_Frame], visible: Sequence[int], config: FailureConfig
) -> Iterator[tuple[FailureKind, list[int]]]:
    """The kinds of which the one with most frames wins; those with too few frames come with none."""
    on_target = [t for t in visible if frames[t].state not in _LOST]
    tracked = [t for t in visible if frames[t].state in _TRACKED]
    first, last = on_target[0], (tracked or on_target)[-1]
    tail = [t for t in visible if t > last]
    gone = sum(frames[t].state == _State.EMPTY for t in tail)
    between = [t for t in visible if first < t < last]
    low = [t for t in visible if t < last or not tracked]
    found = {
        FailureKind.LATE_START: [t for t in visible if t < first],
        FailureKind.LATE_LOSS if 2 * gone >= len(tail) else FailureKind.DRIFT: tail,
        FailureKind.TEMPORARY_LOSS: [t for t in between if frames[t].state in _LOST],
        FailureKind.MISSED_PART: _having(frames, _State.PART),
        FailureKind.OVER_SEGMENTATION: _having(frames, _State.OVER),
        FailureKind.UNDER_SEGMENTATION: _having(frames, _State.UNDER),
        FailureKind.LOW_OVERLAP: [t for t in low if frames[t].state == _State.LOW],
    }
    needed = config.needed(len(visible))
    yield from ((kind, where if len(where) >= needed else []) for kind, where in found.items())
    extra = [t for t in _having(frames, _State.EXTRA, _State.OTHER) if not frames[t].visible]
    yield FailureKind.FALSE_POSITIVE, extra if len(extra) >= config.needed(len(frames) - len(visible)) else []


def _switch(frames: Sequence[_Frame]) -> int | None:
    """The position at which the mask first goes from the target to another object, or back."""
    before: bool | None = None
    for t, frame in enumerate(frames):
        if frame.state == _State.OTHER or (frame.visible and frame.state not in _LOST):
            on_other = frame.state == _State.OTHER
            if before is not None and on_other != before:
                return t
            before = on_other
    return None


def _most_frequent(frames: Sequence[_Frame]) -> int | None:
    """The position of the other object that the mask is on in most frames, the earliest of equals."""
    counts = Counter(frame.other for frame in frames if frame.other is not None)
    return counts.most_common(1)[0][0] if counts else None


def _having(frames: Sequence[_Frame], *states: _State) -> list[int]:
    return [t for t, frame in enumerate(frames) if frame.state in states]


def _is_rough(frame: _Frame, config: FailureConfig) -> bool:
    return config.boundary_iou <= frame.J < 1 and _f(frame, config) < config.boundary_f


def _f(frame: _Frame, config: FailureConfig) -> float:
    return score_frame(frame.truth, frame.prediction, bound_th=config.bound_th).F


def _iou(a: BitMask, b: BitMask) -> float:
    shared = intersection_area(a, b)
    return shared / (a.area + b.area - shared) if a.area + b.area else 0.0


def _runs(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """[0, 1, 2, 5] gives (0, 2), (5, 5)."""
    first = previous = positions[0]
    for position in positions[1:]:
        if position != previous + 1:
            yield first, previous
            first = position
        previous = position
    yield first, previous
