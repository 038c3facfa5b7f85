"""One video or image on its way into a format, and what every format asks of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from fiftyone_refvos.datasets.masks import union
from fiftyone_refvos.datasets.records import Annotations, ExpressionRecord, Masks, MediaRecord, ObjectRecord, Size
from fiftyone_refvos.masklet import RLE, encode


@dataclass(frozen=True)
class Exported:
    """One video or image with its masks.

    Attributes:
        record: names, pictures and expressions; the name is unique in its split. Where an expression has
            `object_ids` None, nobody has looked for it
        annotations: the masks; the ids of objects are unique
        stems: the names of the T frames, without suffix
    """

    record: MediaRecord
    annotations: Annotations
    stems: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the video or image; may contain slashes."""
        return self.record.name

    @property
    def annotated(self) -> frozenset[int]:
        """Indices from 0 of the annotated frames."""
        known = self.annotations.annotated
        return frozenset(range(len(self.stems))) if known is None else known

    def annotated_of(self, thing: ObjectRecord) -> frozenset[int]:
        """Indices from 0 of the frames in which an object was annotated, which may be fewer than of the video."""
        if thing.annotated is not None:
            return thing.annotated
        naming = [self.covered(each) for each in self.expressions if thing.id in (each.object_ids or ())]
        return frozenset().union(*naming) if naming else self.annotated

    def covered(self, expression: ExpressionRecord) -> frozenset[int]:
        """Indices from 0 of the frames for which the masks of an expression are known."""
        if expression.object_ids is None:
            return frozenset()
        return self.annotated if expression.covered is None else expression.covered & self.annotated

    @property
    def expressions(self) -> list[ExpressionRecord]:
        """Those whose objects are known, also as none."""
        return [each for each in self.record.expressions if each.object_ids is not None]

    @property
    def unknown(self) -> list[ExpressionRecord]:
        """Those that nobody has looked for; formats for training leave them out."""
        return [each for each in self.record.expressions if each.object_ids is None]

    @property
    def objects(self) -> dict[str, ObjectRecord]:
        """The objects by id."""
        return {thing.id: thing for thing in self.annotations.objects}

    def objects_of(self, expression: ExpressionRecord) -> list[ObjectRecord]:
        """What an expression means, [] also where nobody knows."""
        objects = self.objects
        return [objects[id_] for id_ in expression.object_ids or ()]

    def union_of(self, expression: ExpressionRecord) -> Masks:
        """The logical or of all objects of an expression, `(T,)`, None where it is empty."""
        objects = self.objects_of(expression)
        return tuple(union(thing.masks[t] for thing in objects) for t in range(len(self.stems)))

    def expressions_by_object(self) -> dict[str, list[ExpressionRecord]]:
        """The expressions that name each object, [] for those that none names."""
        naming: dict[str, list[ExpressionRecord]] = {thing.id: [] for thing in self.annotations.objects}
        for expression in self.record.expressions:
            for id_ in expression.object_ids or ():
                naming[id_].append(expression)
        return naming


def json_rle(rle: RLE) -> dict[str, object]:
    """A mask as JSON files have it: with counts as text."""
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def empty_rle(size: Size) -> RLE:
    """A mask without pixels, for formats that have one in every frame."""
    return encode(np.zeros((1, *size), dtype=bool))[0]


class Numbers:
    """Whole numbers as ids, unique in a file: those that a dataset had where possible, else the next free ones."""

    def __init__(self, first: int = 0) -> None:
        self._next = first
        self._taken: set[int] = set()

    def take(self, wanted: object = None) -> int:
        """The wanted number, if it is one and free, else another."""
        number = _number(wanted)
        if number is None or number in self._taken:
            while self._next in self._taken:
                self._next += 1
            number = self._next
        self._taken.add(number)
        return number


def object_numbers(objects: Iterable[ObjectRecord], first: int) -> dict[str, int]:
    """Whole numbers for the objects of a video: their ids if all are such numbers, else counted from `first`."""
    ids = [thing.id for thing in objects]
    numbers = [_number(id_) for id_ in ids]
    if None in numbers or len(set(numbers)) < len(ids) or any(n is not None and n < first for n in numbers):
        return {id_: n for n, id_ in enumerate(ids, start=first)}
    return {id_: int(id_) for id_ in ids}


def _number(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return int(value) if isinstance(value, str) and value.isascii() and value.isdecimal() else None
