"""Selectors without weights of their own: scores that are known already, and what a segmenter says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from fiftyone_refvos.masklet import Expression, FloatArray
from fiftyone_refvos.models.glus.inference import GlusSegmenter, Step
from fiftyone_refvos.models.segmenter import Segmenter, check_request
from fiftyone_refvos.models.selector.protocol import FrameSelector, SelectionError
from fiftyone_refvos.video import FrameSource

Confidence = Literal["iou", "object", "seg"]
"""What a segmenter says of a frame: SAM2's predicted IoU, its object score, the probability of [SEG]."""


class RecordedSelector(FrameSelector):
    """Gives scores of one video that are known already, as an oracle does with the true IoU.

    Args:
        recorded: `(T,)` per expression id; None and NaN for frames that cannot be a key frame
        name: what the scores are
    """

    def __init__(self, recorded: Mapping[str, Sequence[float | None]], *, name: str) -> None:
        self._recorded, self._name = recorded, name

    @property
    def identity(self) -> dict[str, Any]:
        """What the scores are."""
        return {"recorded": self._name}

    def check(self, expression: Expression) -> None:
        """Raises a SelectionError for an expression without scores."""
        if expression.id not in self._recorded:
            raise SelectionError(f"there is no {self._name} of expression {expression.id!r} ({expression.text!r})")

    def scores(self, frames: FrameSource, expressions: Sequence[Expression]) -> dict[str, FloatArray]:
        """The known scores; minus infinity where there is none.

        Raises:
            SelectionError: for expressions without scores, or with another number of them than there are frames
        """
        check_request(frames, expressions)
        found = {}
        for expression in expressions:
            self.check(expression)
            values = np.array(self._recorded[expression.id], dtype=np.float32)  # None becomes NaN
            if len(values) != len(frames):
                raise SelectionError(
                    f"expression {expression.id!r} of {frames.name} has {self._name} of {len(values)} frames, the "
                    f"video has {len(frames)}: make the labels again"
                )
            values[np.isnan(values)] = -np.inf
            if np.isneginf(values).all():
                raise SelectionError(
                    f"expression {expression.id!r} of {frames.name} has no {self._name} in any frame"
                )
            found[expression.id] = values
        return found


class ConfidenceSelector(FrameSelector):
    """Scores frames by what a segmenter says of its own masks, in one pass over the video from the first frame.

    A frame in which nothing is found has 0, but for the probability of [SEG], which every frame has.

    Args:
        segmenter: whose masks are judged
        measure: "iou" works with any segmenter, the others with GLUS

    Raises:
        ValueError: for a measure that the segmenter does not have
    """

    def __init__(self, segmenter: Segmenter, measure: Confidence = "iou") -> None:
        if measure not in get_args(Confidence):
            raise ValueError(f"measure is {measure!r}; choose one of {get_args(Confidence)}")
        if measure != "iou" and not isinstance(segmenter, GlusSegmenter):
            raise ValueError(f"{type(segmenter).__name__} gives no {measure!r}; choose 'iou', which all models give")
        self._segmenter, self._measure = segmenter, measure

    @property
    def identity(self) -> dict[str, Any]:
        """The measure, and the settings of the segmenter."""
        return {"measure": self._measure, **self._segmenter.identity}

    def check(self, expression: Expression) -> None:
        """Raises a ValueError for an expression that the segmenter cannot take."""
        self._segmenter.check(expression)

    def scores(self, frames: FrameSource, expressions: Sequence[Expression]) -> dict[str, FloatArray]:
        """Probabilities `(T,)` per expression id."""
        check_request(frames, expressions)
        found = {expression.id: np.zeros(len(frames), dtype=np.float32) for expression in expressions}
        if self._measure == "iou":
            for result in self._segmenter.segment(frames, expressions):
                shown = result.scores[result.masks.any(axis=(1, 2))]
                found[result.expression_id][result.frame] = shown.mean() if len(shown) else 0.0
        else:
            assert isinstance(self._segmenter, GlusSegmenter)  # the constructor looked
            for step in self._segmenter.steps(frames, expressions):
                found[step.expression.id][step.frame] = self._of_step(step)
        return found

    def _of_step(self, step: Step) -> float:
        if self._measure == "seg":
            assert isinstance(self._segmenter, GlusSegmenter)
            return float(step.logits.float().softmax(-1)[self._segmenter.prompts.seg_id])
        return float(step.masks.object_score[0].float().sigmoid()) if step.masks is not None else 0.0
