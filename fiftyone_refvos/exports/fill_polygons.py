"""Masks as polygons that OpenCV draws as exactly the same masks: outlines through the middles of the border pixels.

`cv2.fillPoly` fills what lies between the edges of a polygon, and draws the edges, too: one along a row or a column
as the pixels from its one end to the other. Such polygons have no holes, so that a mask with holes is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pycocotools import mask as coco_mask

from fiftyone_refvos.masklet import RLE

Point = tuple[int, int]  # x, y
Run = tuple[int, int]  # the first and the last column of pixels side by side


def fill_polygons(rle: RLE) -> list[list[Point]]:
    """The parts of a mask, none of which has a hole or shares a pixel with another; [] for an empty mask.

    A part has one run of pixels in each of its rows. It goes on into that run of the next row with which it has most
    columns in common; other runs begin parts of their own.
    """
    mask = coco_mask.decode(rle)
    edges = np.diff(mask.astype(np.int8), axis=1, prepend=0, append=0)
    parts: list[_Part] = []
    above: list[_Part] = []
    for y, row in enumerate(edges):
        runs = [*zip(np.flatnonzero(row == 1).tolist(), (np.flatnonzero(row == -1) - 1).tolist(), strict=True)]
        continued = _continued(above, runs)
        above = []
        for n, run in enumerate(runs):
            part = continued.get(n)
            if part is None:
                part = _Part(y, [])
                parts.append(part)
            part.runs.append(run)
            above.append(part)
    return [part.outline() for part in parts]


@dataclass
class _Part:
    """Runs of pixels one below the other, each of which has columns in common with the next.

    Attributes:
        top: the row of the first one
        runs: one per row
    """

    top: int
    runs: list[Run]

    def outline(self) -> list[Point]:
        """Down the right side and up the left one; at least three points, equal ones for a pixel or a line."""
        right = self._side([last for _, last in self.runs], min)
        left = self._side([first for first, _ in self.runs], max)
        points = _without_middles([*right, *reversed(left)])
        if len(points) > 1 and points[-1] == points[0]:
            points.pop()
        return points + points[-1:] * (3 - len(points))

    def _side(self, columns: Sequence[int], inner: Callable[[int, int], int]) -> list[Point]:
        """Steps from row to row, each in the one of two columns that both runs have, so as to leave none of them."""
        points = [(columns[0], self.top)]
        for y, (here, below) in enumerate(pairwise(columns), start=self.top):
            step = inner(here, below)
            points += [(step, y), (step, y + 1), (below, y + 1)]
        return points


def _continued(above: Sequence[_Part], runs: Sequence[Run]) -> dict[int, _Part]:
    """The parts that go on in a row, by the position of the run."""
    continued: dict[int, _Part] = {}
    taken: set[int] = set()
    for _, m, n in sorted(_shared(above, runs), key=lambda each: (-each[0], each)):
        if m not in taken and n not in continued:
            taken.add(m)
            continued[n] = above[m]
    return continued


def _shared(above: Sequence[_Part], runs: Sequence[Run]) -> Iterator[tuple[int, int, int]]:
    """How many columns a part and a run have in common, and their positions, for all that have some."""
    m = n = 0
    while m < len(above) and n < len(runs):
        (first, last), (its_first, its_last) = above[m].runs[-1], runs[n]
        columns = min(last, its_last) - max(first, its_first) + 1
        if columns > 0:
            yield columns, m, n
        if last < its_last:
            m += 1
        else:
            n += 1


def _without_middles(points: Sequence[Point]) -> list[Point]:
    """Leaves out points between their neighbours in one row or column, and repeated ones."""
    kept: list[Point] = []
    for point in points:
        while len(kept) > 1 and _between(kept[-2], kept[-1], point):
            kept.pop()
        if kept[-1:] != [point]:
            kept.append(point)
    return kept


def _between(one: Point, middle: Point, other: Point) -> bool:
    (x, y), (mx, my), (ox, oy) = one, middle, other
    in_row = y == my == oy and min(x, ox) <= mx <= max(x, ox)
    in_column = x == mx == ox and min(y, oy) <= my <= max(y, oy)
    return in_row or in_column
