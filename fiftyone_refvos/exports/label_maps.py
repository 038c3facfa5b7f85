"""Annotation images with one object id per pixel, in the palette of VOC and DAVIS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from fiftyone_refvos.datasets.masks import VOID
from fiftyone_refvos.datasets.records import Size
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.records import Exported, object_numbers
from fiftyone_refvos.masklet import RLE


@dataclass(frozen=True)
class LabelMap:
    """The objects of one frame in one image.

    Attributes:
        pixels: `(H, W) uint8`, the number of an object, 0 for none, 255 for void
        hidden: pixels of objects that other objects cover, and that the image therefore does not hold
    """

    pixels: NDArray[np.uint8]
    hidden: int

    def save(self, path: Path) -> None:
        """Writes a PNG with palette, into a folder that exists."""
        image = Image.fromarray(self.pixels)
        image.putpalette(voc_palette())  # makes it mode P
        image.save(path)


def label_numbers(exported: Exported) -> dict[str, int]:
    """Numbers from 1 of the objects of a video: their ids where all are such numbers.

    Raises:
        ExportError: for numbers above 254, as 255 is void
    """
    numbers = object_numbers(exported.annotations.objects, first=1)
    for id_, number in numbers.items():
        if number >= VOID:
            raise ExportError(
                f"object {id_!r} of {exported.name!r} would be number {number} in the annotation images, which hold "
                f"1 to {VOID - 1}: give its masks another object_id, or export in a format with one mask per object"
            )
    return numbers


def label_map(masks: Mapping[int, RLE | None], size: Size, void: RLE | None = None) -> LabelMap:
    """Draws the masks of one frame into one image.

    Where objects overlap, the one with fewer pixels in the frame lies on top, of equal ones the one with the higher
    number. Void lies below all objects.

    Args:
        masks: of the objects by their number, 1 to 254
        size: (H, W)
        void: pixels that count for nothing
    """
    areas = {number: int(coco_mask.area(rle)) for number, rle in masks.items() if rle is not None}
    pixels = np.zeros(size, dtype=np.uint8)
    if void is not None:
        pixels[coco_mask.decode(void) > 0] = VOID
    for number in sorted(areas, key=lambda each: (-areas[each], each)):
        pixels[coco_mask.decode(masks[number]) > 0] = number
    shown = int(np.count_nonzero((pixels > 0) & (pixels < VOID)))
    return LabelMap(pixels, sum(areas.values()) - shown)


@cache
def voc_palette() -> tuple[int, ...]:
    """256 colours as red, green, blue in turn: the bits of a number, three by three from the lowest, as high bits."""
    return tuple(
        sum((number >> 3 * bit + channel & 1) << 7 - bit for bit in range(8))
        for number in range(256)
        for channel in range(3)
    )
