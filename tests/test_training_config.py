"""What a training run cannot be made of."""

from __future__ import annotations

from typing import Any

import pytest

from fiftyone_refvos.training.config import LoraConfig, LossConfig, SamplingConfig, TrainingConfig


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (TrainingConfig, {"steps": 0}, "steps is 0; it must be at least 1"),
        (TrainingConfig, {"warmup_steps": -1}, "warmup_steps is -1; it must be at least 0"),
        (TrainingConfig, {"patience": 0}, "patience is 0; it must be at least 1"),
        (TrainingConfig, {"learning_rate": 0.0}, "learning_rate is 0.0; it must be above 0"),
        (TrainingConfig, {"clip_norm": float("nan")}, "clip_norm is nan; it must be above 0"),
        (TrainingConfig, {"precision": "bf8"}, "precision is 'bf8'; choose one of"),
        (TrainingConfig, {"trainable": "some"}, "trainable is 'some'; choose one of"),
        (SamplingConfig, {"query_frames": 0}, "query_frames is 0; it must be at least 1"),
        (SamplingConfig, {"context_frames": -1}, "context_frames is -1; it must be at least 0"),
        (SamplingConfig, {"expressions": 0}, "expressions is 0; it must be at least 1"),
        (SamplingConfig, {"wording": "own"}, "wording is 'own'; choose one of"),
        (LossConfig, {"bce": -1.0}, "the weight bce is -1.0; it must not be negative"),
        (LossConfig, {"ce": float("nan")}, "the weight ce is nan"),
        (LossConfig, {"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
        (LossConfig, {"negatives": 0}, "negatives is 0; it must be at least 1"),
        (LoraConfig, {"rank": 0}, "rank is 0; it must be at least 1"),
        (LoraConfig, {"dropout": 1.0}, "dropout is 1.0; it must be at least 0 and below 1"),
    ],
)
def test_wrong_value_is_refused(kind: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**values)


def test_few_steps_are_warmed_up_to_in_a_tenth_of_them() -> None:
    assert [TrainingConfig.of_length(steps).warmup_steps for steps in (1, 50, 1000, 3000)] == [1, 5, 100, 100]
    assert TrainingConfig.of_length(50, warmup_steps=20, seed=3) == TrainingConfig(steps=50, warmup_steps=20, seed=3)
    assert TrainingConfig.of_length(3000) == TrainingConfig()
