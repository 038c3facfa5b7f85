"""Masks as polygons that COCO's tools draw as exactly the same masks: outlines along the edges of the pixels.

`pycocotools` fills a column of pixels between the places where a polygon crosses the middle of the column. An edge at
a whole number is crossed at that number, so that nothing is rounded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from fiftyone_refvos.masklet import RLE, BoolArray

Polygon = list[int]  # x, y, x, y, …: corners of pixels


def polygons_of(rle: RLE) -> list[Polygon]:
    """The parts of a mask, none of which has a hole or shares a pixel with another; [] for an empty mask.

    Pixels that touch at a corner only are different parts. A part with holes is cut into parts without, from top to
    bottom at the left side of a hole.
    """
    mask = coco_mask.decode(rle).astype(bool)
    columns = np.flatnonzero(mask.any(axis=0))
    if not len(columns):
        return []
    left, right = int(columns[0]), int(columns[-1]) + 1
    return _without_holes(mask[:, left:right], left)


def _without_holes(mask: BoolArray, left: int) -> list[Polygon]:
    """The parts of a mask whose first column is the column `left` of the picture."""
    outlines, holes = _outlines(mask)
    if holes:
        # A hole lies neither left of its own left side, nor is it one where that side is the border. The middle one
        # of all holes keeps the number of cuts, one in another, small.
        cut = sorted(holes)[len(holes) // 2]
        return _without_holes(mask[:, :cut], left) + _without_holes(mask[:, cut:], left + cut)
    return [[value for x, y in outline for value in (x + left, y)] for outline in outlines]


def _outlines(mask: BoolArray) -> tuple[list[list[tuple[int, int]]], list[int]]:
    """The corners (x, y) of the outline of every part, and the left sides of all holes."""
    rows, columns, across, along = _corners(mask)
    outlines, holes = [], []
    seen = np.zeros(len(rows), dtype=bool)
    for start in range(len(rows)):  # the first one of an outline is its highest corner, of these the left one
        if seen[start]:
            continue
        corners, node = [], start
        while not seen[node]:
            corner = int(across[node])
            seen[node] = seen[corner] = True
            corners += [node, corner]
            node = int(along[corner])
        points = [(int(columns[each]), int(rows[each])) for each in corners]
        if mask[rows[start], columns[start]]:
            outlines.append(points)
        else:
            holes.append(min(x for x, _ in points))
    return outlines, holes


def _corners(mask: BoolArray) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of all corners, and which ones they are joined to: in their row, and in their column.

    Where two pixels touch at a corner there are two corners at that place, the first of which has the upper edge:
    each of the pixels keeps an outline of its own there.
    """
    padded = np.pad(mask, 1)
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    single = nw ^ ne ^ sw ^ se
    falling, rising = nw & se & ~ne & ~sw, ne & sw & ~nw & ~se
    rows, columns = np.nonzero(single | falling | rising)
    twice = falling[rows, columns] | rising[rows, columns]
    second = np.concatenate([np.zeros(len(rows), dtype=bool), np.ones(int(twice.sum()), dtype=bool)])
    rows, columns = np.concatenate([rows, rows[twice]]), np.concatenate([columns, columns[twice]])
    # Along a row edges end and begin in turns. The corner with the upper edge belongs to the upper pixel, which is
    # the left one of two that touch, and so has the edge that ends there, or the right one.
    to_the_right = second ^ rising[rows, columns]
    order = np.lexsort((to_the_right, columns, rows))
    rows, columns, second = rows[order], columns[order], second[order]
    across = np.arange(len(rows)) ^ 1
    by_column = np.lexsort((second, rows, columns))
    along = np.empty_like(across)
    along[by_column] = by_column[np.arange(len(rows)) ^ 1]
    return rows, columns, across, along
