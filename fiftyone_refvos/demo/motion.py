"""Ways through the scene, one function per kind of motion.

A way is drawn first and then put where it fits. Time runs from 0 in the first frame to 1 in the last; lengths
are in short sides.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fiftyone_refvos.demo.shapes import outline, reach, signed_distance
from fiftyone_refvos.demo.world import DemoConfig, DemoObject, FloatArray, Motion

TILT = np.deg2rad(6)
"""What goes up, down, left or right goes so within this angle."""

MIN_ROOM = 0.26
"""Shorter ways cannot be told from standing still in a moving picture."""

DIRECTIONS: dict[str, tuple[float, float]] = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


def sample_path(rng: np.random.Generator, config: DemoConfig, motion: Motion, radius: float) -> FloatArray | None:
    """A way of the given kind for a shape that reaches `radius` far from its centre.

    Returns:
        `(T, 2)` the centre's (x, y) in scene coordinates, or None if the drawn way does not fit
    """
    time = np.linspace(0, 1, config.num_frames)
    if motion in ("leaves", "enters", "returns"):
        return _through_border(rng, config, motion, radius, time)
    room = _room(config, radius)
    if (room < 0).any():
        return None
    way = _way(rng, motion, room, time)
    return None if way is None else _place(rng, config, way, room)


def sample_bounce(
    rng: np.random.Generator, config: DemoConfig, first: DemoObject, second: DemoObject
) -> tuple[FloatArray, FloatArray] | None:
    """Ways of two shapes that run into each other and go back where they came from.

    Returns:
        two `(T, 2)` ways in scene coordinates, or None if the drawn ways do not fit in the picture
    """
    time = np.linspace(0, 1, config.num_frames)
    meeting = int(rng.integers(config.num_frames * 2 // 5, config.num_frames * 3 // 5))
    heading = rng.uniform(-0.3, 0.3) + np.pi / 2 * (config.width < config.height)
    ahead = np.array([np.cos(heading), np.sin(heading)]) * (1 if rng.random() < 0.5 else -1)
    contact = _contact(first, second, ahead)
    elapsed = np.abs(time - time[meeting])
    apart = [elapsed * rng.uniform(0.5, 0.9) for _ in range(2)]
    ways = np.stack([-(contact / 2 + apart[0])[:, None] * ahead, (contact / 2 + apart[1])[:, None] * ahead])
    room = _room(config, max(reach(thing.shape, thing.side) for thing in (first, second)))
    placed = _place(rng, config, ways, room)
    return None if placed is None else (placed[0], placed[1])


def _contact(first: DemoObject, second: DemoObject, ahead: FloatArray) -> float:
    """How far the second centre lies ahead of the first when the shapes just touch."""
    low, high = 0.0, reach(first.shape, first.side) + reach(second.shape, second.side)
    for _ in range(20):
        middle = (low + high) / 2
        if gap(first, second, (ahead * middle)[None])[0] > 0.008:
            high = middle
        else:
            low = middle
    return high


def gap(first: DemoObject, second: DemoObject, offsets: FloatArray) -> FloatArray:
    """Space between two shapes, negative where they overlap, for T positions relative to each other.

    Args:
        first, second: the shapes; their ways are not looked at
        offsets: `(T, 2)` where the second's centre lies, seen from the first's

    Returns:
        `(T,)` in short sides, at most 0.01 too large
    """
    gaps = []
    for here, there, shift in ((first, second, -offsets), (second, first, offsets)):
        points = outline(here.shape, here.side, here.angle) + shift[:, None]
        distances = signed_distance(there.shape, there.side, there.angle, points[..., 0], points[..., 1])
        gaps.append(distances.min(axis=1))
    return np.minimum(*gaps)


def _room(config: DemoConfig, radius: float) -> FloatArray:
    """`(2,)` how far a centre can move along x and y while its shape stays (nearly) in the picture."""
    return np.array(config.extent) - 2 * (0.85 * radius + config.camera)


def _place(rng: np.random.Generator, config: DemoConfig, ways: FloatArray, room: FloatArray) -> FloatArray | None:
    """Shifts ways `(..., 2)` together to a random place where all of them stay in the picture."""
    low, high = ways.reshape(-1, 2).min(axis=0), ways.reshape(-1, 2).max(axis=0)
    free = room - (high - low)
    if (free < 0).any():
        return None
    corner = (np.array(config.extent) - room) / 2 + free * rng.random(2)
    return ways - low + corner


def _heading(rng: np.random.Generator, motion: Motion, room: FloatArray) -> tuple[FloatArray, float] | None:
    """A direction near an axis, and a length that fits into the room there."""
    names = [motion] if motion in DIRECTIONS else list(DIRECTIONS)
    name = names[int(rng.integers(len(names)))]
    across = name in ("left", "right")
    longest = min(float(room[0 if across else 1]), 0.9 if across else 0.6)
    length = longest * rng.uniform(0.6, 1.0)
    turn = rng.uniform(-TILT, TILT)
    x, y = DIRECTIONS[name]
    ahead = np.array([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)])
    return None if length < MIN_ROOM else (ahead, length)


def _way(rng: np.random.Generator, motion: Motion, room: FloatArray, time: FloatArray) -> FloatArray | None:
    """A way `(T, 2)` that stays in the picture, starting anywhere."""
    if motion == "still":
        return np.zeros((len(time), 2))
    if motion == "circles":
        radius = min(float(room.min()) / 2, rng.uniform(0.14, 0.2))
        if radius < 0.12:
            return None
        turn = rng.uniform(0, 2 * np.pi) + 2 * np.pi * time * rng.uniform(1.05, 1.25) * (-1) ** rng.integers(2)
        return radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    heading = _heading(rng, motion, room)
    if heading is None:
        return None
    ahead, length = heading
    return (_PROGRESS.get(motion, _steadily)(rng, time) * length)[:, None] * ahead


def _steadily(rng: np.random.Generator, time: FloatArray) -> FloatArray:
    return time


def _then_still(rng: np.random.Generator, time: FloatArray) -> FloatArray:
    return np.minimum(time / rng.uniform(0.4, 0.55), 1)


def _still_then(rng: np.random.Generator, time: FloatArray) -> FloatArray:
    begin = rng.uniform(0.4, 0.55)
    return np.maximum((time - begin) / (1 - begin), 0)


def _and_back(rng: np.random.Generator, time: FloatArray) -> FloatArray:
    top = rng.uniform(0.45, 0.6)
    back = rng.uniform(0.75, 1)
    return np.where(time < top, time / top, 1 - back * (time - top) / (1 - top))


_PROGRESS: dict[Motion, Callable[[np.random.Generator, FloatArray], FloatArray]] = {
    "stops": _then_still,
    "starts": _still_then,
    "turns": _and_back,
}


def _through_border(
    rng: np.random.Generator, config: DemoConfig, motion: Motion, radius: float, time: FloatArray
) -> FloatArray | None:
    """A way out of the picture, into it, or out and back in, straight through one of its four sides."""
    names = list(DIRECTIONS)
    name = names[int(rng.integers(4))]
    axis = 0 if name in ("left", "right") else 1
    room = _room(config, radius)
    if (room < 0).any():
        return None
    far = float(room[axis])
    start = min(far, rng.uniform(0.25, 0.7))  # how far from the last place inside it is at first
    outside = 1.85 * radius + 2 * config.camera + 0.03  # from the last place inside to out of sight
    if motion == "returns":
        progress = (1 - np.abs(2 * time - 1)) * rng.uniform(1.15, 1.35)
    else:
        progress = time / rng.uniform(0.65, 0.9)  # it never stops, out of sight either
        progress = progress[::-1] if motion == "enters" else progress
    along = -start + (start + outside) * progress
    margin = (np.array(config.extent) - room) / 2
    place = margin + room * rng.random(2)
    way = np.repeat(place[None], len(time), axis=0)
    forward = DIRECTIONS[name][axis] > 0
    way[:, axis] = config.extent[axis] - margin[axis] + along if forward else margin[axis] - along
    return way
