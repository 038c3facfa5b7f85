"""Videos with masks of three objects each, to describe, and what is in them afterwards."""

from __future__ import annotations

from pathlib import Path

import fiftyone as fo
import numpy as np

from fiftyone_refvos import fields
from tests.fields_data import write_images

SIZE, FRAMES = (20, 30), 4
COLUMNS = {"1": 3, "2": 12, "3": 20}


def truth(number: int, named: dict[str, str], instances: dict[str, fo.Instance]) -> list[fo.Detection]:
    """In frame `number` three squares in a row, the third in frames 2 and 3 alone."""
    found = []
    for index, (object_id, column) in enumerate(COLUMNS.items(), start=1):
        if object_id == "3" and number not in (2, 3):
            continue
        box = [column / SIZE[1], 5 / SIZE[0], 4 / SIZE[1], 4 / SIZE[0]]
        found.append(
            fo.Detection(
                label=named.get(object_id, "car"),
                bounding_box=box,
                mask=np.ones((4, 4), dtype=bool),
                index=index,
                instance=instances[object_id],
                object_id=object_id,
                expression_id="0" if object_id in named else None,
            )
        )
    return found


def add_videos(dataset: fo.Dataset, folder: Path) -> fo.Dataset:
    """Two videos with three objects each; a human has named object 1."""
    for k in range(2):
        names = write_images(folder / str(k), num_frames=FRAMES, size=SIZE)
        sample = fo.Sample(
            filepath=str(folder / f"{k}.mp4"),
            metadata=fo.VideoMetadata(total_frame_count=FRAMES),
            frames_dir=str(folder / str(k)),
            frame_names=names,
            frame_size=[SIZE[1], SIZE[0]],
        )
        instances = {object_id: fo.Instance() for object_id in COLUMNS}
        for number in range(1, FRAMES + 1):
            detections = truth(number, {"1": "the first car"}, instances)
            sample.frames[number] = fo.Frame(ground_truth=fo.Detections(detections=detections))
        dataset.add_sample(sample)
        fields.add_expressions(sample, "the first car")
    return dataset


def expressions(dataset: fo.Dataset) -> list[fo.TemporalDetection]:
    dataset.reload()
    return [each for sample in dataset for each in sample.expressions.detections]


def records(sample: fo.Sample) -> dict[str, fo.TemporalDetection]:
    return {each.object_id: each for each in sample.ground_truth_descriptions.detections}


def masks(sample: fo.Sample, number: int = 2) -> list[tuple[str, str | None, str, int]]:
    return [
        (each.object_id, each.expression_id, each.label, each.index)
        for each in sample.frames[number].ground_truth.detections
    ]
