"""Answers of models about samples: texts, the masks of what they name, and captions of marked regions."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import fiftyone as fo
from pycocotools import mask as coco_mask

from fiftyone_refvos.fields.crops import paste, to_detection
from fiftyone_refvos.fields.media import Size, canvas_of, num_frames
from fiftyone_refvos.fields.reading import mask_of
from fiftyone_refvos.fields.samples import FieldError, Place, RawLabel, locate, read_label, root_dataset, write_frames
from fiftyone_refvos.fields.schema import declare, declare_detections, masklet_path
from fiftyone_refvos.masklet import Masklet
from fiftyone_refvos.models.sa2va.regions import Box, Points, Region

_MARKER = "True where a text is to be replaced"
"""The description of the fields that say so, by which they are told from fields of users with the same name."""

# Where the labels lie in a field that marks regions.
_MARKS: dict[type[fo.Label], str] = {fo.Detections: "detections", fo.Keypoints: "keypoints"}


def declare_answers(samples: fo.Dataset | fo.DatasetView, field: str, label_field: str | None) -> None:
    """Declares a text of each sample, and labels of what the text names.

    Raises:
        FieldError: if one of the fields holds something else
    """
    dataset = root_dataset(samples)
    declare_text(dataset, field)
    if label_field is not None:
        declare_detections(dataset, masklet_path(dataset, label_field))


def declare_text(dataset: fo.Dataset, path: str) -> None:
    """Declares a text of each sample, or of each label, unless it is declared.

    Raises:
        FieldError: if the path holds something else
    """
    declare(dataset, path, fo.StringField)


def is_in_use(dataset: fo.Dataset, path: str) -> bool:
    """Whether a field or an attribute of labels is declared, or any label has it undeclared."""
    if dataset.get_field(path) is not None:
        return True
    labels, _, attribute = path.rpartition(".")
    found = {labels: {"$elemMatch": {attribute: {"$ne": None}}}}
    return bool(labels) and dataset._sample_collection.find_one(found) is not None


def check_marker(dataset: fo.Dataset, path: str) -> None:
    """Makes sure that nobody else uses the field in which texts at a path are marked as to be replaced.

    Raises:
        FieldError: if somebody does
    """
    marker = _outdated(path)
    if is_in_use(dataset, marker) and getattr(dataset.get_field(marker), "description", None) != _MARKER:
        raise FieldError(
            f"dataset {dataset.name!r}: {marker!r} is where answers in {path!r} are marked as to be replaced, but it "
            "holds something else: rename it, or choose another name for the answers"
        )


def has_answer(sample: fo.Sample, field: str) -> bool:
    """Whether a sample has a text, be it empty, in a field, and it is not outdated."""
    text, outdated = locate(sample).values(field, _outdated(field))
    return text is not None and not outdated


def write_answer(sample: fo.Sample, field: str, text: str) -> None:
    """Sets the text of a sample, which is not outdated then."""
    place = locate(sample)
    place.dataset.set_values(field, {place.sample_id: text}, key_field="id")
    if place.values(_outdated(field)) != [None]:
        place.dataset.set_values(_outdated(field), {place.sample_id: None}, key_field="id")


def mark_answers_outdated(samples: fo.Dataset | fo.DatasetView, field: str) -> None:
    """Marks the texts of samples as to be replaced: each stays until there is a new one."""
    dataset = root_dataset(samples)
    ids, texts = dataset.select(samples.values("id")).values(["id", field])
    marked = {id_: True for id_, text in zip(ids, texts, strict=True) if text is not None}
    if marked:
        _declare_marker(dataset, field)
        dataset.set_values(_outdated(field), marked, key_field="id")


def write_things(sample: fo.Sample, label_field: str, things: Sequence[Masklet]) -> None:
    """Replaces the labels of a sample by things that no expression names; an image is one frame.

    A thing has one mask per frame, a label, and the same index everywhere, in videos also an instance. Frames
    without any get an empty list.

    Args:
        sample: of a dataset or a view
        label_field: without `frames.`
        things: of all frames; the text of each is its label
    """
    place = locate(sample)
    frames: dict[int, list[fo.Detection]] = {number: [] for number in range(1, num_frames(place) + 1)}
    for index, thing in enumerate(things, start=1):
        canvas = canvas_of(place, thing.size)
        instance = fo.Instance() if place.is_video else None
        for t, frame in enumerate(thing.frames):
            detection = to_detection(
                thing.masks[t][0],
                canvas,
                label=thing.expression.text,
                confidence=float(thing.scores[t, 0]),
                index=index,
                instance=instance,
            )
            found = frames.setdefault(place.first + frame, [])
            if detection is not None:
                found.append(detection)
    labels = {number: fo.Detections(detections=found).to_dict() for number, found in frames.items()}
    write_frames(place, label_field, labels)


def region_path(samples: fo.Dataset | fo.DatasetView, field: str) -> str:
    """The path of the labels of a field of an image dataset that mark regions.

    Raises:
        FieldError: for videos, and a field that is not there or marks no regions
    """
    dataset = root_dataset(samples)
    if dataset.media_type != fo.core.media.IMAGE:
        raise FieldError(
            f"regions are captioned in images, but dataset {dataset.name!r} holds {dataset.media_type} samples: "
            "make images of frames with dataset.to_frames(sample_frames=True).clone()"
        )
    stored = samples.get_field(field)
    inner = _MARKS.get(getattr(stored, "document_type", None))  # type: ignore[arg-type]
    if inner is None:
        known = [
            name
            for name, each in samples.get_field_schema().items()
            if getattr(each, "document_type", None) in _MARKS
        ]
        raise FieldError(
            f"dataset {dataset.name!r} has no Detections or Keypoints in {field!r} that could mark regions; "
            f"it has them in {', '.join(known) or 'no field'}"
        )
    return f"{field}.{inner}"


def shown_labels(samples: fo.Dataset | fo.DatasetView, labels: str) -> dict[str, frozenset[str]]:
    """The ids of the labels at a path that a dataset or view shows, by the ids of its samples."""
    ids, shown = samples.values(["id", f"{labels}.id"])
    return {id_: frozenset(found or ()) for id_, found in zip(ids, shown, strict=True)}


def captioned_labels(dataset: fo.Dataset, path: str) -> list[tuple[str, str]]:
    """The ids of sample and label of all labels of a dataset that have a text; `path` is that of the attribute."""
    values = dataset.values(["id", f"{path.rpartition('.')[0]}.id", path])
    return [
        (sample_id, label_id)
        for sample_id, label_ids, texts in zip(*values, strict=True)
        for label_id, text in zip(label_ids or (), texts or (), strict=True)
        if text is not None
    ]


def read_regions(
    sample: fo.Sample,
    field: str,
    size: Size,
    *,
    among: Collection[str] | None = None,
    without: str | None = None,
) -> dict[str, Region]:
    """The regions that a field marks in an image, by the ids of its labels: masks, boxes without masks, points.

    Args:
        sample: of an image dataset or a view
        field: with Detections or Keypoints
        size: (H, W) of the image
        among: leave out other labels than those with these ids
        without: leave out the labels that have this attribute already, unless it is outdated

    Raises:
        FieldError: for a label whose mask cannot be read
    """
    place = locate(sample)
    stored = read_label(place, field) or {}
    labels: list[RawLabel] = next((stored[name] for name in _MARKS.values() if stored.get(name)), [])
    return {
        str(label["_id"]): _region(place, label, size)
        for label in labels
        if (among is None or str(label["_id"]) in among)
        and (without is None or label.get(without) is None or label.get(_outdated(without)))
    }


def write_region_texts(sample: fo.Sample, path: str, texts: Mapping[str, str]) -> None:
    """Sets an attribute of labels by their ids, which is not outdated then; `path` is that of the attribute."""
    place = locate(sample)
    place.dataset.set_label_values(path, [_value(place.sample_id, id_, text) for id_, text in texts.items()])
    if place.dataset.get_field(_outdated(path)) is not None:
        place.dataset.set_label_values(_outdated(path), [_value(place.sample_id, id_, None) for id_ in texts])


def mark_texts_outdated(dataset: fo.Dataset, path: str, labels: Iterable[tuple[str, str]]) -> None:
    """Marks an attribute of labels, by ids of sample and label, as to be replaced: each stays until then."""
    marked = [_value(sample_id, label_id, True) for sample_id, label_id in labels]
    if marked:
        _declare_marker(dataset, path)
        dataset.set_label_values(_outdated(path), marked)


def _declare_marker(dataset: fo.Dataset, path: str) -> None:
    if dataset.get_field(_outdated(path)) is None:
        dataset.add_sample_field(_outdated(path), fo.BooleanField, description=_MARKER)


def _outdated(path: str) -> str:
    """Where it is marked that a text is to be replaced."""
    return f"{path}_outdated"


def _value(sample_id: str, label_id: str, value: str | bool | None) -> dict[str, Any]:
    return {"sample_id": sample_id, "label_id": label_id, "value": value}


def _region(place: Place, label: RawLabel, size: Size) -> Region:
    canvas = canvas_of(place, size)
    if "points" in label:
        known = [(x, y) for x, y in label["points"] if math.isfinite(x) and math.isfinite(y)]
        return Points(tuple((_pixel(x, canvas[1], size[1]), _pixel(y, canvas[0], size[0])) for x, y in known))
    x, y, width, height = label["bounding_box"]
    if label.get("mask") is not None or label.get("mask_path") is not None:
        try:
            mask = mask_of(place, label)
        except (OSError, ValueError) as error:
            raise FieldError(f"{place}: the mask of label {label['_id']} cannot be read: {error}") from error
        return coco_mask.decode(paste(mask, label["bounding_box"], canvas, size)).astype(bool)
    return Box(x * canvas[1], y * canvas[0], (x + width) * canvas[1], (y + height) * canvas[0])


def _pixel(share: float, canvas: int, length: int) -> float:
    """Where a point lies; one on the right or lower edge is on the last pixel."""
    return length - 1.0 if share == 1 else share * canvas
