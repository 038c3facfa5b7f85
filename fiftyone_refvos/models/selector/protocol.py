"""The one interface of key frame selectors, the rule by which one frame is chosen, and the simplest selector."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fiftyone_refvos.masklet import Expression, FloatArray
from fiftyone_refvos.models.segmenter import check_request
from fiftyone_refvos.video import FrameSource


class SelectionError(ValueError):
    """Scores from which no key frame can be chosen; the message names the video and the expression."""


class FrameSelector(Protocol):
    """Scores how well each frame of a video shows what an expression names."""

    @property
    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """The settings that the scores depend on, as plain values."""
        ...

    @abstractmethod
    def check(self, expression: Expression) -> None:
        """Raises a ValueError for an expression that the selector cannot take."""
        ...

    @abstractmethod
    def scores(self, frames: FrameSource, expressions: Sequence[Expression]) -> dict[str, FloatArray]:
        """The scores `(T,)` of every frame per expression id; higher is better.

        Raises:
            ValueError: for a video without frames, no expressions, ids given twice, or expressions that the
                selector cannot take
        """
        ...

    def score(self, frames: FrameSource, expression: Expression) -> FloatArray:
        """The scores `(T,)` of every frame for one expression; higher is better."""
        return self.scores(frames, [expression])[expression.id]

    def select(self, frames: FrameSource, expressions: Sequence[Expression]) -> dict[str, int]:
        """The index of the key frame per expression id, as `Segmenter.segment` takes them.

        Raises:
            ValueError: as `scores`
            SelectionError: as `best_frame`
        """
        scores = self.scores(frames, expressions)
        return {
            expression.id: best_frame(scores[expression.id], expression, video=frames.name)
            for expression in expressions
        }


def best_frame(scores: NDArray[Any], expression: Expression, *, video: str) -> int:
    """The index of the frame with the highest score; of several equal ones the earliest.

    Args:
        scores: `(T,)` one score per frame
        expression: what was looked for
        video: what errors call the video

    Raises:
        SelectionError: if there are no scores, or one is not a number
    """
    what = f"expression {expression.id!r} ({expression.text!r}) of {video}"
    if len(scores) == 0:
        raise SelectionError(f"{what} has no scores, so no key frame can be chosen; the video has no frames")
    bad = np.flatnonzero(np.isnan(scores))
    if len(bad):
        raise SelectionError(
            f"{len(bad)} of {len(scores)} scores of {what} are not numbers (NaN), first that of frame {bad[0]}; "
            "load the selector with dtype='float32', and check that its weights hold no NaN"
        )
    return int(np.argmax(scores))  # the first of several equal ones


class MiddleFrameSelector(FrameSelector):
    """Scores frames by how near the middle of the video they are; of two middle frames the earlier is chosen."""

    @property
    def identity(self) -> dict[str, Any]:
        """No settings."""
        return {}

    def check(self, expression: Expression) -> None:
        """Takes every expression."""

    def scores(self, frames: FrameSource, expressions: Sequence[Expression]) -> dict[str, FloatArray]:
        """Minus the distance to the middle, in frames, whatever the expression."""
        check_request(frames, expressions)
        distances = np.abs(np.arange(len(frames), dtype=np.float32) - (len(frames) - 1) / 2)
        return {expression.id: -distances for expression in expressions}
