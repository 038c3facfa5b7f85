"""COCO's `instances.json`, of which a part of the images is wanted, without holding it in memory."""

from __future__ import annotations

import reprlib
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fiftyone_refvos.datasets.files import DatasetError, as_number, member
from fiftyone_refvos.datasets.json_index import JsonIndex, Span
from fiftyone_refvos.datasets.masks import from_polygons
from fiftyone_refvos.datasets.records import ObjectRecord, Size


@dataclass(frozen=True)
class InstancesImage:
    """One image of the file.

    Attributes:
        id: as the annotations name it
        file_name: relative to the folder of images
        size: (H, W)
    """

    id: str
    file_name: str
    size: Size


class Instances:
    """The images, and where the annotations of each are; these are parsed when they are asked for.

    The file is read once, an entry at a time; memory holds the wanted images and places in the file.

    Args:
        path: the file
        image_ids: the wanted images

    Raises:
        DatasetError: if the file is missing, damaged, or holds something else
    """

    def __init__(self, path: Path, image_ids: Collection[str]) -> None:
        self.path = path
        self._content = JsonIndex(path)
        self._categories = {
            self._id(entry, "id"): member(entry, "name", str, f"{path}, a category")
            for _, entry in self._content.objects("categories")
        }
        self.images: dict[str, InstancesImage] = {}
        for _, entry in self._content.objects("images"):
            if (id_ := self._id(entry, "id")) in image_ids:
                self.images[id_] = self._image(id_, entry)
        self._places: dict[str, list[Span]] = defaultdict(list)
        for place, entry in self._content.objects("annotations"):
            if (id_ := self._id(entry, "image_id")) in self.images:
                self._places[id_].append(place)

    def objects(self, image: InstancesImage) -> tuple[ObjectRecord, ...]:
        """All that is annotated in an image, in the order of the file.

        Raises:
            DatasetError: for damaged segmentations, and for ids that come twice
        """
        found: dict[str, ObjectRecord] = {}
        for place in self._places.get(image.id, ()):
            entry = self._content.object_at(place)
            id_ = self._id(entry, "id")
            where = f"{self.path}, annotation {id_} of image {image.id}"
            if id_ in found:
                raise DatasetError(f"{where} is there twice")
            mask = from_polygons(member(entry, "segmentation", (list, dict), where), image.size, where)
            category = self._categories.get(self._id(entry, "category_id"))
            found[id_] = ObjectRecord(id_, (mask,), anno_id=id_, category=category)
        return tuple(found.values())

    def _image(self, id_: str, entry: dict[str, Any]) -> InstancesImage:
        where = f"{self.path}, image {id_}"
        height, width = (as_number(entry.get(side), f"{where}: {side!r}") for side in ("height", "width"))
        return InstancesImage(id_, member(entry, "file_name", str, where), (height, width))

    def _id(self, entry: dict[str, Any], key: str) -> str:
        value = entry.get(key)
        if type(value) not in (int, str):
            raise DatasetError(f"{self.path}: {key!r} of the entry {reprlib.repr(entry)} is no number or text")
        return str(value)
