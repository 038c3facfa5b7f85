"""Masks of objects that get, or lose, expressions: which detections say so, and which object each belongs to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import count
from typing import Any

import fiftyone as fo
from bson import ObjectId

from fiftyone_refvos.datasets.records import UNNAMED
from fiftyone_refvos.fields.objects import identity_of
from fiftyone_refvos.fields.samples import FieldError, Place, RawLabel, locate, read_frames, write_frames


def number_objects(sample: fo.Sample, field: str) -> bool:
    """Gives the masks without `object_id` one: the next free numbers, by their `index` or `instance`.

    Args:
        sample: a sample of a dataset or a view
        field: the label field, without `frames.`

    Returns:
        whether there were any

    Raises:
        FieldError: if a frame holds an object twice, before anything is written
    """
    place = locate(sample)
    frames = _detections(read_frames(place, field))
    _check_single(place, field, frames)
    known = {str(each["object_id"]) for label in frames.values() for each in label if _has_id(each)}
    free = (str(number) for number in count(1 + max((int(id_) for id_ in known if id_.isdecimal()), default=0)))
    ids: dict[tuple[object, ...], str] = {}
    changed: dict[int, RawLabel] = {}
    for number, detections in frames.items():
        if all(map(_has_id, detections)):
            continue
        for position, each in enumerate(detections):
            if not _has_id(each):
                identity = identity_of(each, position)
                if identity not in ids:
                    ids[identity] = next(free)
                each["object_id"] = ids[identity]
        changed[number] = {"_cls": "Detections", "detections": detections}
    if changed:
        write_frames(place, field, changed)
    return bool(changed)


def name_masks(
    sample: fo.Sample, field: str, object_id: str, texts: Mapping[str, str], dropped: Collection[str] = ()
) -> None:
    """Makes the masks of an object say which expressions name it: one detection per frame for each.

    A mask that no expression named gets the first one; copies of it get the others. What the mask was called before
    is kept as its `category`. Done twice it is the same.

    Args:
        sample: a sample of a dataset or a view
        field: the label field, without `frames.`
        object_id: of the object
        texts: of the expressions that name it from now on, by id; those that name it already stay
        dropped: ids of expressions that name it no longer; an object that none names keeps its masks
    """
    place = locate(sample)
    stored = read_frames(place, field)
    frames = _detections(stored)
    tracks = _Tracks(frames, object_id, dropped)
    changed: dict[int, RawLabel] = {}
    for number, detections in frames.items():
        own = [each for each in detections if each.get("object_id") == object_id]
        if not own:
            continue
        others = [each for each in detections if each.get("object_id") != object_id]
        label = [*others, *_renamed(own, texts, dropped, tracks)]
        label.sort(key=lambda each: each.get("index") or 0)
        if label != sorted(detections, key=lambda each: each.get("index") or 0):
            changed[number] = {**(stored[number] or {}), "detections": label}
    if changed:
        write_frames(place, field, changed)


class _Tracks:
    """The `index` and `instance` of the detections of an object, which are the same in all frames."""

    def __init__(self, frames: Mapping[int, list[RawLabel]], object_id: str, dropped: Collection[str]) -> None:
        self._tracks: dict[object, tuple[int, Any]] = {}
        every = [each for detections in frames.values() for each in detections]
        self._indices = count(1 + max((each.get("index") or 0 for each in every), default=0))
        spare: dict[object, tuple[int, Any]] = {}
        for each in every:
            if each.get("object_id") == object_id:
                id_ = each.get("expression_id")
                known = spare if id_ is None or id_ in dropped else self._tracks
                if id_ not in known:
                    known[id_] = self._track(each.get("index"), each.get("instance"))
        self._free = list(spare.values())  # of masks that are named anew

    def of(self, expression_id: str | None) -> tuple[int, Any]:
        """Those of an expression; of None, those of a mask that no expression names."""
        if expression_id not in self._tracks:
            self._tracks[expression_id] = self._free.pop(0) if self._free else self._track(None, None)
        return self._tracks[expression_id]

    def _track(self, index: int | None, instance: Any) -> tuple[int, Any]:
        return next(self._indices) if index is None else index, instance or fo.Instance().to_dict()


def _renamed(
    own: list[RawLabel], texts: Mapping[str, str], dropped: Collection[str], tracks: _Tracks
) -> Iterator[RawLabel]:
    """The detections of an object in a frame, of which there is at least one."""
    kept = [each for each in own if each.get("expression_id") not in (None, *dropped)]
    spare = [each for each in own if each.get("expression_id") in (None, *dropped)]
    for each in kept:
        text = texts.get(each["expression_id"])
        yield each if text is None else {**each, "label": text}
    named = {each["expression_id"] for each in kept}
    for expression_id in [id_ for id_ in texts if id_ not in named]:
        index, instance = tracks.of(expression_id)
        template = spare.pop(0) if spare else {**(kept or own)[0], "_id": ObjectId()}
        yield {
            **template,
            "label": texts[expression_id],
            "expression_id": expression_id,
            "index": index,
            "instance": instance,
            "category": _category(template),
        }
    if not kept and not texts:
        index, instance = tracks.of(None)
        category = _category(own[0])
        yield {
            **own[0],
            "label": category or UNNAMED,
            "expression_id": None,
            "index": index,
            "instance": instance,
            "category": category,
        }


def _check_single(place: Place, field: str, frames: Mapping[int, list[RawLabel]]) -> None:
    """Raises a FieldError where an object has several masks in a frame: all but one would be lost."""
    for number, detections in frames.items():
        keys = Counter((identity_of(each, n), each.get("expression_id")) for n, each in enumerate(detections))
        for ((kind, value), _), times in keys.items():
            if times > 1:
                raise FieldError(
                    f"{place}: 'frames.{field}' has {times} masks of the object with the {kind} {value!r} in frame "
                    f"{number}: make them one mask, or give each object an object_id of its own"
                )


def _category(detection: RawLabel) -> str | None:
    """What kind of thing a mask shows; a mask that no expression names is labelled with it."""
    known: str | None = detection.get("category")
    if known is None and detection.get("expression_id") is None and detection.get("label") != UNNAMED:
        return detection.get("label")
    return known


def _detections(frames: Mapping[int, RawLabel | None]) -> dict[int, list[RawLabel]]:
    return {number: list(label["detections"]) for number, label in frames.items() if label is not None}


def _has_id(detection: RawLabel) -> bool:
    return detection.get("object_id") is not None
