"""Small datasets whose annotations are images of object ids, and what layouts read of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.layout import Layout
from fiftyone_refvos.datasets.records import Annotations, MediaRecord
from fiftyone_refvos.masklet import decode
from tests.mevis_folder import SIZE, box_mask

LabelMap = NDArray[np.uint8]

LEFT = box_mask(5, 3, 8, 9)
RIGHT = box_mask(10, 30, 20, 14)
CORNER = box_mask(0, 40, 4, 7)


def label_map(**masks: NDArray[np.bool_]) -> LabelMap:
    """A map with the value n where the mask `_n` is; later ones lie on top."""
    labels = np.zeros(SIZE, dtype=np.uint8)
    for name, mask in masks.items():
        labels[mask] = int(name.removeprefix("_"))
    return labels


def write_label_maps(folder: Path, maps: Mapping[str, LabelMap], mode: str = "P") -> None:
    """One PNG per name; a palette image with colours that are not the ids, or a grey one."""
    folder.mkdir(parents=True)
    for name, labels in maps.items():
        image = Image.fromarray(labels, "L")
        if mode == "P":
            image = Image.fromarray(labels, "P")
            image.putpalette([value for n in range(256) for value in (255 - n, n // 2, 128)])
        image.save(folder / f"{name}.png")


def write_json(path: Path, content: Any) -> None:
    """Writes UTF-8 as it is, not as escapes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def records(layout: Layout, split: str) -> dict[str, MediaRecord]:
    """The records of a split by name; raises what is wrong with the first one that has problems."""
    found = {record.name: record for record in layout.records(split)}
    for record in found.values():
        if record.problem is not None:
            raise DatasetError(record.problem)
    return found


def truth(record: MediaRecord) -> Annotations:
    """The annotations of a record that has some."""
    assert record.read_annotations is not None
    return record.read_annotations()


def masks_of(annotations: Annotations, object_id: str) -> Sequence[NDArray[np.bool_]]:
    """The masks of an object, `(H, W) bool` each."""
    (thing,) = (each for each in annotations.objects if each.id == object_id)
    return unpacked(thing.masks, annotations.size)


def unpacked(rles: Sequence[Any], size: tuple[int, int]) -> Sequence[NDArray[np.bool_]]:
    """RLEs as masks, None as an empty one."""
    return [np.zeros(size, dtype=bool) if rle is None else decode([rle], size)[0] for rle in rles]
