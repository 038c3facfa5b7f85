"""What a training of the selector is made of; the defaults are the published ones, in float32."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fiftyone_refvos.training.config import TrainingConfig


@dataclass(frozen=True)
class SelectorTrainingConfig(TrainingConfig):
    """A training run of the selector.

    What it does not name is as in `TrainingConfig`. Of its losses the selector has `losses.ce`, over the words of the
    answers; of its sampling `sampling.expressions` and `sampling.wording`.

    Attributes:
        score_weight: of the distance between score and pseudo-label, next to `losses.ce`
        context_frames: fewest and most context frames of a sample; the number is drawn anew for each
    """

    steps: int = 2000
    batch_size: int = 1
    accumulation: int = 16
    score_weight: float = 1.0
    context_frames: tuple[int, int] = (8, 12)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.score_weight < math.inf:
            raise ValueError(f"score_weight is {self.score_weight!r}; it must not be negative")
        fewest, most = self.context_frames
        if not 1 <= fewest <= most:
            raise ValueError(
                f"context_frames are {self.context_frames!r}; give the fewest and the most, at least 1 each"
            )
