"""COCO's JSON, with every annotated frame as an image, for image segmentation and its AP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from fiftyone_refvos.datasets.files import inside_for_writing
from fiftyone_refvos.exports.categories import Categories, roles
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.json_files import JsonEntries
from fiftyone_refvos.exports.media import MediaMode, write_frames
from fiftyone_refvos.exports.names import picture_names
from fiftyone_refvos.exports.records import Exported, json_rle


class COCOFrames(Format):
    """`<split>/annotations.json` and `<split>/images/<video>/<frame>.jpg`, or `<split>/images/<image>.jpg`.

    The images are the annotated frames, also those without an object. The categories are the texts of the
    expressions, the same numbers in all splits. Every object in a frame is an annotation under every text that means
    it, once under each; one that no expression means is under the category that the dataset knows of it, or under
    "object". Objects may overlap. Segmentations are RLEs with `iscrowd` 0. Expressions that mean nothing, and void
    pixels, are not kept.

    What COCO ignores: annotations also have `object_id`, `expression` and `expression_id` (null for objects that no
    expression means) and those of a model `score`; images have `video` and `frame`, counted from 0.
    """

    name = "coco-frames"
    title = "COCO, frame by frame"
    description = "for image segmentation and its AP; texts become categories; holds overlapping objects"
    media_types = ("video", "image")

    def __init__(self, root: Path, media: MediaMode) -> None:
        super().__init__(root, media)
        self._categories = Categories()
        self._splits: dict[str, _Split] = {}

    def add(self, exported: Exported) -> None:
        """Writes one video or image."""
        name = exported.record.split
        if name not in self._splits:
            folder = inside_for_writing(self.root, name)
            entries = JsonEntries(folder / "annotations.json", list, under="annotations")
            self._splits[name] = _Split(folder, self.open_files.enter_context(entries))
        self._splits[name].add(exported, self._categories, self.media)

    def finish(self) -> None:
        """Writes images and categories, and closes all files."""
        for split in self._splits.values():
            listed = {"images": list(split.images.values()), "categories": self._categories.listed()}
            split.annotations.after |= listed
        super().finish()


class _Split:
    """The files of one split."""

    def __init__(self, folder: Path, annotations: JsonEntries) -> None:
        self._folder = folder
        self.annotations = annotations
        self.images: dict[str, dict[str, Any]] = {}
        self._num_annotations = 0

    def add(self, exported: Exported, categories: Categories, media: MediaMode) -> None:
        frames, names = sorted(exported.annotated), picture_names(exported)
        images = {t: self._image(exported, t, f"{names[t]}.jpg") for t in frames}
        folder = inside_for_writing(self._folder, "images")
        write_frames(exported.record, folder, [names[t] for t in frames], media, frames)
        for role in roles(exported):
            facts: dict[str, Any] = {
                "object_id": role.object.id,
                "expression": role.expression.text if role.expression else None,
                "expression_id": role.expression.id if role.expression else None,
            }
            if role.object.score is not None:
                facts["score"] = role.object.score
            category = categories.number(role.category)
            for t in frames:
                rle: Any = role.object.masks[t]
                if rle is not None:
                    place = {"image_id": images[t], "category_id": category}
                    self._annotate({**place, "segmentation": json_rle(rle), **_extent(rle), "iscrowd": 0, **facts})

    def _image(self, exported: Exported, t: int, file_name: str) -> int:
        """The number of a frame that becomes an image."""
        if file_name in self.images:
            raise ExportError(
                f"{exported.name!r} would write images/{file_name} once more: set another image_name or video_name"
            )
        height, width = exported.annotations.size
        number = len(self.images) + 1
        self.images[file_name] = {
            "id": number,
            "file_name": file_name,
            "height": height,
            "width": width,
            "video": exported.name,
            "frame": t,
        }
        return number

    def _annotate(self, entry: dict[str, Any]) -> None:
        self._num_annotations += 1
        self.annotations.append({"id": self._num_annotations, **entry})


def _extent(rle: Any) -> dict[str, Any]:
    return {"area": int(coco_mask.area(rle)), "bbox": coco_mask.toBbox(rle).tolist()}
