"""Demo videos with the masklets of a model whose mistakes are known, for what measures them."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import fiftyone as fo
import numpy as np

import fiftyone_refvos as rv
from fiftyone_refvos.demo import DemoConfig
from fiftyone_refvos.fields import read_masklets, write_masklets
from fiftyone_refvos.masklet import BoolArray
from tests.fields_data import masklet

FLAWS = ("good", "late loss", "missed object")
"""What the model does in the videos, in their order: all right, loses the object halfway, is elsewhere."""


def measured_demo(folder: Path, config: DemoConfig, *, name: str | None = None, num_videos: int = 3) -> fo.Dataset:
    """Demo videos with their truth, and a `model` with FLAWS in turn."""
    name = name or f"test-{uuid4().hex[:12]}"
    dataset = rv.demo.load(num_videos=num_videos, config=config, folder=folder, name=name)
    for number, sample in enumerate(dataset):
        spoil(sample, "model", FLAWS[number % len(FLAWS)])
    dataset.reload()
    return dataset


def spoil(sample: fo.Sample, field: str, flaw: str) -> None:
    """Writes the true masklets of the expressions of a sample with one of FLAWS into a frame field."""
    written = []
    for truth in read_masklets(sample, "ground_truth"):
        masks = np.stack([frame.any(axis=0, keepdims=True) for frame in truth.dense()])
        written.append(masklet(_with_flaw(masks, flaw), expression=truth.expression))
    write_masklets(sample, field, written)


def _with_flaw(masks: BoolArray, flaw: str) -> BoolArray:
    spoilt = masks.copy()
    if flaw == "late loss":
        spoilt[len(masks) // 2 :] = False
    elif flaw == "missed object":
        spoilt = np.roll(masks, masks.shape[-1] // 2, axis=-1)
    return spoilt


def add_broken_video(dataset: fo.Dataset) -> fo.Sample:
    """A video that is annotated, but of which frames are not predicted."""
    first = dataset.first()
    broken = fo.Sample("/gone/broken.mp4", metadata=first.metadata, expressions=first.expressions.copy())
    dataset.add_sample(broken)
    spoilt = dataset[broken.id]
    for number, frame in dataset.first().frames.items():
        spoilt.frames[number] = fo.Frame(ground_truth=frame.ground_truth.copy())
    spoilt.frames[1]["model"] = first.frames[1].model.copy()
    spoilt.save()
    return spoilt
