"""The outlines of the shapes, each of area 1 around its centre: inside tests, distances and gaps.

Coordinates have y down. Vertices are rounded to multiples of `GRID`, so that inside tests at pixel centres
have no rounding errors and give the same masks on every machine.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from fiftyone_refvos.demo.world import FloatArray, Shape

GRID = 2.0**-14
"""Positions are multiples of this: products of two of them below 512 are exact in double precision."""

MOON_BITE = 0.74, 0.62
"""Radius and offset to the right of the circle cut out of a moon, in radii of its outer circle."""


def snap(values: FloatArray) -> FloatArray:
    """Rounds to multiples of `GRID`."""
    return np.round(values / GRID) * GRID


def inside(shape: Shape, side: float, angle: float, x: FloatArray, y: FloatArray) -> NDArray[np.bool_]:
    """Whether points lie in a shape.

    Args:
        shape: which shape
        side: side of the square of equal area
        angle: tilt in radians, clockwise
        x, y: coordinates relative to the shape's centre, broadcast against each other
    """
    if shape == "circle":
        return x * x + y * y <= _radius(side) ** 2
    if shape == "moon":
        outer, bite, radius, cut = _moon(side, angle)
        in_outer = (x - outer[0]) ** 2 + (y - outer[1]) ** 2 <= radius**2
        return in_outer & ((x - bite[0]) ** 2 + (y - bite[1]) ** 2 >= cut**2)
    return _in_polygon(_vertices(shape, side, angle), x, y)


def signed_distance(shape: Shape, side: float, angle: float, x: FloatArray, y: FloatArray) -> FloatArray:
    """Distance of points to a shape's outline, negative inside; arguments as for `inside`.

    Near the two tips of a moon it is a lower bound.
    """
    if shape == "circle":
        return np.sqrt(x * x + y * y) - _radius(side)
    if shape == "moon":
        outer, bite, radius, cut = _moon(side, angle)
        to_outer = np.sqrt((x - outer[0]) ** 2 + (y - outer[1]) ** 2) - radius
        return np.maximum(to_outer, cut - np.sqrt((x - bite[0]) ** 2 + (y - bite[1]) ** 2))
    vertices = _vertices(shape, side, angle)
    distance = _distance_to_edges(vertices, x, y)
    return np.where(_in_polygon(vertices, x, y), -distance, distance)


def reach(shape: Shape, side: float) -> float:
    """Distance of a shape's farthest point from its centre."""
    if shape == "circle":
        return _radius(side)
    return side * float(np.sqrt((_outline(shape) ** 2).sum(axis=1)).max())


def outline(shape: Shape, side: float, angle: float) -> FloatArray:
    """Points along a shape's outline, `(K, 2)` (x, y) from its centre, less than 0.1 sides apart."""
    return _rotate(_outline(shape) * side, angle)


@cache
def _outline(shape: Shape) -> FloatArray:
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    ring = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    if shape == "circle":
        return ring * _radius(1)
    if shape == "moon":
        outer, bite, radius, cut = _moon(1, 0)
        far, near = outer + ring * radius, bite + ring * cut
        from_bite = ((far - bite) ** 2).sum(axis=1) >= cut**2
        from_outer = ((near - outer) ** 2).sum(axis=1) <= radius**2
        along = (MOON_BITE[1] ** 2 + 1 - MOON_BITE[0] ** 2) / (2 * MOON_BITE[1])
        across = np.sqrt(1 - along**2)
        tips = outer + radius * np.array([[along, across], [along, -across]])
        return np.concatenate([far[from_bite], near[from_outer], tips])
    vertices = _unit_polygon(shape)
    steps = np.linspace(0, 1, 48 // len(vertices) + 1, endpoint=False)[:, None, None]
    points = vertices + steps * (np.roll(vertices, -1, axis=0) - vertices)
    return points.reshape(-1, 2)


def _radius(side: float) -> float:
    return side / float(np.sqrt(np.pi))


def _moon(side: float, angle: float) -> tuple[FloatArray, FloatArray, float, float]:
    """Centres of the outer circle and of the bite, and their radii."""
    ratio, offset = MOON_BITE
    # The bite removes the lens in which the two circles overlap.
    half_outer = np.arccos((offset**2 + 1 - ratio**2) / (2 * offset))
    half_bite = np.arccos((offset**2 + ratio**2 - 1) / (2 * offset * ratio))
    kite = 0.5 * np.sqrt((1 + ratio - offset) * (offset + 1 - ratio) * (offset + ratio - 1) * (offset + 1 + ratio))
    lens = half_outer + ratio**2 * half_bite - kite
    radius = side / float(np.sqrt(np.pi - lens))
    # The centroid of the moon is the origin: what the lens had is missing on the other side.
    centers = np.array([[0.313, 0.0], [0.313 + offset, 0.0]]) * radius
    outer, bite = snap(_rotate(centers, angle))
    return outer, bite, radius, ratio * radius


@cache
def _unit_polygon(shape: Shape) -> FloatArray:
    """Vertices of area 1 around the centroid, `(K, 2)` (x, y)."""
    if shape == "square":
        points = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64)
    elif shape == "cross":
        a, b = 0.36, 1.0  # half the width and half the length of the bars
        points = np.array(
            [
                [-a, -b],
                [a, -b],
                [a, -a],
                [b, -a],
                [b, a],
                [a, a],
                [a, b],
                [-a, b],
                [-a, a],
                [-b, a],
                [-b, -a],
                [-a, -a],
            ]
        )
    elif shape in ("triangle", "star"):
        corners = 3 if shape == "triangle" else 10
        turn = np.arange(corners) * (2 * np.pi / corners) - np.pi / 2  # the first corner points up
        points = np.stack([np.cos(turn), np.sin(turn)], axis=1)
        if shape == "star":
            points[1::2] *= 0.48
    else:
        raise ValueError(f"a {shape} has no corners")
    x, y = points.T
    area = 0.5 * float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))
    return points / np.sqrt(abs(area))


def _vertices(shape: Shape, side: float, angle: float) -> FloatArray:
    return snap(_rotate(_unit_polygon(shape) * side, angle))


def _rotate(points: FloatArray, angle: float) -> FloatArray:
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = points[..., 0], points[..., 1]
    return np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1)


def _in_polygon(vertices: FloatArray, x: FloatArray, y: FloatArray) -> NDArray[np.bool_]:
    """Even-odd rule; points on a left or upper edge are inside, on a right or lower one outside."""
    odd = np.zeros(np.broadcast_shapes(x.shape, y.shape), dtype=bool)
    for (x0, y0), (x1, y1) in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > y) != (y1 > y)
        side = (x - x0) * (y1 - y0) - (x1 - x0) * (y - y0)
        odd ^= crosses & ((side < 0) == (y1 > y0))
    return odd


def _distance_to_edges(vertices: FloatArray, x: FloatArray, y: FloatArray) -> FloatArray:
    nearest = np.full(np.broadcast_shapes(x.shape, y.shape), np.inf)
    for (x0, y0), (x1, y1) in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
        dx, dy = x1 - x0, y1 - y0
        along = np.clip(((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy), 0, 1)
        nearest = np.minimum(nearest, (x - x0 - along * dx) ** 2 + (y - y0 - along * dy) ** 2)
    return np.sqrt(nearest)
