"""VISA's question to a video language model: which percentage mark of the video shows an expression best?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from fiftyone_refvos.masklet import Expression, FloatArray
from fiftyone_refvos.models.segmenter import check_request
from fiftyone_refvos.models.selector.protocol import FrameSelector
from fiftyone_refvos.video import FrameSource

QUESTION = (
    "If I want to find '{}', which percentage mark of the video should I check?\n"
    "Please choose one answer from 0%, 10%, 20%, 30%, 40%, 50%, 60%, 70%, 80%, 90%, 100%."
)
ANSWERS = 10  # over which the published program takes the mean
TEMPERATURE, TOP_P = 0.6, 0.9  # at which it samples them

_LAST = re.compile(r"last\s+(\d{1,3})\s*%")
_MARKS = [f"{mark}%" for mark in (*range(10, 101, 10), 0)]  # in the order in which they are looked for


class VideoModel(Protocol):
    """Any model that answers a question about a video in words."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Name and settings, as plain values."""
        ...

    def ask(self, frames: FrameSource, question: str, *, seed: int) -> str:
        """Its answer, sampled at `TEMPERATURE` and `TOP_P` where it samples, the same for the same seed."""
        ...


class PercentageSelector(FrameSelector):
    """Asks a video language model several times, and scores frames by how near the mean of its answers they are.

    Args:
        model: that is asked
        answers: how often
        seed: of the first answer; the others have the numbers after it
    """

    def __init__(self, model: VideoModel, *, answers: int = ANSWERS, seed: int = 0) -> None:
        if answers < 1:
            raise ValueError(f"answers is {answers}; it must be at least 1")
        self._model, self._answers, self._seed = model, answers, seed

    @property
    def identity(self) -> dict[str, Any]:
        """What is asked of which model."""
        return {"answers": self._answers, "seed": self._seed, **self._model.identity}

    def check(self, expression: Expression) -> None:
        """Takes every expression."""

    def scores(self, frames: FrameSource, expressions: Sequence[Expression]) -> dict[str, FloatArray]:
        """Minus the distance to the frame at the mean of the marks, in frames."""
        check_request(frames, expressions)
        order = np.arange(len(frames), dtype=np.float32)
        return {each.id: -np.abs(order - self._frame(frames, each)) for each in expressions}

    def _frame(self, frames: FrameSource, expression: Expression) -> int:
        question = QUESTION.format(expression.text)
        seeds = range(self._seed, self._seed + self._answers)
        answers = (self._model.ask(frames, question, seed=seed) for seed in seeds)
        return marked_frame([mark for answer in answers if (mark := read_mark(answer)) is not None], len(frames))


def read_mark(answer: str) -> float | None:
    """The mark that an answer names, in [0, 1]: "the last 20%" is 0.8; None for an answer without one."""
    if (last := _LAST.search(answer.lower())) is not None and int(last[1]) <= 100:
        return 1 - int(last[1]) / 100
    found = [mark for mark in _MARKS if re.search(rf"(?<![\d.]){mark}", answer)]
    return int(found[0].removesuffix("%")) / 100 if found else None


def marked_frame(marks: Sequence[float], num_frames: int) -> int:
    """The index of the frame at the mean of marks in [0, 1]; the middle without any."""
    mean = sum(marks) / len(marks) if marks else 0.5
    return min(int(num_frames * mean), num_frames - 1)
