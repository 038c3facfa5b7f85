"""ReVOS and Ref-SAV: J, F, accuracy A and robustness R of expressions, averaged by kind of expression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fiftyone_refvos.metrics.bitmask import BitMask, intersection, intersection_area, union
from fiftyone_refvos.metrics.expressions import is_missing, unpredicted
from fiftyone_refvos.metrics.protocol import Protocol, mean
from fiftyone_refvos.metrics.video import Floats, Query, Summary, UnitScores, VideoMasks, score_masks

# How A and R count pixels: by masks of 0 and 1, which is what is meant; by the sum of the objects in uint8 and
# predictions of 0 and 1; by that sum and predictions of 0 and 255, as read from PNG files.
Counting = Literal["binary", "uint8 sum, prediction 0/1", "uint8 sum, prediction 0/255"]


@dataclass(frozen=True, kw_only=True)
class ByKind(Protocol):
    """Per expression the percentages, rounded; the mean of each of two kinds; the mean of these two means.

    Attributes:
        kinds: the names of type_id 0 and 1; other kinds enter no mean, only the units
        counting: how A and R count pixels; J and F do not depend on it
        robustness: whether there is R, for which videos need `foreground`
        missing_is_zero: whether an expression without a prediction counts as 0, else it is an error
        rounded: whether percentages are rounded to two decimals before they are averaged, as the programs do
    """

    kinds: tuple[str, str]
    counting: Counting = "binary"
    robustness: bool = True
    missing_is_zero: bool = True
    rounded: bool = True

    def score(self, video: VideoMasks) -> list[UnitScores]:
        video.check_queries()
        return [self._score_query(video, query) for query in video.queries]

    def _score_query(self, video: VideoMasks, query: Query) -> UnitScores:
        key = f"{video.name}_{query.id}"
        if self.missing_is_zero and is_missing(video, query):
            missing = unpredicted(video, query, key)
            return replace(missing, A=missing.J, R=missing.J if self.robustness else None)
        truth, prediction = video.truth(query.object_ids), video.prediction(query.id)
        levels = [[mask] for mask in truth]
        if self.counting != "binary":
            objects = [video.truth((each,)) for each in query.object_ids]
            levels = [overlap_levels([masks[t] for masks in objects]) for t in range(len(truth))]
        value = 255 if self.counting == "uint8 sum, prediction 0/255" else 1
        counts = [_count(*pair, value) for pair in zip(levels, prediction, strict=True)]
        pixels = video.size[0] * video.size[1]
        return UnitScores.of(
            score_masks(truth, prediction),
            video=video.name,
            id=query.id,
            key=key,
            frames=video.frames,
            query=query,
            A=np.array([equal / pixels for equal, _ in counts]),
            R=_robustness(video, [outside for _, outside in counts]) if self.robustness else None,
        )

    def summarize(self, scores: Sequence[UnitScores]) -> Summary:
        names = ["J", "F", "J&F", "A", *(["R"] if self.robustness else [])]
        units = {each.key: {name: self._percent(each, name) for name in names} for each in scores}
        groups = {}
        for type_id, kind in enumerate(self.kinds):
            of_kind = [units[each.key] for each in scores if each.type_id == type_id]
            groups[kind] = {name: mean(values[name] for values in of_kind) for name in names}
            groups[kind]["J&F"] = (groups[kind]["J"] + groups[kind]["F"]) / 2
        first, second = groups.values()
        overall = {name: (first[name] + second[name]) / 2 for name in names}
        return Summary(
            protocol=self.name, percent=True, dataset=overall, groups=groups | {"overall": overall}, units=units
        )

    def _percent(self, each: UnitScores, name: str) -> float:
        arrays = (each.J, each.F) if name == "J&F" else (getattr(each, name),)
        values = [np.mean(array) for array in arrays]
        percent = 100 * values[0] if len(values) == 1 else 100 * (values[0] + values[1]) / 2
        # NumPy's rounding, as in the reference: Python's own differs where the last digit is a tie
        return float(np.round(percent, 2) if self.rounded else percent)


def overlap_levels(objects: Sequence[BitMask]) -> list[BitMask]:
    """Entry k holds the pixels that lie in more than k of the objects."""
    levels: list[BitMask] = []
    for mask in objects:
        carried = mask
        for k, level in enumerate(levels):
            levels[k], carried = union(level, carried), intersection(level, carried)
        levels.append(carried)
    return levels


def _count(levels: Sequence[BitMask], prediction: BitMask, value: int) -> tuple[int, int]:
    """Pixels of equal value, and the sum of (1 - truth) * prediction, in the reference's uint8 arithmetic.

    Args:
        levels: of the true objects, see `overlap_levels`; the truth is, at each pixel, their number
        prediction: the predicted mask
        value: what the prediction holds inside, 1 or 255
    """
    pixels = prediction.size[0] * prediction.size[1]
    totals = [pixels, *(level.area for level in levels), 0]
    insides = [prediction.area, *(intersection_area(level, prediction) for level in levels), 0]
    equal = outside = 0
    for number in range(len(levels) + 1):  # of objects at a pixel
        total, inside = totals[number] - totals[number + 1], insides[number] - insides[number + 1]
        equal += (total - inside) * (number % 256 == 0) + inside * (number % 256 == value)
        outside += inside * ((1 - number) * value % 256)
    return equal, outside


def _robustness(video: VideoMasks, outside: Sequence[int]) -> Floats:
    """R per frame from what the prediction has outside the truth, in relation to the frame's foreground."""
    if video.foreground is None:
        raise ValueError(f"{video.name}: R needs the foreground masks of the video")
    foreground = video.bits(video.foreground, "foreground")
    shares = [wrong / (mask.area + 1e-6) for wrong, mask in zip(outside, foreground, strict=True)]
    return np.array([max(1 - share, 0.0) for share in shares])


REVOS = ByKind(
    name="revos",
    description=(
        "ReVOS: J, F, A, R in percent, by referring (type_id 0) and reason (1) expressions; `overall` is the mean "
        "of the two. A and R are computed as they are meant, on masks of 0 and 1; papers mostly have them from "
        "one of the two programs below."
    ),
    kinds=("referring", "reason"),
)
REVOS_UNROUNDED = replace(
    REVOS,
    name="revos-unrounded",
    description="ReVOS as `revos`, but without rounding the percentages of expressions before averaging.",
    rounded=False,
)
REVOS_RLE_PROGRAM = ByKind(
    name="revos-rle-program",
    description=(
        "ReVOS with A and R as the evaluator for RLE predictions (Sa2VA) gets them: the truth is the uint8 sum of "
        "the objects, so that a pixel in two of them is never right, and weighs 255 in R."
    ),
    kinds=("referring", "reason"),
    counting="uint8 sum, prediction 0/1",
)
REVOS_PNG_PROGRAM = ByKind(
    name="revos-png-program",
    description=(
        "ReVOS with A and R as the evaluator for PNG predictions (VISA, GLUS) gets them from files of 0 and 255: "
        "no true positive is ever right in A, and every false one weighs 255 in R."
    ),
    kinds=("referring", "reason"),
    counting="uint8 sum, prediction 0/255",
)
REF_SAV = ByKind(
    name="ref-sav",
    description=(
        "Ref-SAV, as tools/eval/eval_ref_sav.py of Sa2VA: J, F, A in percent, by long (type_id 0) and short (1) "
        "expressions; `overall` is the mean of the two; a missing prediction is an error."
    ),
    kinds=("long", "short"),
    counting="uint8 sum, prediction 0/1",
    robustness=False,
    missing_is_zero=False,
)
