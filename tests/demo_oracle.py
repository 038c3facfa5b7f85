"""Reads the demo world's expressions as a person would, from the text and the recorded ways alone.

Written apart from the generator: it shares none of its facts or thresholds, parses the English sentence, and
decides with one plain yes or no per object.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np

from fiftyone_refvos.demo import DemoObject, DemoVideo, World
from fiftyone_refvos.demo.render import render_masks

_PHRASE = r"(?:(?P<size{0}>small|large) )?(?:(?P<color{0}>red|orange|yellow|green|blue|purple|white|black) )?"
_NOUN = r"(?P<noun{0}>circle|square|triangle|star|cross|moon|shape)(?P<plural{0}>e?s)?"
SENTENCE = re.compile(
    r"(?P<article>the two|the|all) "
    + (_PHRASE + _NOUN).format("")
    + r"(?: (?P<relation>left of|right of|above|below|"
    + r"that (?:gets? partly covered by|collides? with|bounces? off)) the "
    + (_PHRASE + _NOUN).format("_2")
    + r"| that (?P<action>.+))?"
)

Position = np.ndarray  # (T, 2), x to the right, y down


def meant(video: DemoVideo, text: str) -> tuple[str, ...]:
    """The ids of all objects that the expression means."""
    sentence = SENTENCE.fullmatch(text)
    assert sentence, f"not understood: {text!r}"
    parts = sentence.groupdict()
    things = video.objects
    found = [i for i, thing in enumerate(things) if _looks(thing, parts, "")]
    if parts["relation"]:
        landmarks = [i for i, thing in enumerate(things) if _looks(thing, parts, "_2")]
        assert len(landmarks) == 1, f"the landmark of {text!r} is not unique"
        found = [i for i in found if i != landmarks[0] and _related(video, parts["relation"], i, landmarks[0])]
    elif parts["action"]:
        found = [i for i in found if _acts(video, parts["action"], i)]
    assert bool(parts["plural"]) == (len(found) > 1), f"wrong number in {text!r}"
    assert parts["article"] != "the two" or len(found) == 2
    return tuple(things[i].id for i in found)


def _looks(thing: DemoObject, parts: dict[str, str | None], which: str) -> bool:
    size, color, noun = (parts[f"{name}{which}"] for name in ("size", "color", "noun"))
    return size in (None, thing.size) and color in (None, thing.color) and noun in ("shape", thing.shape)


def _related(video: DemoVideo, relation: str, i: int, j: int) -> bool:
    paths = video.world.picture_paths()
    dx, dy = (paths[i] - paths[j]).T
    if "covered" in relation:
        return i < j and _hidden(video, i, j) > 0.15
    if relation.startswith("that"):
        return _bounce(video, i, j)
    return bool({"left of": -dx, "right of": dx, "above": -dy, "below": dy}[relation].min() > 0.05)


def _hidden(video: DemoVideo, i: int, j: int) -> float:
    """The largest part of an object that another hides, from exact masks of worlds with these two alone."""
    world, largest = video.world, 0.0
    alone: World = replace(world, objects=(world.objects[i],))
    pair: World = replace(world, objects=(world.objects[i], world.objects[j]))
    for t in range(len(video)):
        whole = int(render_masks(alone, t).sum())
        if whole:
            largest = max(largest, 1 - int(render_masks(pair, t)[0].sum()) / whole)
    return largest


def _bounce(video: DemoVideo, i: int, j: int) -> bool:
    """Whether both turn back in the same frame, where they are closest to each other and touch."""
    first, second = video.world.scene_paths()[[i, j]]
    t = int(np.linalg.norm(first - second, axis=1).argmin())
    return t in _reversals(first) and t in _reversals(second) and _gap(video, i, j, t) < 0.045


def _gap(video: DemoVideo, i: int, j: int, t: int) -> float:
    """The smallest distance of two pixels of two objects, each drawn alone and large, in short sides."""
    config = replace(video.config, height=2 * video.config.height, width=2 * video.config.width)
    alone = [replace(video.world, config=config, objects=(video.objects[k],)) for k in (i, j)]
    first, second = (np.argwhere(render_masks(world, t)[0]) for world in alone)
    distances = np.linalg.norm(first[:, None] - second[None], axis=2) if len(first) and len(second) else np.inf
    return float(np.min(distances)) / config.short_side


def _reversals(way: Position) -> list[int]:
    steps = np.diff(way, axis=0)
    return [t + 1 for t in range(len(steps) - 1) if steps[t] @ steps[t + 1] < 0]


def _acts(video: DemoVideo, action: str, i: int) -> bool:
    for pattern, test in ACTIONS.items():
        if re.fullmatch(pattern, action):
            return test(video, i)
    raise AssertionError(f"not understood: {action!r}")


def _way(video: DemoVideo, i: int) -> Position:
    return video.world.scene_paths()[i]


def _in_picture(video: DemoVideo, i: int) -> np.ndarray:
    """`(T,)` whether the centre is in the picture."""
    place, extent = video.world.picture_paths()[i], np.array(video.config.extent)
    return ((place > 0) & (place < extent)).all(axis=1)


def _goes(x: float, y: float) -> Callable[[DemoVideo, int], bool]:
    def test(video: DemoVideo, i: int) -> bool:
        way = _way(video, i)[_in_picture(video, i)]
        dx, dy = way[-1] - way[0]
        ahead, aside = dx * x + dy * y, abs(dx * y) + abs(dy * x)
        return bool(ahead > 0.15 and aside < 0.5 * ahead)

    return test


def _still(video: DemoVideo, i: int) -> bool:
    return bool(np.ptp(_way(video, i), axis=0).max() < 0.05)


def _stands_at(part: slice, video: DemoVideo, i: int) -> bool:
    """Whether it stands still in this fifth of the video, but not always."""
    return not _still(video, i) and bool(np.ptp(_way(video, i)[part], axis=0).max() < 0.01)


def _stops(video: DemoVideo, i: int) -> bool:
    return _stands_at(slice(-max(3, len(video) // 5), None), video, i)


def _starts(video: DemoVideo, i: int) -> bool:
    return _stands_at(slice(0, max(3, len(video) // 5)), video, i)


def _turns(video: DemoVideo, i: int) -> bool:
    reversals = _reversals(_way(video, i))
    return len(reversals) == 1 and bool(_in_picture(video, i)[reversals[0]]) and not _bounces(video, i)


def _circles(video: DemoVideo, i: int) -> bool:
    """Whether its way goes round a large area."""
    x, y = _way(video, i).T
    return bool(abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2 > 0.025)


def _bounces(video: DemoVideo, i: int) -> bool:
    return any(_bounce(video, i, j) for j in range(len(video.objects)) if j != i)


def _presence(*wanted: bool) -> Callable[[DemoVideo, int], bool]:
    """Whether it is in the picture, then out of it, and so on."""

    def test(video: DemoVideo, i: int) -> bool:
        inside = _in_picture(video, i)
        changes = [bool(inside[0]), *(bool(b) for a, b in pairwise(inside) if a != b)]
        return changes == list(wanted)

    return test


ACTIONS: dict[str, Callable[[DemoVideo, int], bool]] = {
    r"(does|do) not move|stays? in (its place|their places)": _still,
    r"(moves?|goes|go)( to the)? left": _goes(-1, 0),
    r"(moves?|goes|go)( to the)? right": _goes(1, 0),
    r"moves? up|goe?s? upwards": _goes(0, -1),
    r"moves? down|goe?s? downwards": _goes(0, 1),
    r"stops?|moves? and then stands? still": _stops,
    r"stands? still and then moves?|starts? to move later": _starts,
    r"turns? around|moves? away and comes? back the same way": _turns,
    r"(moves?|goe?s? round) in a circle": _circles,
    r"leaves? the picture|goe?s? out of the picture": _presence(True, False),
    r"(enters?|comes? into) the picture": _presence(False, True),
    r"leaves? the picture and comes? back": _presence(True, False, True),
    r"collides with another shape|collide|bounces off another shape|bounce off each other": _bounces,
}
