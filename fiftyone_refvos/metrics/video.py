"""What a protocol gets, the masks of one video, and what it makes of them, the scores of its units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fiftyone_refvos.metrics.bitmask import BitMask, TrackMasks, naming
from fiftyone_refvos.metrics.boundary import BOUND_TH, boundary_radius
from fiftyone_refvos.metrics.frame import FrameScore, compare
from fiftyone_refvos.metrics.packing import Size

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Query:
    """A referring expression as an evaluation sees it.

    Attributes:
        id: of the expression; its prediction is found under it
        object_ids: the objects that it means; none for an expression without a target
        type_id: the kind of expression, where a protocol tells kinds apart
        annotator: who wrote it, where a protocol averages over annotators
    """

    id: str
    object_ids: tuple[str, ...] = ()
    type_id: int | None = None
    annotator: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoMasks:
    """The true and the predicted masks of one video, in the frames that are evaluated.

    All sequences of masks have one entry per frame, T in all. An entry is what `FrameMasks` allows: an array, an
    RLE, several of them, None for nothing; so `Masklet.masks` and `(T, N, H, W)` arrays fit as they are.

    Attributes:
        name: of the video
        size: (H, W) of its frames
        frames: the names of the T annotated frames, in order
        objects: the true masks per object id
        predictions: the predicted masks per expression id; per object id for protocols without expressions
        queries: the expressions; empty for protocols without expressions
        void: pixels that nobody annotated
        foreground: all that ReVOS counts as foreground in its robustness
    """

    name: str
    size: Size
    frames: Sequence[str]
    objects: Mapping[str, TrackMasks]
    predictions: Mapping[str, TrackMasks]
    queries: Sequence[Query] = ()
    void: TrackMasks | None = None
    foreground: TrackMasks | None = None
    _true: dict[tuple[str, ...], list[BitMask]] = field(default_factory=dict, init=False, repr=False)

    def check_queries(self, *, ids_may_repeat: bool = False) -> None:
        """Makes sure that expressions and predictions belong to each other.

        Args:
            ids_may_repeat: whether expressions of different objects may have the same id

        Raises:
            ValueError: for two expressions with one id, or a prediction of no expression
        """
        ids = [query.id for query in self.queries]
        if unknown := [id for id in self.predictions if id not in ids]:
            raise ValueError(f"{self.name}: predictions for unknown expressions {unknown}, known: {ids}")
        names = [(query.id, query.object_ids) if ids_may_repeat else query.id for query in self.queries]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.name}: expression ids must be unique, got {names}")

    def truth(self, object_ids: Sequence[str]) -> list[BitMask]:
        """The union of objects in every frame; made once, and kept with its boundaries.

        Raises:
            ValueError: for an unknown object, a wrong number of frames, or a bad mask
        """
        key = tuple(object_ids)
        if key not in self._true:
            for each in key:
                if each not in self.objects:
                    raise ValueError(f"{self.name}: there is no object {each!r}, known: {[*self.objects]}")
            if len(key) == 1:
                self._true[key] = self.bits(self.objects[key[0]], f"object {key[0]!r}")
            else:
                several = [self.truth((each,)) for each in key]
                self._true[key] = [
                    BitMask.of([masks[t] for masks in several], self.size) for t in range(len(self.frames))
                ]
        return self._true[key]

    def prediction(self, id: str) -> list[BitMask]:
        """The predicted masks under an id in every frame.

        Raises:
            ValueError: if there are none, in a wrong number of frames, or a bad one
        """
        if id not in self.predictions:
            raise ValueError(f"{self.name}: no prediction for {id!r}, there are {[*self.predictions]}")
        return self.bits(self.predictions[id], f"prediction {id!r}")

    def bits(self, masks: TrackMasks, what: str) -> list[BitMask]:
        """Masks of all frames as bits; `what` names them in errors.

        Raises:
            ValueError: for a wrong number of frames, or a bad mask, whose frame the message names
        """
        if len(masks) != len(self.frames):
            raise ValueError(
                f"{self.name}: {what} has masks for {len(masks)} frames, {len(self.frames)} are annotated"
            )
        bits = []
        for frame, mask in zip(self.frames, masks, strict=True):
            with naming(f"{self.name}, frame {frame}, {what}"):
                bits.append(BitMask.of(mask, self.size))
        return bits


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitScores:
    """The scores of one unit, an expression or an object, in the frames in which its protocol counts it.

    Attributes:
        video: name of the video
        id: of the expression or the object
        key: how the reference program names the unit
        frames: names of the T counted frames
        J: `(T,) float64` region similarity, in [0, 1]
        F: `(T,) float64` boundary similarity, in [0, 1]
        truth_area: `(T,) int64` pixels of the true masks
        prediction_area: `(T,) int64` pixels of the predicted masks
        predicted: False where there is no prediction, which the protocol counts as 0 or leaves out
        A: `(T,) float64` pixel accuracy, where the protocol has it
        R: `(T,) float64` robustness, where the protocol has it
        type_id: the kind of expression
        annotator: who wrote the expression
    """

    video: str
    id: str
    key: str
    frames: tuple[str, ...]
    J: Floats
    F: Floats
    truth_area: Integers
    prediction_area: Integers
    predicted: bool = True
    A: Floats | None = None
    R: Floats | None = None
    type_id: int | None = None
    annotator: int | None = None

    @classmethod
    def of(
        cls,
        scores: Sequence[FrameScore],
        *,
        video: str,
        id: str,
        key: str,
        frames: Sequence[str],
        query: Query | None = None,
        A: Floats | None = None,
        R: Floats | None = None,
    ) -> UnitScores:
        """The scores of an object, or with `query` of an expression, from those of its frames."""
        return cls(
            video=video,
            id=id,
            key=key,
            frames=tuple(frames),
            J=np.array([score.J for score in scores], dtype=np.float64),
            F=np.array([score.F for score in scores], dtype=np.float64),
            truth_area=np.array([score.truth_area for score in scores], dtype=np.int64),
            prediction_area=np.array([score.prediction_area for score in scores], dtype=np.int64),
            A=A,
            R=R,
            type_id=query.type_id if query else None,
            annotator=query.annotator if query else None,
        )


@dataclass(frozen=True)
class Summary:
    """What a protocol reports.

    Attributes:
        protocol: its name
        percent: whether the values are percentages, as this protocol's program prints them, else fractions
        dataset: the values that are published; `J`, `F` and `J&F` in every protocol
        groups: the same per group, where the protocol has groups
        units: per key of `UnitScores` the mean values of the unit
        left_out: what the protocol silently does not count, by key
    """

    protocol: str
    percent: bool
    dataset: dict[str, float]
    groups: dict[str, dict[str, float]] = field(default_factory=dict)
    units: dict[str, dict[str, float]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def score_masks(
    truth: Sequence[BitMask], prediction: Sequence[BitMask], *, bound_th: float = BOUND_TH
) -> list[FrameScore]:
    """The scores of two tracks frame by frame; all masks of one size, see `VideoMasks.bits`."""
    if not truth:
        return []
    radius = boundary_radius(truth[0].size, bound_th)
    return [compare(*pair, radius) for pair in zip(truth, prediction, strict=True)]


def with_mean(values: Mapping[str, float]) -> dict[str, float]:
    """The values, with `J&F` = (J + F) / 2 after J and F."""
    return {"J": values["J"], "F": values["F"], "J&F": (values["J"] + values["F"]) / 2, **values}
