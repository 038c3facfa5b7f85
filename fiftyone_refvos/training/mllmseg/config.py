"""What a training of MLLMSeg is made of; the defaults are the published ones, in float32."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

from fiftyone_refvos.training.config import Decay, LoraConfig, LossConfig, SamplingConfig, TrainingConfig

Task = Literal["res", "gres"]
Measure = Literal["gIoU", "cIoU"]

_WARMUP = 0.03  # of all steps
_LORA = LoraConfig(rank=64, alpha=128, dropout=0.05)
_LOSSES = LossConfig(dice=1.0)
_SAMPLING = SamplingConfig(expressions=5, no_target=True)


@dataclass(frozen=True)
class MllmsegTrainingConfig(TrainingConfig):
    """A training run of MLLMSeg.

    What it does not name is as in `TrainingConfig`. Of its losses MLLMSeg has `losses.ce`, over the words of the
    answers, and `losses.dice`; of its sampling `sampling.expressions`, `sampling.wording` and `sampling.no_target`.
    What trains with trainable="published" are LoRA, mask decoder and final norm, and with InternLM2 embeddings and
    head, too.

    Attributes:
        focal_weight: of the focal loss, next to `losses.ce` and `losses.dice`
        dropout: in the mask decoder
        jpeg_quality: lowest and highest of the JPEG that each image goes through; None leaves images as they are
        all_absent: whether samples none of whose expressions has a target are learned from, too. As published, they
            are drawn anew, and so a network never sees a single expression that it has to reject
        measure: of the validation on the held-out view: what makes parameters the best ones
    """

    rate_decay: ClassVar[Decay] = "cosine"
    decays_all: ClassVar[bool] = False  # as the trainer of transformers, which the published program uses

    steps: int = 50_000
    batch_size: int = 4
    accumulation: int = 8
    learning_rate: float = 4e-5
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.05
    warmup_steps: int = 1500
    lora: LoraConfig | None = _LORA
    losses: LossConfig = _LOSSES
    sampling: SamplingConfig = _SAMPLING
    focal_weight: float = 1.0
    dropout: float = 0.1
    jpeg_quality: tuple[int, int] | None = (75, 100)
    all_absent: bool = False
    measure: Measure = "gIoU"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trainable == "all_but_clip":
            raise ValueError("trainable is 'all_but_clip', but MLLMSeg has no CLIP; choose 'published' or 'all'")
        if not 0 <= self.focal_weight < math.inf:
            raise ValueError(f"focal_weight is {self.focal_weight!r}; it must not be negative")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout!r}; it must be at least 0 and below 1")
        if self.jpeg_quality is not None:
            lowest, highest = self.jpeg_quality
            if not 1 <= lowest <= highest <= 100:
                raise ValueError(
                    f"jpeg_quality is {self.jpeg_quality!r}; give the lowest and the highest, from 1 to 100, or None"
                )
        if self.measure not in get_args(Measure):
            raise ValueError(f"measure is {self.measure!r}; choose one of {get_args(Measure)}")

    @classmethod
    def of_length(cls, steps: int, **values: Any) -> Self:
        """The recipe for so many steps, 3 % of which warm up, as published.

        Args:
            steps: optimizer steps
            values: of other fields, by name

        Raises:
            ValueError: for values that are none
        """
        return cls(**{"steps": steps, "warmup_steps": math.ceil(_WARMUP * steps), **values})


RECIPE_STEPS: Mapping[Task, int] = {"res": 50_000, "gres": 20_000}
"""Published lengths: referring to one object, then, from what that gave, to any number of them."""
