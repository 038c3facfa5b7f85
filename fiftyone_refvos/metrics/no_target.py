"""N-acc and T-acc of videos: an extra of this package, for which there is no public code to compare with."""

from __future__ import annotations

from collections.abc import Sequence

from fiftyone_refvos.metrics.protocol import mean
from fiftyone_refvos.metrics.video import UnitScores


def no_target_accuracy(scores: Sequence[UnitScores]) -> dict[str, float]:
    """How well a model tells expressions with and without a target apart; own definition, after gRefCOCO's.

    An expression has no target if its truth is empty in all frames; a model says so by masks that are empty in
    all frames. A missing prediction says nothing, and is wrong. Units without true masks do not count.

    Returns:
        `N-acc`, the share of the expressions without target of which the model says so; `T-acc`, the share of the
        others of which it does not; NaN where there are none
    """
    without: list[float] = []
    targets: list[float] = []
    for each in scores:
        if not each.frames:
            continue
        says_none = not each.prediction_area.any()
        if each.truth_area.any():
            targets.append(each.predicted and not says_none)
        else:
            without.append(each.predicted and says_none)
    return {"N-acc": mean(without), "T-acc": mean(targets)}
