"""Masks as datasets store them: RLEs of all kinds, index and binary PNGs, polygons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.records import Size
from fiftyone_refvos.masklet import RLE, encode, run_lengths

VOID = 255


def parse_rle(value: Any, size: Size, where: object) -> RLE | None:
    """A mask of a JSON file or a pickle: an RLE with counts as text, bytes or a list, or null.

    Args:
        value: what the file holds
        size: (H, W) that the mask has to have
        where: what errors name

    Returns:
        a compressed RLE; None for null and for a mask without pixels

    Raises:
        DatasetError: for anything else, for another size, and for runs that do not fill the frame
    """
    if value is None:
        return None
    try:
        found, counts = tuple(int(side) for side in value["size"]), value["counts"]
    except (TypeError, KeyError, ValueError, IndexError) as error:
        raise DatasetError(f"{where}: {str(value)[:80]!r} is no RLE with 'size' and 'counts'") from error
    if found != tuple(size):
        raise DatasetError(
            f"{where}: the mask is {_times(found)}, but the frame {_times(size)} (height x width): masks are not "
            "stretched; export them again at the size of the frames"
        )
    if isinstance(counts, list):
        return _from_runs(counts, size, where)
    data = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
    if not isinstance(data, bytes) or not data:
        raise DatasetError(f"{where}: the counts of the RLE are {str(counts)[:40]!r}, not text, bytes or a list")
    rle: RLE = {"size": list(size), "counts": data}
    if min(data) < 48 or max(data) > 111 or data[-1] - 48 & 0x20:
        raise DatasetError(f"{where}: the RLE has characters that no RLE has, or ends early: {data[-20:]!r}")
    _check_runs(run_lengths(rle), size, where)
    return rle if coco_mask.area(rle) else None


def _from_runs(counts: list[Any], size: Size, where: object) -> RLE | None:
    if any(isinstance(run, bool) or not isinstance(run, int) for run in counts):
        raise DatasetError(f"{where}: the RLE has runs that are no whole numbers")
    _check_runs(np.array(counts, dtype=np.int64), size, where)
    rle = cast(RLE, coco_mask.frPyObjects(cast(Any, {"size": list(size), "counts": counts}), *size))
    return rle if coco_mask.area(rle) else None


def _check_runs(runs: NDArray[np.int64], size: Size, where: object) -> None:
    if (runs < 0).any() or int(runs.sum()) != size[0] * size[1]:
        raise DatasetError(
            f"{where}: the runs of the RLE fill {int(runs.sum())} pixels, the frame has {size[0] * size[1]}: the "
            "mask is damaged, or its size is wrong"
        )


def read_index_png(path: Path, size: Size) -> NDArray[np.uint16]:
    """The object ids of an annotation image, `(H, W) uint16`: palette or grey values of 1 to 16 bits, not colours.

    Raises:
        DatasetError: if it cannot be read, is neither a palette nor a grey image, or has another size
    """
    with _annotation(path, size) as image:
        if image.mode not in ("P", "L", "1", "I;16", "I"):  # the last two are 16 bits, as Pillow calls them
            raise DatasetError(f"{path} has colours ({image.mode}), but should hold one object id per pixel")
        return np.array(image).astype(np.uint16)


def read_binary_png(path: Path, size: Size) -> RLE | None:
    """The mask of an image in which any value above 0 is the object, whatever its mode; None without any.

    Raises:
        DatasetError: if it cannot be read, or has another size
    """
    with _annotation(path, size) as image:
        return to_rle(above_zero(image))


def above_zero(image: Image.Image) -> NDArray[np.bool_]:
    """Where an image has any value above 0, `(H, W) bool`; palette indices count, opacity does not."""
    pixels = np.asarray(image.convert("RGB") if image.mode in ("RGBA", "CMYK", "LA") else image)
    return np.asarray(pixels.any(axis=2) if pixels.ndim == 3 else pixels > 0)


@contextmanager
def _annotation(path: Path, size: Size) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            if (image.height, image.width) != tuple(size):
                raise DatasetError(
                    f"{path} is {_times((image.height, image.width))}, but the frames {_times(size)} (height x width)"
                )
            yield image
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path} cannot be read ({error}): unpack the annotations again") from error


def to_rle(mask: NDArray[np.bool_]) -> RLE | None:
    """Encodes a mask `(H, W) bool`; None where it is empty."""
    return encode(mask[None])[0] if mask.any() else None


def union(rles: Iterable[RLE | None]) -> RLE | None:
    """The logical or of masks of one size; None where it is empty."""
    present = [rle for rle in rles if rle is not None]
    if len(present) <= 1:
        return present[0] if present else None
    return cast(RLE, coco_mask.merge(cast(Any, present)))


def from_polygons(polygons: Any, size: Size, where: object) -> RLE | None:
    """The union of COCO polygons, as pycocotools draws them; an RLE is taken as it is.

    Polygons may leave the image, and are cut off there. One of fewer than three points encloses nothing; pycocotools
    draws no pixel of it, or refuses where it comes first.

    Raises:
        DatasetError: for anything that is neither, and for coordinates far outside of the image
    """
    if isinstance(polygons, dict):
        return parse_rle(polygons, size, where)
    limit = 10 * max(size)  # beyond it pycocotools takes memory without end for the outline
    if not isinstance(polygons, list) or not all(_is_polygon(each, limit) for each in polygons):
        raise DatasetError(
            f"{where}: the segmentation is neither a list of polygons [x, y, …] in or near the image nor an RLE"
        )
    areas = [each for each in polygons if len(each) >= 6]
    if not areas:
        return None
    rle = cast(RLE, coco_mask.merge(coco_mask.frPyObjects(areas, *size)))
    return rle if coco_mask.area(rle) else None


def _is_polygon(value: Any, limit: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) % 2 == 0
        and all(isinstance(each, int | float) and -limit <= each <= limit for each in value)  # NaN is not
    )


def image_size(path: Path) -> Size:
    """(H, W) of an image as it is displayed; reads its header alone.

    Raises:
        DatasetError: if it cannot be read
    """
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations that exchange width and height
            return (image.width, image.height) if turned else (image.height, image.width)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{path} cannot be read ({error}): unpack the images again") from error


def _times(size: Sequence[int]) -> str:
    return "x".join(str(side) for side in size)
