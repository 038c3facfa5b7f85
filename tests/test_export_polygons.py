"""Masks as polygons: COCO's tools draw exactly the mask, and no pixel twice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from fiftyone_refvos.exports.polygons import Polygon, polygons_of
from fiftyone_refvos.masklet import encode


def drawn(polygons: list[Polygon], size: tuple[int, int]) -> NDArray[np.int64]:
    """How often each pixel is drawn, counted as by Sa2VA."""
    count = np.zeros(size, dtype=np.int64)
    for polygon in polygons:
        count += coco_mask.decode(coco_mask.frPyObjects([polygon], *size))[..., 0]
    return count


def pixels(*rows: str) -> NDArray[np.bool_]:
    return np.array([[sign == "#" for sign in row] for row in rows])


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=14)))
@settings(max_examples=300, deadline=None)
@example(np.ones((7, 9), dtype=bool))
@example(np.ones((1, 1), dtype=bool))
@example(pixels("#.#.#", ".#.#.", "#.#.#"))
@example(pixels("#####", "#.#.#", "##.##", "#...#", "#####"))
@example(pixels("#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"))
def test_a_mask_is_drawn_exactly_and_no_pixel_twice(mask):
    polygons = polygons_of(encode(mask[None])[0])
    assert np.array_equal(drawn(polygons, mask.shape), mask)
    assert all(len(polygon) >= 8 and len(polygon) % 2 == 0 for polygon in polygons)  # of 4 numbers COCO makes a box


@given(arrays(bool, (6, 6)), st.integers(0, 250), st.integers(0, 400))
@settings(max_examples=50, deadline=None)
def test_a_mask_is_drawn_exactly_anywhere_in_a_frame(mask, top, left):
    frame = np.zeros((256, 406), dtype=bool)
    frame[top : top + 6, left : left + 6] = mask
    assert np.array_equal(drawn(polygons_of(encode(frame[None])[0]), frame.shape), frame)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (pixels("...", ".##", "..."), [[1, 1, 3, 1, 3, 2, 1, 2]]),
        (pixels("..", ".."), []),
        (pixels("##", "#."), [[0, 0, 2, 0, 2, 1, 1, 1, 1, 2, 0, 2]]),
        # Pixels that touch at a corner are two parts.
        (pixels("#.", ".#"), [[0, 0, 1, 0, 1, 1, 0, 1], [1, 1, 2, 1, 2, 2, 1, 2]]),
        # A ring is cut at the left side of its hole.
        (pixels("###", "#.#", "###"), [[0, 0, 1, 0, 1, 3, 0, 3], [1, 0, 3, 0, 3, 3, 1, 3, 1, 2, 2, 2, 2, 1, 1, 1]]),
    ],
)
def test_a_part_is_its_outline_along_the_edges_of_pixels(mask, expected):
    assert polygons_of(encode(mask[None])[0]) == expected


def test_a_large_object_without_holes_is_one_polygon():
    rows, columns = np.mgrid[:480, :854]
    disk = (rows - 240) ** 2 + (columns - 400) ** 2 < 150**2
    (polygon,) = polygons_of(encode(disk[None])[0])
    assert np.array_equal(drawn([polygon], disk.shape), disk)
