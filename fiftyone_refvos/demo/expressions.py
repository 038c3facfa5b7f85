"""Referring expressions that are true and complete in a world, and expressions that nothing in it matches.

An expression says that something of a certain look (`Look`: size, colour, shape, each or none) fulfils a
clause (what it does, or how it stands to a landmark). Its objects are those for which both hold. It is used
only where the facts give a clear answer for every object of that look.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, get_args

import numpy as np

from fiftyone_refvos.demo.actions import Truth
from fiftyone_refvos.demo.facts import PLACES, Facts
from fiftyone_refvos.demo.world import Color, DemoObject, Shape, Size, World

Kind = Literal["attribute", "relation", "motion", "multi", "no_target"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SINGLE_TEXTS: dict[str, tuple[tuple[str, str], ...]] = {
    "still": (("does not move", "do not move"), ("stays in its place", "stay in their places")),
    "left": (("moves left", "move left"), ("goes to the left", "go to the left")),
    "right": (("moves right", "move right"), ("goes to the right", "go to the right")),
    "up": (("moves up", "move up"), ("goes upwards", "go upwards")),
    "down": (("moves down", "move down"), ("goes downwards", "go downwards")),
    "stops": (("stops", "stop"), ("moves and then stands still", "move and then stand still")),
    "starts": (
        ("stands still and then moves", "stand still and then move"),
        ("starts to move later", "start to move later"),
    ),
    "turns": (
        ("turns around", "turn around"),
        ("moves away and comes back the same way", "move away and come back the same way"),
    ),
    "circles": (
        ("moves in a circle", "move in a circle"),
        ("goes round in a circle", "go round in a circle"),
    ),
    "leaves": (
        ("leaves the picture", "leave the picture"),
        ("goes out of the picture", "go out of the picture"),
    ),
    "enters": (
        ("enters the picture", "enter the picture"),
        ("comes into the picture", "come into the picture"),
    ),
    "returns": (("leaves the picture and comes back", "leave the picture and come back"),),
    "collides": (("collides with another shape", "collide"),),
    "bounces": (("bounces off another shape", "bounce off each other"),),
}
"""What is said of one object and of several that do something."""

PAIR_TEXTS: dict[str, tuple[str, str]] = {
    **{place: (place, place) for place in PLACES},
    "collides with": ("that collides with", "that collide with"),
    "bounces off": ("that bounces off", "that bounce off"),
    "covered by": ("that gets partly covered by", "that get partly covered by"),
}
"""What stands between one object or several and the landmark."""


@dataclass(frozen=True, slots=True)
class Look:
    """How something looks; None where nothing is said."""

    size: Size | None = None
    color: Color | None = None
    shape: Shape | None = None

    def fits(self, thing: DemoObject) -> bool:
        """Whether an object looks so."""
        said = (self.size, thing.size), (self.color, thing.color), (self.shape, thing.shape)
        return all(want is None or want == have for want, have in said)

    def text(self, plural: bool = False) -> str:
        """The noun phrase without an article: "large red circle"."""
        noun: str = self.shape or "shape"
        if plural:
            noun += "es" if noun == "cross" else "s"
        return " ".join(word for word in (self.size, self.color, noun) if word)


@dataclass(frozen=True, slots=True)
class Clause:
    """What something does, or how it stands to the one object that looks like the landmark."""

    name: str
    landmark: Look | None = None

    def holds(self, world: World, facts: Facts) -> tuple[Truth, ...]:
        """For each object of the world whether this is true of it; None where people might disagree."""
        if self.landmark is None:
            return facts.single[self.name]
        marks = [j for j, thing in enumerate(world.objects) if self.landmark.fits(thing)]
        # "The star" says that there is one star.
        return tuple(row[marks[0]] if len(marks) == 1 else None for row in facts.pairs[self.name])


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an expression says: all objects of this look that fulfil the clause, if there is one."""

    look: Look
    clause: Clause | None = None

    def holds(self, world: World, facts: Facts) -> tuple[Truth, ...]:
        """For each object of the world whether it is meant; None where people might disagree."""
        clause = self.clause.holds(world, facts) if self.clause else (True,) * len(world.objects)
        return tuple(self.look.fits(thing) and truth for thing, truth in zip(world.objects, clause, strict=True))


