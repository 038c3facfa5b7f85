"""One binary image per object and frame, as the validation set of SA-V has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from fiftyone_refvos.datasets.files import inside_for_writing
from fiftyone_refvos.datasets.records import Size
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.media import MediaMode, write_frames
from fiftyone_refvos.exports.names import FlatNames
from fiftyone_refvos.exports.records import Exported, object_numbers
from fiftyone_refvos.masklet import RLE


class ObjectPNG(Format):
    """`<split>/Annotations/<video>/<object>/<00000>.png`, `<split>/JPEGImages/<video>/<00000>.jpg`, `<split>.txt`.

    Images are grey, 255 in the object and 0 elsewhere. Objects are numbers of three digits from 000 on: their ids
    where all are such numbers. They may overlap; expressions and void pixels are not kept.

    Frames are numbered from 0. An object has an image, be it all 0, in every frame in which it was annotated.
    Slashes in the names of videos become "_", as programs list the folders; `<split>.txt` lists the names.
    """

    name = "object-png"
    title = "one PNG per object (SA-V val)"
    description = "for evaluating VOS as SA-V does and training SAM 2; holds overlapping objects"

    def __init__(self, root: Path, media: MediaMode) -> None:
        super().__init__(root, media)
        self._names: dict[str, FlatNames] = {}
        self._listed: dict[str, list[str]] = {}

    def add(self, exported: Exported) -> None:
        """Writes one video.

        Raises:
            ExportError: if it has no object, which readers do not take
        """
        if not exported.annotations.objects:
            raise ExportError(
                f"{exported.name!r} has no object, and readers find no folder of it: export a view without it"
            )
        split = exported.record.split
        folder = inside_for_writing(self.root, split)
        name = self._names.setdefault(split, FlatNames(folder)).take(exported.name)
        self._listed.setdefault(split, []).append(name)
        stems = [f"{t:05d}" for t in range(len(exported.stems))]
        write_frames(exported.record, inside_for_writing(folder, "JPEGImages", name), stems, self.media)
        numbers = object_numbers(exported.annotations.objects, first=0)
        for thing in exported.annotations.objects:
            masks = inside_for_writing(folder, "Annotations", name, f"{numbers[thing.id]:03d}")
            masks.mkdir(parents=True)
            for t in sorted(exported.annotated_of(thing)):
                _save(thing.masks[t], exported.annotations.size, masks / f"{stems[t]}.png")

    def finish(self) -> None:
        """Writes the lists of videos."""
        super().finish()
        for split, names in self._listed.items():
            path = inside_for_writing(self.root, f"{split}.txt")
            path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def _save(rle: RLE | None, size: Size, path: Path) -> None:
    pixels = np.zeros(size, dtype=np.uint8) if rle is None else coco_mask.decode(rle) * np.uint8(255)
    Image.fromarray(pixels).save(path)
