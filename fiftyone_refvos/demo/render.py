"""Draws frames and exact masks of a world; every frame on its own, without the frames before it.

A pixel belongs to an object iff its centre lies in the shape and in no shape in front of it. The picture is
anti-aliased over that: along an edge colours mix over one pixel.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fiftyone_refvos.demo.shapes import inside, reach, signed_distance, snap
from fiftyone_refvos.demo.world import RGB, Background, DemoObject, FloatArray, World, generator

RIM_WIDTH = 0.07
"""Every shape has a rim, in sides of the shape: two of one colour can be told apart where they overlap."""

NOISE_CELLS = 32
"""The noise repeats after so many cells along x and y."""


def render_frame(world: World, t: int) -> NDArray[np.uint8]:
    """The picture at frame `t` (from 0): `(H, W, 3) uint8`, RGB."""
    frame = _background(world, t)
    for thing in world.objects:
        view = _View(world, thing, t)
        if not view.empty:
            patch = frame[view.rows, view.columns]
            patch[:] = _paint(patch, view, thing)
    return frame


def render_masks(world: World, t: int) -> NDArray[np.bool_]:
    """What can be seen of each object at frame `t` (from 0): `(N, H, W) bool`; no pixel belongs to two."""
    config = world.config
    masks = np.zeros((len(world.objects), config.height, config.width), dtype=bool)
    for index, thing in enumerate(world.objects):
        view = _View(world, thing, t)
        if not view.empty:
            shape = inside(thing.shape, view.side, thing.angle, view.x, view.y)
            masks[:index, view.rows, view.columns] &= ~shape
            masks[index, view.rows, view.columns] = shape
    return masks


class _View:
    """The part of the picture that an object may touch, seen from the object's centre.

    Attributes:
        rows, columns: the part of the picture
        x, y: `(1, w)` and `(h, 1)` pixel centres relative to the object's centre, in pixels
        side: side of the square of equal area, in pixels
    """

    def __init__(self, world: World, thing: DemoObject, t: int) -> None:
        config = world.config
        unit = config.short_side
        center = snap((np.array(thing.path[t]) - np.array(world.camera[t])) * unit)
        radius = reach(thing.shape, thing.side) * unit + 2
        self.side = thing.side * unit
        self.columns = _span(float(center[0]), radius, config.width)
        self.rows = _span(float(center[1]), radius, config.height)
        self.x = (np.arange(self.columns.start, self.columns.stop) + 0.5 - center[0])[None, :]
        self.y = (np.arange(self.rows.start, self.rows.stop) + 0.5 - center[1])[:, None]

    @property
    def empty(self) -> bool:
        return self.x.size == 0 or self.y.size == 0


def _span(center: float, radius: float, size: int) -> slice:
    first = min(max(int(np.floor(center - radius)), 0), size)
    last = min(max(int(np.ceil(center + radius)), first), size)
    return slice(first, last)


def _paint(patch: NDArray[np.uint8], view: _View, thing: DemoObject) -> NDArray[np.uint8]:
    """The patch `(h, w, 3) uint8` with the object in front of it."""
    distance = signed_distance(thing.shape, view.side, thing.angle, view.x, view.y)
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    rim = np.clip(distance + RIM_WIDTH * view.side + 0.5, 0, 1)[..., None]
    color = np.array(RGB[thing.color], dtype=np.float64)
    color = color + rim * (40 - 0.5 * color)  # darker than bright colours, lighter than black
    return np.round(patch + cover * (color - patch)).astype(np.uint8)


def _background(world: World, t: int) -> NDArray[np.uint8]:
    """The texture behind the objects: `(H, W, 3) uint8`."""
    config, background = world.config, world.background
    left, top = world.camera[t]
    x = left + (np.arange(config.width) + 0.5) / config.short_side
    y = top + (np.arange(config.height) + 0.5) / config.short_side
    coarse = _noise(background.seed, x / background.period, y / background.period)
    if background.texture == "noise":
        value = 0.75 * coarse + 0.25 * _noise(background.seed + 1, x * 12, y * 12)
    else:
        value = 0.75 * _pattern(background, x, y) + 0.25 * coarse
    low, high = (np.array(color) for color in background.colors)
    # A table of 256 colours is much faster than arithmetic on three channels.
    table = np.round(low + (high - low) * (np.arange(256) / 255)[:, None]).astype(np.uint8)
    return table[np.round(np.clip(value, 0, 1) * 255).astype(np.uint8)]


def _pattern(background: Background, x: FloatArray, y: FloatArray) -> FloatArray:
    """Stripes or a checkerboard with soft edges: `(H, W)` in [0, 1] from the columns' x and the rows' y."""
    frequency = 2 * np.pi / background.period
    if background.texture == "stripes":
        a, b = x * frequency * np.cos(background.angle), y * frequency * np.sin(background.angle)
        wave = np.sin(b)[:, None] * np.cos(a) + np.cos(b)[:, None] * np.sin(a)  # sin(a + b)
        return np.clip(0.5 + 1.5 * wave, 0, 1)
    columns, rows = (np.clip(4 * np.sin(axis * frequency / 2), -1, 1) for axis in (x, y))
    return 0.5 + 0.5 * rows[:, None] * columns


def _noise(seed: int, x: FloatArray, y: FloatArray) -> FloatArray:
    """Smooth noise of period 1: `(H, W)` in [0, 1] from the columns' x and the rows' y."""
    lattice = generator(seed).random((NOISE_CELLS, NOISE_CELLS))
    column, across = _cell(x)
    row, down = _cell(y)
    after = (row + 1) % NOISE_CELLS
    rows = lattice[row] + (lattice[after] - lattice[row]) * down[:, None]
    start, end = rows[:, column], rows[:, (column + 1) % NOISE_CELLS]
    return start + (end - start) * across


def _cell(position: FloatArray) -> tuple[NDArray[np.int_], FloatArray]:
    """Lattice cells and smoothed places within them, in [0, 1]."""
    floor = np.floor(position)
    part = position - floor
    return floor.astype(int) % NOISE_CELLS, part * part * (3 - 2 * part)