@dataclass(frozen=True, slots=True)
class DemoExpression:
    """A referring expression of a video.

    Attributes:
        id: its position among the video's expressions as a string
        text: what is said
        kind: "attribute" (looks only), "relation", "motion", "multi" (several objects) or "no_target"
        object_ids: the objects that are meant, in the order of `World.objects`
        meaning: what the text says, in a form that can be evaluated
    """

    id: str
    text: str
    kind: Kind
    object_ids: tuple[str, ...]
    meaning: Meaning


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A usable meaning, and the objects that are meant.

    It is `hard` if neither look nor clause alone would mean the same objects.
    """

    meaning: Meaning
    kind: Kind
    indices: tuple[int, ...]
    hard: bool

    @property
    def topic(self) -> str:
        clause = self.meaning.clause
        return clause.name if clause else "look"

    def repeats(self, other: _Candidate) -> bool:
        """Whether it says the same of the same objects, in as many words or in others."""
        if self.meaning == other.meaning:
            return True
        same = self.meaning.clause == other.meaning.clause and self.indices == other.indices
        return same and not (self.kind == "no_target" and self.meaning.clause is None)


def write_expressions(rng: np.random.Generator, world: World, facts: Facts) -> tuple[DemoExpression, ...]:
    """At most `config.max_per_kind` expressions of each kind, no two of which say the same."""
    candidates = list(_candidates(world, facts))
    chosen: list[_Candidate] = []
    for kind in KINDS:
        pool = [candidate for candidate in candidates if candidate.kind == kind]
        chosen += _varied(_shuffled(rng, pool), world.config.max_per_kind)
    return tuple(
        DemoExpression(
            id=str(number),
            text=_text(rng, candidate.meaning, len(candidate.indices)),
            kind=candidate.kind,
            object_ids=tuple(world.objects[i].id for i in candidate.indices),
            meaning=candidate.meaning,
        )
        for number, candidate in enumerate(chosen)
    )


def _shuffled(rng: np.random.Generator, pool: Sequence[_Candidate]) -> list[_Candidate]:
    """Topics in random order, so that the topics with the most candidates do not win; and so within each."""
    topics = sorted({candidate.topic for candidate in pool})
    rank = dict(zip(topics, rng.random(len(topics)), strict=True))
    within = rng.random(len(pool))
    order = sorted(range(len(pool)), key=lambda k: (rank[pool[k].topic], within[k]))
    return [pool[k] for k in order]


def _varied(pool: Sequence[_Candidate], count: int) -> list[_Candidate]:
    """The first `count` candidates, those preferred that bring a new topic and new objects, and are hard."""
    chosen: list[_Candidate] = []
    while len(chosen) < count:
        topics = {candidate.topic for candidate in chosen}
        meant = {candidate.indices for candidate in chosen}
        rest = [candidate for candidate in pool if not any(candidate.repeats(other) for other in chosen)]
        if not rest:
            break
        chosen.append(max(rest, key=lambda c: (c.topic not in topics) + (c.indices not in meant) + c.hard))
    return chosen


def _candidates(world: World, facts: Facts) -> Iterator[_Candidate]:
    """Everything that can be said about the world, or about nothing in it, with a clear answer."""
    truths: dict[Clause | None, tuple[Truth, ...]] = {None: (True,) * len(world.objects)}
    truths |= {clause: clause.holds(world, facts) for clause in _clauses(world, facts)}
    for look in _looks(world):
        alike = [i for i, thing in enumerate(world.objects) if look.fits(thing)]
        for clause, truth in truths.items():
            if None in [truth[i] for i in alike] or not _sensible(world, clause, alike):
                continue
            indices = tuple(i for i in alike if truth[i])
            kind = _kind(look, clause, len(indices))
            if kind is not None:
                # Where nothing is meant, the clause is true of something else, lest its words give it away.
                hard = clause is None or (len(alike) > len(indices) and True in truth)
                yield _Candidate(Meaning(look, clause), kind, indices, hard)


def _sensible(world: World, clause: Clause | None, alike: Sequence[int]) -> bool:
    """Whether there is anything of the look, besides the landmark, that could fulfil the clause."""
    if clause is None:
        return True
    return any(clause.landmark is None or not clause.landmark.fits(world.objects[i]) for i in alike)


def _kind(look: Look, clause: Clause | None, count: int) -> Kind | None:
    """The kind of an expression that means `count` objects, None if nobody would say that."""
    if count == 0:
        return "no_target"
    if clause is None and look == Look():
        return None  # "all shapes"
    if count > 1:
        return "multi"
    if clause is None:
        return "attribute"
    return "relation" if clause.name in PLACES else "motion"


def _looks(world: World) -> list[Look]:
    """All combinations of the sizes, colours and shapes in the world, also those that no object has."""
    sizes, colors, shapes = (
        sorted({getattr(thing, name) for thing in world.objects}) for name in ("size", "color", "shape")
    )
    return [Look(*parts) for parts in product((None, *sizes), (None, *colors), (None, *shapes))]


def _clauses(world: World, facts: Facts) -> Iterator[Clause]:
    for name in facts.single:
        yield Clause(name)
    for thing in world.objects:
        landmark = _shortest_name(world, thing)
        if landmark is not None:
            for name in facts.pairs:
                yield Clause(name, landmark)


def _shortest_name(world: World, thing: DemoObject) -> Look | None:
    """The look with the fewest words that only this object has; None if it has a twin."""
    looks = [look for look in _looks(world) if [other for other in world.objects if look.fits(other)] == [thing]]
    looks = [look for look in looks if look.shape is not None] or looks
    return min(looks, key=lambda look: len(look.text().split()), default=None)


def _text(rng: np.random.Generator, meaning: Meaning, count: int) -> str:
    """The expression in words, in the plural if it means several objects."""
    plural = count > 1
    article = "the" if not plural else "the two" if count == 2 and rng.random() < 0.5 else "all"
    words = [article, meaning.look.text(plural)]
    clause = meaning.clause
    if clause is not None and clause.landmark is not None:
        words += [PAIR_TEXTS[clause.name][plural], "the", clause.landmark.text()]
    elif clause is not None:
        choices = SINGLE_TEXTS[clause.name]
        words += ["that", choices[int(rng.integers(len(choices)))][plural]]
    return " ".join(words)
