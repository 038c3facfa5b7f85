"""What tests of several export formats do: import a miniature of the shared data, export, import again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo

from fiftyone_refvos.fields import read_masklets
from tests.shared import shared_path


def miniature(name: str, dataset_type: type, cache: Path, **options: Any) -> fo.Dataset:
    """A dataset of the shared data, whose folder cannot be written."""
    folder = shared_path("data", name)
    return fo.Dataset.from_dir(str(folder), dataset_type=dataset_type, cache_dir=str(cache), **options)


def contents(dataset: fo.Dataset, field: str = "ground_truth") -> dict[str, Any]:
    """Split, frames, and per expression id text, objects and masks of every video, by its name."""
    found = {}
    for sample in dataset:
        masklets = {each.expression.id: each for each in read_masklets(sample, field, exact=True)}
        found[sample["video_name"]] = (
            list(sample.tags),
            sample["frame_names"] if sample.has_field("frame_names") else None,
            {
                each.expression_id: (
                    each.label,
                    each.object_ids,
                    (masklets[each.expression_id].frames, masklets[each.expression_id].masks)
                    if each.expression_id in masklets
                    else None,
                )
                for each in sample["expressions"].detections
            },
        )
    return found
