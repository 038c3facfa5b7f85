"""Polygons that OpenCV draws as exactly the mask that they were made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from fiftyone_refvos.exports.fill_polygons import fill_polygons
from fiftyone_refvos.masklet import encode
from tests.export_records import draw

Mask = NDArray[np.bool_]


def drawn_one_by_one(mask: Mask) -> list[Mask]:
    """What LISA draws for each polygon."""
    parts = []
    for polygon in fill_polygons(encode(mask[None])[0]):
        picture = np.zeros(mask.shape, np.uint8)
        draw(picture, polygon, 1)
        parts.append(picture > 0)
    return parts


def check(mask: Mask) -> int:
    """Checks that the parts are the mask and share no pixel, and returns how many there are."""
    parts = drawn_one_by_one(mask)
    times = np.zeros(mask.shape, int) + sum(part.astype(int) for part in parts)
    assert np.array_equal(times, mask.astype(int))
    return len(parts)


def from_text(*rows: str) -> Mask:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


@settings(max_examples=300, deadline=None)
@given(arrays.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12))))
def test_any_mask_is_drawn_exactly(mask):
    check(mask)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(*[st.integers(-5, 45)] * 3, st.booleans()), min_size=1, max_size=6))
def test_discs_with_holes_are_drawn_exactly(discs):
    rows, columns = np.mgrid[:40, :40]
    mask = np.zeros((40, 40), dtype=bool)
    for y, x, radius, filled in discs:
        mask[np.hypot(rows - y, columns - x) <= radius / 3] = filled
    check(mask)


@pytest.mark.parametrize(
    ("rows", "count"),
    [
        (["#"], 1),
        (["...", ".#.", "..."], 1),
        (["###", "###"], 1),  # full, along the whole border
        (["####"], 1),
        (["#", "#", "#"], 1),
        (["#.", ".#"], 2),  # they touch at a corner only
        (["###", "#.#", "###"], 2),  # a hole
        (["#...#", ".....", "#...#"], 4),
        (["..#..", ".###.", "#####", ".###.", "..#.."], 1),
        (["##...", ".###.", "...##"], 1),
        (["#####", "....#", "#####", "#....", "#####"], 1),
        ([".###.", "#.#.#", "#####"], 3),
        (["....", "...."], 0),
    ],
)
def test_shapes_come_in_as_few_parts_as_the_rule_says(rows, count):
    assert check(from_text(*rows)) == count


def test_a_large_ring_is_two_polygons():
    rows, columns = np.mgrid[:480, :854]
    distance = np.hypot(rows - 200, columns - 400)
    assert check((distance < 150) & (distance > 60)) == 2


def test_points_are_whole_numbers_and_at_least_three():
    polygons = fill_polygons(encode(from_text("#..", "..#", "###")[None])[0])
    assert polygons == [[(0, 0), (0, 0), (0, 0)], [(2, 1), (2, 2), (0, 2), (2, 2)]]
    assert all(type(value) is int for polygon in polygons for point in polygon for value in point)
