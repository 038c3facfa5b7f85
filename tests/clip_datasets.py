"""Datasets of small clips, and the masks that a run wrote into them."""

from __future__ import annotations

from pathlib import Path

import fiftyone as fo
import numpy as np

from fiftyone_refvos import fields
from tests.videos import write_clips


def add_clips(dataset: fo.Dataset, folder: Path, count: int = 1, **values) -> None:
    """Adds new clips of `folder`, each with the given field values."""
    dataset.add_samples([fo.Sample(filepath=str(path), **values) for path in write_clips(folder, count)])


def masks_of(samples: fo.Dataset | fo.DatasetView, field: str) -> list[np.ndarray]:
    """The masks `(T, N, H, W) bool` of every masklet of the first sample."""
    return [np.stack(list(m.dense())) for m in fields.read_masklets(samples.first(), field)]
