"""What a single object does, measured on its way and on what can be seen of it.

An answer is True, False, or None where people might disagree: that which goes up and comes down again
"moves up" for some. Lengths are in short sides of the frame; motion is relative to the scene.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fiftyone_refvos.demo.motion import DIRECTIONS
from fiftyone_refvos.demo.visibility import Visibility
from fiftyone_refvos.demo.world import FloatArray, World

Truth = bool | None

Action = Literal[
    "still",
    "left",
    "right",
    "up",
    "down",
    "stops",
    "starts",
    "turns",
    "circles",
    "leaves",
    "enters",
    "returns",
]

ACTIONS: tuple[Action, ...] = get_args(Action)

STANDS, MOVES = 0.01, 0.2
"""Ways up to the first length are no motion, ways from the second on are."""

ONE_WAY = 0.15
"""That which moves left also moves a little up; so much of its way at most is not worth a word."""

PAUSE = 0.25
"""Standing still for this part of the video, before or after moving, is seen by everyone."""


class Track:
    """The way of one object over T frames.

    Attributes:
        way: `(T, 2)` centre in the scene
        inside, visible: `(T,)` parts of its area in the picture, and not hidden
        steps: `(T - 1, 2)` from frame to frame
        moving: `(T - 1,)` steps that are not standing still
        length: of the whole way
    """

    def __init__(self, way: FloatArray, inside: FloatArray, visible: FloatArray) -> None:
        self.way, self.inside, self.visible = way, inside, visible
        self.steps = np.diff(way, axis=0)
        speed = np.sqrt((self.steps**2).sum(axis=1))
        self.length = float(speed.sum())
        self.moving: NDArray[np.bool_] = (speed > 0.1 * speed.max()) & (self.length > STANDS)

    @staticmethod
    def of(world: World, visibility: Visibility) -> list[Track]:
        """The tracks of all objects."""
        return [
            Track(*parts) for parts in zip(world.scene_paths(), visibility.inside, visibility.visible, strict=True)
        ]

    def does(self, action: Action) -> Truth:
        """Whether the object does this."""
        return _ANSWERS[action](self) if action in _ANSWERS else self._moves(action)

    @property
    def seen_throughout(self) -> bool:
        """Whether nothing that the object does can be missed."""
        return bool((self.visible >= 0.4).mean() >= 0.85 and self.inside.min() >= 0.5)

    @property
    def seen_where_inside(self) -> bool:
        """Whether the object can be seen nearly always while it is in the picture."""
        return bool((self.visible[self.inside >= 0.5] >= 0.4).mean() >= 0.8)

    @property
    def turning(self) -> FloatArray:
        """Angles between the directions of successive moving steps, in (-pi, pi]."""
        x, y = self.steps[self.moving].T
        return np.arctan2(x[:-1] * y[1:] - y[:-1] * x[1:], x[:-1] * x[1:] + y[:-1] * y[1:])

    @property
    def drop(self) -> float:
        """By how much of its area the object leaves the picture at most."""
        return float((np.maximum.accumulate(self.inside) - self.inside).max())

    @property
    def rise(self) -> float:
        """By how much of its area the object comes into the picture at most."""
        return float((self.inside - np.minimum.accumulate(self.inside)).max())

    @property
    def pauses(self) -> tuple[float, float, int]:
        """Parts of the video before the first and after the last moving step; number of pauses between."""
        where = np.flatnonzero(self.moving)
        count = len(self.moving)
        standing = int(where[-1] - where[0] + 1 - len(where))
        return float(where[0] / count), float((count - 1 - where[-1]) / count), standing

    def _moves(self, direction: str) -> Truth:
        ahead = self.way @ np.array(DIRECTIONS[direction], dtype=np.float64)
        gained = float((ahead - np.minimum.accumulate(ahead)).max())
        if gained <= max(2 * STANDS, ONE_WAY * self.length):
            return False
        when = np.flatnonzero(self.visible >= 0.4)
        first, last = when[0], when[-1]
        gained = float(ahead[last] - ahead[first])
        aside = np.sqrt(max(((self.way[last] - self.way[first]) ** 2).sum() - gained**2, 0))
        shown = len(when) >= 0.8 * (last - first + 1) and len(when) >= 0.3 * len(ahead)
        straight = gained >= MOVES and aside <= 0.25 * gained and np.diff(ahead).min() >= -STANDS / 10
        return True if shown and straight else None


def _still(track: Track) -> Truth:
    if track.length >= MOVES:
        return False
    return True if track.length <= STANDS and track.seen_throughout else None


def _stops(track: Track) -> Truth:
    if track.length <= STANDS:
        return False
    before, after, between = track.pauses
    if after == 0 and between <= 1:  # turning round takes a moment, which is no stop
        return False
    clear = before == 0 and after >= PAUSE and between == 0 and track.length >= MOVES
    return True if clear and track.seen_throughout else None


def _starts(track: Track) -> Truth:
    if track.length <= STANDS:
        return False
    before, after, between = track.pauses
    if before == 0 and between <= 1:
        return False
    clear = before >= PAUSE and after == 0 and between == 0 and track.length >= MOVES
    return True if clear and track.seen_throughout else None


def _turns(track: Track) -> Truth:
    turning = np.abs(track.turning)
    if turning.sum() <= np.pi / 3:
        return False
    sharp = np.flatnonzero(turning > np.deg2rad(150))
    if len(sharp) != 1 or turning.sum() - turning[sharp[0]] > np.pi / 6:
        return None
    where = np.flatnonzero(track.moving)[sharp[0]] + 1  # the frame at which it turns
    there, back = track.way[where] - track.way[0], track.way[-1] - track.way[where]
    far = min(float((there**2).sum()), float((back**2).sum())) >= (0.75 * MOVES) ** 2
    return True if far and track.visible[where] >= 0.5 and track.seen_throughout else None


def _circles(track: Track) -> Truth:
    total = np.cumsum(track.turning)
    round_trip = float(np.ptp(total)) if len(total) else 0.0
    if round_trip <= np.deg2rad(200):
        return False
    return True if abs(total[-1]) >= np.deg2rad(320) and track.seen_throughout else None


def _leaves(track: Track) -> Truth:
    if track.drop <= 0.4:
        return False
    clear = track.inside[0] >= 0.8 and track.inside[-1] <= 0.02 and track.rise <= 0.1
    return True if clear and track.seen_where_inside else None


def _enters(track: Track) -> Truth:
    if track.rise <= 0.4:
        return False
    clear = track.inside[0] <= 0.02 and track.inside[-1] >= 0.8 and track.drop <= 0.1
    return True if clear and track.seen_where_inside else None


def _returns(track: Track) -> Truth:
    if track.drop <= 0.4 or track.rise <= 0.4:
        return False
    away = int((track.inside <= 0.02).sum())
    clear = track.inside[0] >= 0.8 and away >= 2 and track.inside[-1] >= 0.8
    return True if clear and track.seen_where_inside else None


_ANSWERS: dict[Action, Callable[[Track], Truth]] = {
    "still": _still,
    "stops": _stops,
    "starts": _starts,
    "turns": _turns,
    "circles": _circles,
    "leaves": _leaves,
    "enters": _enters,
    "returns": _returns,
}
