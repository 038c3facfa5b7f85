"""Draws worlds: which objects there are, where they go, what lies behind them, and how the camera moves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from fiftyone_refvos.demo.motion import sample_bounce, sample_path
from fiftyone_refvos.demo.shapes import reach
from fiftyone_refvos.demo.visibility import Visibility
from fiftyone_refvos.demo.world import (
    COLORS,
    MOTIONS,
    SHAPES,
    TEXTURES,
    Background,
    Color,
    DemoConfig,
    DemoObject,
    FloatArray,
    Motion,
    Shape,
    Size,
    World,
)

Item = TypeVar("Item")

AREAS: dict[Size, tuple[float, float]] = {"small": (0.018, 0.020), "large": (0.050, 0.058)}
"""Least and greatest area of the two sizes, as a fraction of the picture."""

COLLISION, SAME_MOTION = 0.3, 0.25
"""How often two objects of a video collide, and how often an object moves like the one before it."""

WEIGHTS: dict[Motion, int] = {"still": 3, "leaves": 1, "enters": 1, "returns": 1}
"""How often objects do something; 2 where nothing is said."""

MOST_LARGE = 2
"""More large objects would leave no room."""

ATTEMPTS = 500
CANDIDATES = 12

Path = tuple[tuple[float, float], ...]


def sample_world(rng: np.random.Generator, config: DemoConfig) -> World:
    """Draws a world in which every object can be seen well at some time.

    Raises:
        RuntimeError: if the objects do not fit into the picture
    """
    background, camera = _background(rng), _camera(rng, config)
    for _ in range(ATTEMPTS):
        objects = _objects(rng, config)
        if objects is None:
            continue
        world = World(config, background, camera, objects)
        if _watchable(world):
            return world
    raise RuntimeError(
        f"no place for {config.min_objects} to {config.max_objects} objects in "
        f"{config.height}x{config.width}: lower max_objects in DemoConfig"
    )


def _watchable(world: World) -> bool:
    """Whether every object is whole at some time and, unless it comes or goes, seldom out of sight."""
    visibility = Visibility.of(world)
    often = visibility.seen().mean(axis=1)
    least = np.array([0.35 if _comes_or_goes(thing.motion) else 0.75 for thing in world.objects])
    return bool((visibility.visible.max(axis=1) > 0.97).all() and (often >= least).all())


def _comes_or_goes(motion: Motion) -> bool:
    return motion in ("leaves", "enters", "returns")


def _objects(rng: np.random.Generator, config: DemoConfig) -> tuple[DemoObject, ...] | None:
    """Draws objects one after another, each where it does not hide the earlier ones for long."""
    count = int(rng.integers(config.min_objects, config.max_objects + 1))
    # Few shapes and colours per video, so that one word alone seldom tells which object is meant.
    shapes, colors = _some(rng, SHAPES, 3), _some(rng, COLORS, 3)
    bare = [_bare_object(rng, config, shapes, colors, may_be_large=k < MOST_LARGE) for k in range(count)]
    placed: list[DemoObject] = []
    if rng.random() < COLLISION:
        placed = _collision(rng, config, bare[0], bare[1])
    motion = _motion(rng)
    for thing in bare[len(placed) :]:
        motion = motion if rng.random() < SAME_MOTION else _motion(rng)
        found = _placed(rng, config, replace(thing, motion=motion), placed)
        if found is None:
            return None
        placed.append(found)
    order = np.argsort(rng.random(count))  # from back to front
    return tuple(replace(placed[old], id=str(new)) for new, old in enumerate(order))


def _motion(rng: np.random.Generator) -> Motion:
    alone = [motion for motion in MOTIONS if motion != "bounces"]
    return _pick(rng, [motion for motion in alone for _ in range(WEIGHTS.get(motion, 2))])


def _bare_object(
    rng: np.random.Generator,
    config: DemoConfig,
    shapes: Sequence[Shape],
    colors: Sequence[Color],
    *,
    may_be_large: bool,
) -> DemoObject:
    size: Size = "large" if rng.random() < 0.6 and may_be_large else "small"
    width, height = config.extent
    return DemoObject(
        id="",
        shape=_pick(rng, shapes),
        color=_pick(rng, colors),
        size=size,
        motion="still",
        side=_round(float(np.sqrt(rng.uniform(*AREAS[size]) * width * height))),
        angle=_round(float(np.deg2rad(rng.uniform(-12, 12)))),
        path=(),
    )


def _collision(
    rng: np.random.Generator, config: DemoConfig, first: DemoObject, second: DemoObject
) -> list[DemoObject]:
    """Two objects on ways on which they collide; none if the picture is too small for that."""
    for _ in range(CANDIDATES):
        ways = sample_bounce(rng, config, first, second)
        if ways is not None:
            pair = zip((first, second), ways, strict=True)
            return [replace(thing, motion="bounces", path=_freeze(way)) for thing, way in pair]
    return []


def _placed(
    rng: np.random.Generator, config: DemoConfig, thing: DemoObject, others: Sequence[DemoObject]
) -> DemoObject | None:
    for _ in range(CANDIDATES):
        way = sample_path(rng, config, thing.motion, reach(thing.shape, thing.side))
        if way is not None and all(_seldom_close(way, thing, other) for other in others):
            return replace(thing, path=_freeze(way))
    return None


def _seldom_close(way: FloatArray, thing: DemoObject, other: DemoObject) -> bool:
    """Whether two objects overlap much in few frames at most; passing each other is welcome."""
    distance = np.sqrt(((way - np.array(other.path)) ** 2).sum(axis=1))
    close = distance < 0.5 * (thing.side + other.side)
    # Two that bounce must not seem to hit a third, and what stands close to another for long is hard to see.
    return bool(close.mean() <= (0.05 if other.motion == "bounces" else 0.25))


def _camera(rng: np.random.Generator, config: DemoConfig) -> Path:
    """A slow drift with a little sway, at most `config.camera` away from the middle along x and y."""
    time = np.linspace(0, 1, config.num_frames)
    drift, sway = rng.uniform(-0.7, 0.7, 2), rng.uniform(0.1, 0.3, 2)
    phase = rng.uniform(0, 2 * np.pi, 2)
    way = drift * (2 * time[:, None] - 1) + sway * np.sin(2 * np.pi * (time[:, None] + phase))
    return _freeze(config.camera * way)


def _background(rng: np.random.Generator) -> Background:
    gray = rng.uniform(105, 150)
    tint = rng.uniform(-14, 14, (2, 3))
    contrast = rng.uniform(14, 24)
    low, high = (
        np.round(gray + sign * contrast + shift).astype(int) for sign, shift in zip((-1, 1), tint, strict=True)
    )
    return Background(
        texture=_pick(rng, TEXTURES),
        colors=((int(low[0]), int(low[1]), int(low[2])), (int(high[0]), int(high[1]), int(high[2]))),
        period=_round(rng.uniform(0.14, 0.3)),
        angle=_round(rng.uniform(0, np.pi)),
        seed=int(rng.integers(2**31)),
    )


def _freeze(way: FloatArray) -> Path:
    return tuple((_round(float(x)), _round(float(y))) for x, y in way)


def _round(length: float) -> float:
    """Rounds away the last bits, in which the sines of different machines differ."""
    return round(length * 2**16) / 2**16


def _pick(rng: np.random.Generator, items: Sequence[Item]) -> Item:
    return items[int(rng.integers(len(items)))]


def _some(rng: np.random.Generator, items: Sequence[Item], count: int) -> list[Item]:
    order = np.argsort(rng.random(len(items)))
    return [items[int(k)] for k in order[:count]]
