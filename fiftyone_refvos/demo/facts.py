"""All that is true in a world: what each object does, and how objects stand to each other.

Every fact is measured on the recorded ways and on what can be seen; the scripts that drew the ways are not
asked. Answers are True, False, or None where people might disagree (see `actions`). Expressions are built
only where the answer for every object is clear. Lengths are in short sides; places are in the picture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import numpy as np

from fiftyone_refvos.demo.actions import ACTIONS, Track, Truth
from fiftyone_refvos.demo.motion import DIRECTIONS, gap
from fiftyone_refvos.demo.visibility import Visibility
from fiftyone_refvos.demo.world import FloatArray, World

Place = Literal["left of", "right of", "above", "below"]
PLACES: tuple[Place, ...] = get_args(Place)

TOUCH, NEAR = 0.03, 0.06
"""Shapes up to the first length apart are seen to touch; beyond the second one nobody would say so."""

BESIDE = 1.5
"""What is left of something is at most so much farther above or below it than to its left."""

_TOWARDS: dict[Place, str] = {"left of": "left", "right of": "right", "above": "up", "below": "down"}

Pairs = tuple[tuple[Truth, ...], ...]


@dataclass(frozen=True)
class Facts:
    """The facts about the N objects of a world.

    Attributes:
        single: by what is done, the answer for each object; done are actions, and "collides" and "bounces"
            (with any other object)
        pairs: by how one stands to another, the answers as `[object][landmark]`, False on the diagonal; these
            are places, and "collides with", "bounces off" and "covered by"
    """

    single: dict[str, tuple[Truth, ...]]
    pairs: dict[str, Pairs]

    @classmethod
    def of(cls, world: World) -> Facts:
        """Measures everything."""
        count, visibility = len(world.objects), Visibility.of(world)
        contacts = {(i, j): _contact(world, visibility, i, j) for j in range(count) for i in range(j)}
        pairs = {
            "collides with": _pairs(count, lambda i, j: contacts[min(i, j), max(i, j)][0]),
            "bounces off": _pairs(count, lambda i, j: contacts[min(i, j), max(i, j)][1]),
            "covered by": _pairs(count, lambda i, j: _covered(visibility, i, j)),
        }
        paths = world.picture_paths()
        for place in PLACES:
            pairs[place] = _pairs(count, partial(_stands, world, paths, visibility, place))

        tracks = Track.of(world, visibility)
        single: dict[str, tuple[Truth, ...]] = {
            action: tuple(track.does(action) for track in tracks) for action in ACTIONS
        }
        single["collides"] = tuple(_any(row) for row in pairs["collides with"])
        single["bounces"] = tuple(_any(row) for row in pairs["bounces off"])
        # What bounces back has turned around, but who would call it so?
        single["turns"] = tuple(
            turns if turns is False or bounces is False else None
            for turns, bounces in zip(single["turns"], single["bounces"], strict=True)
        )
        return cls(single, pairs)


def _pairs(count: int, truth: Callable[[int, int], Truth]) -> Pairs:
    return tuple(tuple(i != j and truth(i, j) for j in range(count)) for i in range(count))


def _any(truths: tuple[Truth, ...]) -> Truth:
    """Kleene's or."""
    return True if True in truths else None if None in truths else False


def _contact(world: World, visibility: Visibility, i: int, j: int) -> tuple[Truth, Truth]:
    """Whether two objects collide, and whether they bounce off each other.

    Passing over something is no bounce, but might be called a collision.
    """
    first, second = world.objects[i], world.objects[j]
    ways = world.scene_paths()[[i, j]]
    gaps = gap(first, second, ways[1] - ways[0])
    if gaps.min() > NEAR:
        return False, False
    steps = np.diff(ways, axis=1)
    back = (steps[:, :-1] * steps[:, 1:]).sum(axis=2) < 0  # whether they go back after frames 1 .. T - 2
    soon = [np.convolve(turns, np.ones(3), mode="same") > 0 for turns in back]  # a frame before or after
    if not (soon[0] & soon[1] & (gaps[1:-1] <= NEAR)).any():
        return None, False
    t = int(gaps.argmin())
    hit = abs(gaps[t]) <= TOUCH and visibility.visible[[i, j], t].min() >= 0.5
    return (True, True) if hit and _part(ways, t) else (None, None)


def _part(ways: FloatArray, t: int) -> bool:
    """Whether two ways `(2, T, 2)` lead towards each other up to frame t, and apart from there on."""
    if not 0 < t < ways.shape[1] - 1:
        return False
    apart = ways[0, t] - ways[1, t]
    before, after = ways[:, t - 1] - ways[:, t], ways[:, t + 1] - ways[:, t]
    away = np.stack([before, after]) * np.array([1, -1])[:, None]  # the second's way turned round
    along = (away * apart).sum(axis=2)
    return bool((along >= 0.8 * np.sqrt((away**2).sum(axis=2) * (apart**2).sum())).all() and (along > 0).all())


def _covered(visibility: Visibility, i: int, j: int) -> Truth:
    """Whether the second object comes before the first, which can be seen free of it too."""
    behind, covered = visibility.behind[:, i, j], visibility.covered[:, i, j]
    if behind.max() <= 0.01:
        return False
    much = covered[visibility.inside[i] >= 0.8].max(initial=0.0) >= 0.35
    return True if much and (behind <= 0.02).mean() >= 0.3 else None


def _stands(world: World, paths: FloatArray, visibility: Visibility, place: Place, i: int, j: int) -> Truth:
    """Whether the first object is on that side of the second in every frame."""
    toward = np.array(DIRECTIONS[_TOWARDS[place]], dtype=np.float64)
    apart = paths[i] - paths[j]
    ahead = (apart * toward).sum(axis=1)
    if ahead.max() <= 0.02:
        return False
    aside = np.abs(apart * (toward == 0)).sum(axis=1)
    width = (world.objects[i].side + world.objects[j].side) / 2
    clear = (ahead >= width + TOUCH).all() and (aside <= BESIDE * ahead).all()
    inside, visible = visibility.inside[[i, j]], visibility.visible[[i, j]]
    shown = inside.min() >= 0.5 and ((visible >= 0.25).mean(axis=1) >= 0.8).all()
    return True if clear and shown else None
