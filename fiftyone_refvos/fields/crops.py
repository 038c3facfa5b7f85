"""Masks as FiftyOne keeps them: the crop of a tight box, and the box relative to the picture.

FiftyOne's own way back, `Detection.to_segmentation`, rounds boxes down and shifts some masks by a pixel. Here
a crop goes back to `round(box * size)`, which is exact for every box that was written as pixels / size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import fiftyone as fo
import numpy as np
from pycocotools import mask as coco_mask

from fiftyone_refvos.masklet import RLE, BoolArray, encode, run_lengths


@dataclass(frozen=True, slots=True)
class Crop:
    """The tight box of a mask, and what lies in it.

    Attributes:
        x, y: left and top of the box, in pixels of the frame, from 0
        mask: `(h, w) bool`, the mask inside the box, in C order
    """

    x: int
    y: int
    mask: BoolArray

    def relative_box(self, canvas: tuple[int, int]) -> list[float]:
        """[x, y, w, h] as parts of a picture of size `canvas` (H, W)."""
        (height, width), (h, w) = canvas, self.mask.shape
        return [self.x / width, self.y / height, w / width, h / height]


def crop(rle: RLE) -> Crop | None:
    """The tight crop of a mask, None where the mask is empty.

    Works on the run lengths: only the columns of the box are ever filled, not the frame, which is 3 times as
    fast at 480x854 and 10 times at 1080x1920.
    """
    height, _ = rle["size"]
    edges = np.cumsum(run_lengths(rle))
    edges = edges[: len(edges) // 2 * 2].reshape(-1, 2)
    edges = edges[edges[:, 0] < edges[:, 1]]  # where each run of ones starts and ends, column after column
    if not len(edges):
        return None
    starts, ends = edges[:, 0], edges[:, 1]
    left, right = int(starts[0]) // height, int(ends[-1] - 1) // height + 1
    runs = np.diff(edges.ravel(), prepend=left * height, append=right * height)
    strip = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(right - left, height)
    if (starts // height < (ends - 1) // height).any():  # a run goes on from the bottom to the top of the next column
        top, bottom = 0, height
    else:
        top, bottom = int((starts % height).min()), int(((ends - 1) % height).max()) + 1
    return Crop(left, top, np.ascontiguousarray(strip[:, top:bottom].T))


def to_detection(rle: RLE, canvas: tuple[int, int], **attributes: Any) -> fo.Detection | None:
    """A FiftyOne detection with a mask, None where the mask is empty.

    Args:
        rle: the mask of the frame
        canvas: (H, W) of the picture that the App shows; the frame is its upper left part
        **attributes: what else the detection is to have
    """
    cropped = crop(rle)
    if cropped is None:
        return None
    return fo.Detection(bounding_box=cropped.relative_box(canvas), mask=cropped.mask, **attributes)


def paste(mask: BoolArray, box: Sequence[float], canvas: tuple[int, int], size: tuple[int, int]) -> RLE:
    """Puts a crop back into an empty frame.

    Args:
        mask: `(h, w)` the mask inside the box; non-zero is the object
        box: [x, y, w, h] of the box as parts of the canvas
        canvas: (H, W) of the picture that the box refers to
        size: (H, W) of the frame, the upper left part of the canvas

    Returns:
        the mask of the frame; what the box holds outside of the frame is cut off
    """
    left, width = round(box[0] * canvas[1]), round(box[2] * canvas[1])
    top, height = round(box[1] * canvas[0]), round(box[3] * canvas[0])
    mask = np.asarray(mask) != 0
    if mask.shape != (height, width):  # not ours: a box that was edited, or a mask at another resolution
        mask = _resize(mask, max(height, 1), max(width, 1))
    inside = mask[max(-top, 0) : max(size[0] - top, 0), max(-left, 0) : max(size[1] - left, 0)]
    return _rle(inside, max(left, 0), max(top, 0), size)


def _rle(mask: BoolArray, left: int, top: int, size: tuple[int, int]) -> RLE:
    """Encodes a frame of `size` that is empty but for `mask` at (top, left), from the columns of the mask."""
    height, width = mask.shape
    if not mask.any():
        return encode(np.zeros((1, *size), dtype=bool))[0]
    strip = np.zeros((width, size[0]), dtype=bool)
    strip[:, top : top + height] = mask.T
    pixels = strip.ravel()
    edges = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    first, last = pixels[:1].nonzero()[0], pixels[-1:].nonzero()[0] + len(pixels)
    edges = np.concatenate([first, edges, last]) + left * size[0]
    ends = [] if edges[-1] == size[0] * size[1] else [size[0] * size[1]]
    counts = np.diff(np.concatenate([[0], edges, ends]).astype(np.int64))
    runs = {"size": list(size), "counts": counts.tolist()}
    return cast(RLE, coco_mask.frPyObjects(cast(Any, runs), *size))


def _resize(mask: BoolArray, height: int, width: int) -> BoolArray:
    """Nearest neighbours."""
    rows = np.arange(height) * mask.shape[0] // height
    columns = np.arange(width) * mask.shape[1] // width
    return mask[rows[:, None], columns]
