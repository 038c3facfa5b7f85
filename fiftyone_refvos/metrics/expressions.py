"""Protocols that score every expression by itself: MeViS, Ref-DAVIS17 as VISA does, ReasonVOS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fiftyone_refvos.metrics.protocol import Protocol, mean
from fiftyone_refvos.metrics.video import (
    Query,
    Summary,
    UnitScores,
    VideoMasks,
    score_masks,
    with_mean,
)


@dataclass(frozen=True, kw_only=True)
class PerExpression(Protocol):
    """Each expression against the union of its objects; mean over frames, then over all expressions.

    All annotated frames count, also the first and the last; void pixels are background. The summary's group
    `predicted videos only` leaves out what was not predicted.

    Attributes:
        missing: what a missing prediction is: `video zero`, 0 if the whole video is missing, else an error;
            `left out`, silently not counted, as are objects without true masks; the summary lists both
        key_names_object: whether the reference's names of expressions hold the object, `<video>_<object>_<id>`
            instead of `<video>_<id>`; an id may then occur with several objects, and counts with each of them
    """

    missing: Literal["video zero", "left out"] = "video zero"
    key_names_object: bool = False

    def score(self, video: VideoMasks) -> list[UnitScores]:
        video.check_queries(ids_may_repeat=self.key_names_object)
        return [self._score_query(video, query) for query in video.queries]

    def _score_query(self, video: VideoMasks, query: Query) -> UnitScores:
        objects = query.object_ids if self.key_names_object else ()
        key = "_".join([video.name, *objects, query.id])
        if self.missing == "left out" and not set(query.object_ids) <= set(video.objects):
            return unpredicted(video, query, key, empty=True)
        if is_missing(video, query, zero_per_video=self.missing == "video zero"):
            return unpredicted(video, query, key)
        scores = score_masks(video.truth(query.object_ids), video.prediction(query.id))
        return UnitScores.of(scores, video=video.name, id=query.id, key=key, frames=video.frames, query=query)

    def summarize(self, scores: Sequence[UnitScores]) -> Summary:
        predicted = [unit for unit in scores if unit.predicted]
        left_out = self.missing == "left out"
        counted = predicted if left_out else scores
        return Summary(
            protocol=self.name,
            percent=False,
            dataset=_averages(counted),
            groups={} if left_out else {"predicted videos only": _averages(predicted)},
            units={unit.key: with_mean({"J": mean(unit.J), "F": mean(unit.F)}) for unit in counted},
            left_out=tuple(unit.key for unit in scores if not unit.predicted) if left_out else (),
        )


def is_missing(video: VideoMasks, query: Query, *, zero_per_video: bool = False) -> bool:
    """Whether an expression has no prediction.

    Args:
        zero_per_video: allow it only if no expression of the video has one

    Raises:
        ValueError: for an expression without a prediction in a video that has others
    """
    if query.id in video.predictions:
        return False
    if zero_per_video and video.predictions:
        video.prediction(query.id)  # raises
    return True


def unpredicted(video: VideoMasks, query: Query, key: str, *, empty: bool = False) -> UnitScores:
    """Zeros for an expression without a prediction; with `empty`, for one without true masks too."""
    areas = [] if empty else [mask.area for mask in video.truth(query.object_ids)]
    zeros = np.zeros(len(areas))
    return UnitScores(
        video=video.name,
        id=query.id,
        key=key,
        frames=() if empty else tuple(video.frames),
        J=zeros,
        F=zeros,
        truth_area=np.array(areas, dtype=np.int64),
        prediction_area=np.zeros(len(areas), dtype=np.int64),
        predicted=False,
        type_id=query.type_id,
        annotator=query.annotator,
    )


def _averages(units: Sequence[UnitScores]) -> dict[str, float]:
    values: Mapping[str, float] = {
        measure: mean(mean(getattr(unit, measure)) for unit in units) for measure in ("J", "F")
    }
    return with_mean(values)


MEVIS = PerExpression(
    name="mevis",
    description=(
        "MeViS valid_u, as tools/eval_mevis.py of MeViS, VISA, GLUS and VideoLISA: all frames; a video without "
        "predictions counts as 0, an expression missing in a predicted video is an error (the programs crash)."
    ),
)
REF_DAVIS17_PER_EXPRESSION = PerExpression(
    name="ref-davis17-per-expression",
    description=(
        "Ref-DAVIS17 as VISA, GLUS and Sa2VA: each expression against its own object, void pixels are "
        "background, mean over all expressions. Not comparable with `ref-davis17-per-annotator`."
    ),
)
REASONVOS = PerExpression(
    name="reasonvos",
    description=(
        "ReasonVOS, as eval_reason_vos.py of VideoLISA and GLUS: the annotated frames, mean over expressions; "
        "expressions without a prediction or without true masks are left out. The name of a video is "
        "`<source>_<video>`."
    ),
    missing="left out",
    key_names_object=True,
)
