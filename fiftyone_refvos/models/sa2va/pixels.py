"""What the networks of Sa2VA see of RGB frames: tiles for InternVL, resized images for Qwen-VL, squares for SAM2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from fiftyone_refvos.models.sa2va.config import Tiling
from fiftyone_refvos.video import Frame

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_BICUBIC = Image.Resampling.BICUBIC

QWEN_PIXELS = {"shortest_edge": 512 * 28 * 28, "longest_edge": 2048 * 28 * 28}
"""Least and most pixels of an image, under the names of the stock image processor."""
_QWEN_GRID = 28  # the published program rounds sizes to it for the family with patches of 16, too


def internvl_frames(frames: Sequence[Frame], side: int) -> Tensor:
    """Frames of a video, each squashed into one tile: `(F, 3, side, side)`."""
    return torch.stack([_normalised(Image.fromarray(frame).resize((side, side), _BICUBIC)) for frame in frames])


def internvl_image(frame: Frame, tiling: Tiling) -> Tensor:
    """A single image in tiles, row by row, and then as a whole if there are several: `(tiles, 3, side, side)`."""
    image, side = Image.fromarray(frame), tiling.side
    columns, rows = tile_grid(image.size, tiling)
    resized = image.resize((side * columns, side * rows), _BICUBIC)
    boxes = [(side * x, side * y, side * (x + 1), side * (y + 1)) for y in range(rows) for x in range(columns)]
    tiles = [resized.crop(box) for box in boxes]
    if tiling.thumbnail and len(tiles) > 1:
        tiles.append(image.resize((side, side), _BICUBIC))
    return torch.stack([_normalised(tile) for tile in tiles])


def tile_grid(size: tuple[int, int], tiling: Tiling) -> tuple[int, int]:
    """(columns, rows) of the grid whose shape is closest to that of an image of (width, height) pixels.

    Of equally close ones the larger, if the image has more than half of its pixels.
    """
    width, height = size
    grids = [
        (columns, rows)
        for columns in range(1, tiling.most + 1)
        for rows in range(1, tiling.most + 1)
        if tiling.least <= columns * rows <= tiling.most
    ]
    best, difference = (1, 1), float("inf")
    for columns, rows in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        each = abs(width / height - columns / rows)
        enough = width * height > 0.5 * tiling.side**2 * columns * rows
        if each < difference or (each == difference and enough):
            best, difference = (columns, rows), each
    return best


def qwen_image(frame: Frame) -> Image.Image:
    """An image as the published program hands it to the stock image processor: sides are multiples of 28."""
    height, width = smart_resize(
        *frame.shape[:2], factor=_QWEN_GRID, min_pixels=4 * _QWEN_GRID**2, max_pixels=16384 * _QWEN_GRID**2
    )
    return Image.fromarray(frame).resize((width, height), _BICUBIC)


def sam_pixels(frame: Frame, side: int) -> Tensor:
    """A frame squashed into the square input of SAM2, `(1, 3, side, side)`."""
    # The published model holds these constants in bfloat16, and so sees slightly other pixels than it was tuned on.
    mean, std = (torch.tensor(values).bfloat16().float().view(3, 1, 1) for values in (_MEAN, _STD))
    return ((_scaled(Image.fromarray(frame).resize((side, side), _BICUBIC)) - mean) / std)[None]


def _normalised(image: Image.Image) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
    return (_scaled(image) - mean) / std


def _scaled(image: Image.Image) -> Tensor:
    """`(3, H, W)` in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
