"""Videos as records, written by a format without FiftyOne: what most tests of export formats need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from fiftyone_refvos.datasets.masks import to_rle
from fiftyone_refvos.datasets.records import (
    Annotations,
    ExpressionRecord,
    FileMedia,
    FolderMedia,
    MediaRecord,
    ObjectRecord,
)
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.media import MediaMode
from fiftyone_refvos.exports.records import Exported
from tests.mevis_folder import SIZE, box_mask, picture, write_images

Mask = NDArray[np.bool_]


def video(
    folder: Path,
    objects: Mapping[str, Sequence[Mask | None]],
    expressions: Mapping[str, tuple[str, Sequence[str]]] | None = None,
    *,
    name: str = "one",
    split: str = "train",
    annotated: Sequence[int] | None = None,
    void: Sequence[Mask | None] | None = None,
    scores: Mapping[str, float] | None = None,
    stems: Sequence[str] = ("00012", "00015", "00018"),
) -> Exported:
    """A video whose images lie in `folder`; expressions are text and objects by id."""
    images = folder / "images" / name.replace("/", "_").replace(".", "_")
    if not images.exists():
        write_images(images, stems)
    record = MediaRecord(
        name,
        split,
        FolderMedia(images, tuple(f"{stem}.jpg" for stem in stems), 6.0),
        tuple(ExpressionRecord(id_, text, tuple(ids)) for id_, (text, ids) in (expressions or {}).items()),
    )
    things = tuple(ObjectRecord(id_, _rles(masks), score=(scores or {}).get(id_)) for id_, masks in objects.items())
    frames = None if annotated is None else frozenset(annotated)
    areas = None if void is None else _rles(void)
    return Exported(record, Annotations(SIZE, things, frames, areas), tuple(stems))


def image(folder: Path, name: str, masks: Mapping[str, Mask], suffix: str = ".png") -> Exported:
    """An image with one expression, `the thing <id>`, per object."""
    path = folder / f"{Path(name).stem}{suffix}"
    picture(3).save(path)
    expressions = tuple(ExpressionRecord(id_, f"the thing {id_}", (id_,)) for id_ in masks)
    things = tuple(ObjectRecord(id_, _rles([mask])) for id_, mask in masks.items())
    record = MediaRecord(name, "train", FileMedia(path), expressions)
    return Exported(record, Annotations(SIZE, things, frozenset({0})), (path.stem,))


def two_objects(folder: Path, **options: Any) -> Exported:
    """Objects 1 and 2 that overlap in the first frame; 2 is absent from the last one, and three expressions."""
    return video(
        folder,
        {
            "1": [box_mask(5 + t, 3, 12, 12) for t in range(3)],
            "2": [box_mask(10, 10, 6, 6), box_mask(25, 30, 6, 6), None],
        },
        {"0": ("the large one", ["1"]), "1": ("Is it small?", ["2"]), "2": ("both", ["1", "2"])},
        **options,
    )


def write(format_cls: type[Format], root: Path, *exported: Exported, media: MediaMode = MediaMode.COPY) -> Path:
    """Writes videos or images into a new folder, as an export does."""
    root.mkdir()
    writer = format_cls(root, media)
    with writer.open_files:
        for each in exported:
            writer.add(each)
        writer.finish()
    return root


def decoded(rle: Any) -> Mask:
    """The mask `(H, W) bool` of an RLE of a JSON file."""
    return coco_mask.decode({**rle, "counts": rle["counts"].encode()}) > 0


def draw(picture: NDArray[np.uint8], points: Sequence[Sequence[int]], value: int) -> None:
    """Draws a polygon as LISA does: its closed line, and what it encloses."""
    polygon = [np.array(points, dtype=np.int32)]
    cv2.polylines(picture, polygon, True, value, 1)
    cv2.fillPoly(picture, polygon, value)


def files_of(root: Path) -> list[str]:
    """The paths of all files in a folder, sorted."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def _rles(masks: Sequence[Mask | None]) -> tuple[Any, ...]:
    return tuple(None if mask is None else to_rle(mask) for mask in masks)
