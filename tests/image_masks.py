"""Images with expressions, true masks, and those of a model whose mistakes are known."""

from __future__ import annotations

import fiftyone as fo
import numpy as np

from fiftyone_refvos.fields import to_detection
from fiftyone_refvos.masklet import BoolArray, encode

SIZE = (40, 60)
NOTHING = np.zeros(SIZE, dtype=bool)


def box(left: int, top: int = 5, side: int = 10) -> BoolArray:
    mask = NOTHING.copy()
    mask[top : top + side, left : left + side] = True
    return mask


# text: true masks by object id, predicted mask
IMAGES = [
    {
        "the dog": ({"1": box(4)}, box(6)),
        "both": ({"1": box(4), "2": box(30)}, box(4)),
        "no such thing": ({}, NOTHING),
    },
    {
        "the cat": ({"7": box(10, 20)}, NOTHING),
        "no cat": ({}, box(50, 0, 4)),
        "the hat": ({"8": box(40)}, box(40)),
    },
]


def detections(masks: dict[str, list[tuple[str, BoolArray]]]) -> fo.Detections:
    """Of masks with their object ids by expression id."""
    found = [
        to_detection(encode(mask[None])[0], SIZE, label="thing", expression_id=id_, object_id=object_id)
        for id_, objects in masks.items()
        for object_id, mask in objects
    ]
    return fo.Detections(detections=[each for each in found if each is not None])


def add_image(dataset: fo.Dataset, number: int) -> fo.Sample:
    truth, predicted, labels = {}, {}, []
    for n, (text, (objects, mask)) in enumerate(IMAGES[number].items()):
        truth[str(n)], predicted[str(n)] = list(objects.items()), [("1", mask)]
        labels.append(
            fo.Classification(
                label=text, expression_id=str(n), kind="refexp", object_ids=[*objects], no_target=not objects
            )
        )
    sample = fo.Sample(
        filepath=f"/images/{number}.png",
        metadata=fo.ImageMetadata(height=SIZE[0], width=SIZE[1]),
        expressions=fo.Classifications(classifications=labels),
        truth=detections(truth),
        model=detections(predicted),
    )
    dataset.add_sample(sample, dynamic=True)
    return sample


def add_images(dataset: fo.Dataset) -> fo.Dataset:
    """Adds all IMAGES, with the fields `expressions`, `truth` and `model`."""
    for number in range(len(IMAGES)):
        add_image(dataset, number)
    return dataset
