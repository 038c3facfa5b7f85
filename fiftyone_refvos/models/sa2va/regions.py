"""Regions that a question is about: boxes, points and masks, which the language model sees in 16x16 cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GRID = 16
"""Cells of an image per side in all published checkpoints: the visual tokens of the tile that shows all of it."""


@dataclass(frozen=True)
class Box:
    """A box in pixels; the right and lower edges are outside."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Points:
    """Places (x, y) in pixels, from the upper left corner of the image, that mark one thing."""

    places: tuple[tuple[float, float], ...]


Region = Box | Points | NDArray[np.bool_]
"""A mask is `(H, W) bool`, of the size of the image."""


def region_masks(regions: Sequence[Region], size: tuple[int, int], grid: int = GRID) -> NDArray[np.bool_]:
    """The masks `(n, H, W)` by which regions of an image are marked.

    A box is filled. A point marks the cell that it lies in and those around it, at least the four cells that regions
    had in training. A cell belongs to a mask if its upper left pixel does, as published; of a region too small for
    that all cells that it touches are marked, so that the model is never asked about nothing.

    Args:
        regions: of one image
        size: its (H, W)
        grid: cells per side

    Raises:
        ValueError: for a region that is empty, or outside of the image
    """
    masks = [region_mask(f"region {number}", region, size, grid) for number, region in enumerate(regions, start=1)]
    return np.stack(masks) if masks else np.zeros((0, *size), dtype=bool)


def region_mask(name: str, region: Region, size: tuple[int, int], grid: int = GRID) -> NDArray[np.bool_]:
    """As `region_masks`, of one region, which errors call `name`; the mask is itself a region with this mask."""
    if isinstance(region, Points):
        return _around(name, region, size, grid)
    mask = _filled(name, region, size) if isinstance(region, Box) else region
    if mask.shape != size:
        raise ValueError(f"{name} is a mask of {mask.shape}, the image is {size}; pass a mask of its size")
    if not mask.any():
        raise ValueError(f"{name} is an empty mask")
    rows, columns = (_cells(length, grid) for length in size)
    starts = [np.arange(grid) * length // grid for length in size]
    if mask[np.ix_(*starts)].any():
        return mask
    touched = np.zeros((grid, grid), dtype=bool)
    y, x = mask.nonzero()
    touched[rows[y], columns[x]] = True
    return touched[rows[:, None], columns]


def _filled(name: str, box: Box, size: tuple[int, int]) -> NDArray[np.bool_]:
    height, width = size
    edges = (box.left, box.top, box.right, box.bottom)
    if not all(map(math.isfinite, edges)) or not (box.left < box.right and box.top < box.bottom):
        raise ValueError(f"{name} is no box: its edges left, top, right, bottom are {edges}")
    if box.right <= 0 or box.bottom <= 0 or box.left >= width or box.top >= height:
        raise ValueError(f"{name} is the box {edges}, outside of the image of {width}x{height} pixels")
    left, top = (min(max(round(edge), 0), most - 1) for edge, most in ((box.left, width), (box.top, height)))
    mask = np.zeros(size, dtype=bool)
    mask[top : max(round(box.bottom), top + 1), left : max(round(box.right), left + 1)] = True
    return mask


def _around(name: str, points: Points, size: tuple[int, int], grid: int) -> NDArray[np.bool_]:
    height, width = size
    rows, columns = (_cells(length, grid) for length in size)
    marked = np.zeros((grid, grid), dtype=bool)
    for x, y in points.places:
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"{name} has the point ({x}, {y}), outside of the image of {width}x{height} pixels")
        row, column = rows[int(y)], columns[int(x)]
        marked[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
    if not marked.any():
        raise ValueError(f"{name} has no points")
    return marked[rows[:, None], columns]


def _cells(length: int, grid: int) -> NDArray[np.intp]:
    """The cell of each pixel along one side; cell i begins at the pixel at which the published program looks."""
    starts = np.arange(grid) * length // grid
    return np.searchsorted(starts, np.arange(length), side="right") - 1
