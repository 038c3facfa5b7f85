"""The annotated objects of a video, each once, also those that no expression names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import fiftyone as fo
import numpy as np

from fiftyone_refvos.fields.crops import paste
from fiftyone_refvos.fields.media import Size, canvas_of
from fiftyone_refvos.fields.reading import check_size, mask_of
from fiftyone_refvos.fields.samples import Place, RawLabel, locate, read_frames
from fiftyone_refvos.masklet import RLE, Expression, Masklet, encode

_SAME_BOX = 1e-6  # of the picture: rounding errors


@dataclass(frozen=True)
class ObjectTrack:
    """One object of a video.

    Attributes:
        object_id: as the detections have it, None where they have none
        expression_ids: of the expressions that name it
        masklet: its masks in the annotated frames, with one object; its text is the label of the object, its scores
            are the confidences, 1 where a detection has none
        anno_id: the number of its masks in the files that it was imported from
        category: what kind of thing it is, where the dataset says so
        identity: what tells it from other objects: the name of an attribute, and its value
    """

    object_id: str | None
    expression_ids: frozenset[str]
    masklet: Masklet
    anno_id: str | None = None
    category: str | None = None
    identity: tuple[object, ...] = ()


def read_objects(
    sample: fo.Sample,
    name: str,
    size: Size,
    *,
    detection_ids: Collection[str] | None = None,
    exact: bool = False,
) -> list[ObjectTrack]:
    """Reads every object of a field of masks once, however many expressions name it.

    Detections with the same `object_id` are the same object; without one, `index`, then `instance` tell
    objects apart. Where expressions count their objects for themselves, as masklets of models do, the same id
    stands for different objects: two expressions name the same one if it has the same masks in the same frames.

    Args:
        sample: a sample of a dataset or a view
        name: the field, without `frames.`
        size: (H, W) of the frames, as masklets of the sample have it
        detection_ids: only these detections; all by default
        exact: refuse a mask that does not have the size of its box, which is stretched to it otherwise

    Raises:
        FieldError: for boxes without masks, and with `exact` for masks of other sizes
    """
    place = locate(sample)
    canvas, empty = canvas_of(place, size), encode(np.zeros((1, *size), dtype=bool))[0]
    frames = {
        number: label["detections"]
        for number, label in sorted(read_frames(place, name).items())
        if label is not None and place.contains(number)
    }
    by_expression: dict[tuple[tuple[object, ...], object], _Found] = {}
    for number, detections in frames.items():
        for position, detection in enumerate(detections):
            if detection_ids is not None and str(detection["_id"]) not in detection_ids:
                continue
            if exact:
                check_size(place, name, number, detection, mask_of(place, detection), canvas)
            expression_id = detection.get("expression_id")
            key = (identity_of(detection, position), expression_id)
            naming = set() if expression_id is None else {str(expression_id)}
            by_expression.setdefault(key, _Found(naming)).detections.setdefault(number, detection)
    objects: dict[tuple[object, ...], list[_Found]] = {}
    for (identity, _), found in by_expression.items():
        same = objects.setdefault(identity, [])
        known = next((each for each in same if each.agrees(found, place)), found)
        known.detections = found.detections | known.detections
        known.expression_ids |= found.expression_ids
        if known is found:
            same.append(found)
    numbers = list(frames)
    return [
        found.finish(place, identity, numbers, size, canvas, empty)
        for identity, same in objects.items()
        for found in same
    ]


def identity_of(detection: Mapping[str, object], position: int) -> tuple[object, ...]:
    """What tells the object of a raw detection from others."""
    for name in ("object_id", "index"):
        if detection.get(name) is not None:
            return name, detection[name]
    instance = detection.get("instance")
    return ("instance", str(instance["_id"])) if isinstance(instance, dict) else ("position", position)


@dataclass
class _Found:
    """An object while its detections are gathered."""

    expression_ids: set[str]
    detections: dict[int, RawLabel] = field(default_factory=dict)

    def agrees(self, other: _Found, place: Place) -> bool:
        """Whether both have the same masks; what no expression names may have some in other frames."""
        if self.expression_ids and other.expression_ids and self.detections.keys() != other.detections.keys():
            return False
        shared = self.detections.keys() & other.detections.keys()
        return all(_same_mask(place, self.detections[number], other.detections[number]) for number in shared)

    def finish(
        self, place: Place, identity: tuple[object, ...], numbers: list[int], size: Size, canvas: Size, empty: RLE
    ) -> ObjectTrack:
        first = next(iter(self.detections.values()))
        object_id = first.get("object_id")
        masks = []
        scores = np.zeros((len(numbers), 1), dtype=np.float32)
        for t, number in enumerate(numbers):
            detection = self.detections.get(number)
            if detection is None:
                masks.append((empty,))
            else:
                masks.append((paste(mask_of(place, detection), detection["bounding_box"], canvas, size),))
                scores[t] = 1.0 if detection.get("confidence") is None else detection["confidence"]
        masklet = Masklet(
            expression=Expression(str(object_id), first.get("label") or ""),
            size=size,
            frames=tuple(number - place.first for number in numbers),
            masks=tuple(masks),
            scores=scores,
            found=np.array([number in self.detections for number in numbers], dtype=bool),
        )
        return ObjectTrack(
            object_id,
            frozenset(self.expression_ids),
            masklet,
            first.get("anno_id"),
            first.get("category"),
            identity,
        )


def _same_mask(place: Place, mine: RawLabel, its: RawLabel) -> bool:
    pairs = zip(mine["bounding_box"], its["bounding_box"], strict=True)
    if any(abs(a - b) >= _SAME_BOX for a, b in pairs):
        return False
    # What one writer has written of one mask is the same to the byte, and need not be unpacked.
    if mine.get("mask") is not None and mine.get("mask") == its.get("mask"):
        return True
    return np.array_equal(mask_of(place, mine), mask_of(place, its))
