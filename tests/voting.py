"""Videos with the masklets of several models that differ in known ways, to vote on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import fiftyone as fo
import numpy as np

from fiftyone_refvos.fields import add_expressions, read_masklets, write_masklets
from fiftyone_refvos.masklet import BoolArray, Expression
from tests.fields_data import SIZE, boxes, masklet

TEXTS = ("the dog", "the cat")
NUM_FRAMES = 3
MEMBERS = ("one", "two", "three")


def square(row: int, column: int, *, num_objects: int = 1) -> BoolArray:
    """A square of 4 x 4 pixels that moves to the right, `(T, N, H, W)`."""
    return boxes([(row, column + t) for t in range(NUM_FRAMES)], SIZE, side=4, num_objects=num_objects)


NOTHING = np.zeros((NUM_FRAMES, 1, *SIZE), dtype=bool)
MASKS: dict[str, Sequence[BoolArray]] = {
    "one": (square(2, 2), square(8, 8)),
    "two": (square(2, 2), square(8, 9)),
    "three": (square(2, 3), NOTHING),
}
"""The masks of TEXTS of each member."""


def add_video(
    dataset: fo.Dataset, path: str, masks: Mapping[str, Sequence[BoolArray]] = MASKS, **scores: float
) -> fo.Sample:
    """A video with TEXTS, and fields with masklets of the first so many of them."""
    metadata = fo.VideoMetadata(total_frame_count=NUM_FRAMES, frame_height=SIZE[0], frame_width=SIZE[1])
    sample = fo.Sample(filepath=path, metadata=metadata)
    dataset.add_sample(sample)
    add_expressions(sample, TEXTS)
    for field, of_field in masks.items():
        expressions = [Expression(str(n), text) for n, text in enumerate(TEXTS)]
        masklets = [
            masklet(each, expression=expression, scores=scores.get(field, 0.5))
            for each, expression in zip(of_field, expressions, strict=False)
        ]
        write_masklets(sample, field, masklets)
    return dataset[sample.id]


def written(sample: fo.Sample, field: str, expression: int) -> BoolArray:
    """The masks of an expression, `(T, H, W)`."""
    found = {each.expression.id: each for each in read_masklets(sample, field)}[str(expression)]
    return np.stack([found.union(frame) for frame in found.frames])
