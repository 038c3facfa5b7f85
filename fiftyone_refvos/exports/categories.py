"""Expressions as the categories of formats that know classes of objects alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fiftyone_refvos.datasets.records import UNNAMED, ExpressionRecord, ObjectRecord
from fiftyone_refvos.exports.records import Exported


@dataclass(frozen=True)
class Role:
    """One object under one name.

    Attributes:
        category: the text of the expression; without one the category that the dataset knows of it, or "object"
        object: which has a pixel in some frame
        expression: the first one of the video with that text; None if none names the object
    """

    category: str
    object: ObjectRecord
    expression: ExpressionRecord | None


def roles(exported: Exported) -> list[Role]:
    """Every object of a video under the text of every expression that names it, or of what kind it is.

    Where several expressions have the same text, an object has one role under it, and so have objects with equal
    masks: evaluators would want them found twice.
    """
    found = [
        Role(expression.text or UNNAMED, thing, expression)
        for expression in exported.expressions
        for thing in exported.objects_of(expression)
    ]
    naming, objects = exported.expressions_by_object(), exported.objects
    found += [
        Role(objects[id_].category or UNNAMED, objects[id_], None) for id_, named in naming.items() if not named
    ]
    unique: dict[tuple[Any, ...], Role] = {}
    for role in found:
        pixels = tuple(None if rle is None else rle["counts"] for rle in role.object.masks)
        if any(pixels):
            unique.setdefault((role.category, pixels), role)
    return list(unique.values())


class Categories:
    """The numbers of the names in a dataset, from 1, in the order in which they come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def number(self, name: str) -> int:
        """The number of a name."""
        return self._numbers.setdefault(name, len(self._numbers) + 1)

    def listed(self) -> list[dict[str, Any]]:
        """The `categories` of COCO and YouTube-VIS."""
        return [{"id": id_, "name": name, "supercategory": "object"} for name, id_ in self._numbers.items()]
