"""Answers of models about samples: texts, the masks of what they name, and captions of marked regions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import fiftyone as fo
from pycocotools import mask as coco_mask

from fiftyone_refvos.fields.crops import paste, to_detection
from fiftyone_refvos.fields.media import Size, canvas_of, num_frames
from fiftyone_refvos.fields.reading import mask_of
from fiftyone_refvos.fields.samples import FieldError, Place, RawLabel, locate, read_label, root_dataset, write_frames
from fiftyone_refvos.fields.schema import declare, declare_detections
from fiftyone_refvos.masklet import Masklet
from fiftyone_refvos.models.sa2va.regions import Box, Points, Region

# Where the labels lie in a field that marks regions.
_MARKS: dict[type[fo.Label], str] = {fo.Detections: "detections", fo.Keypoints: "keypoints"}


def things_path(samples: fo.Dataset | fo.DatasetView, label_field: str) -> str:
    """Where `write_things` writes: into a field of the samples, or of the frames of videos."""
    return f"frames.{label_field}" if root_dataset(samples).media_type == fo.core.media.VIDEO else label_field


def declare_answers(samples: fo.Dataset | fo.DatasetView, field: str, label_field: str | None) -> None:
    """Declares a text of each sample, and labels of what the text names.

    Raises:
        FieldError: if one of the fields holds something else
    """
    dataset = root_dataset(samples)
    declare_text(dataset, field)
    if label_field is not None:
        declare_detections(dataset, things_path(samples, label_field))


def declare_text(dataset: fo.Dataset, path: str) -> None:
    """Declares a text of each sample, or of each label, unless it is declared.

    Raises:
        FieldError: if the path holds something else
    """
    declare(dataset, path, fo.StringField)


def has_answer(sample: fo.Sample, field: str) -> bool:
    """Whether a sample has a text, be it empty, in a field."""
    return locate(sample).values(field) != [None]


def write_answer(sample: fo.Sample, field: str, text: str) -> None:
    """Sets the text of a sample."""
    place = locate(sample)
    place.dataset.set_values(field, {place.sample_id: text}, key_field="id")


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


def clear_answers(samples: fo.Dataset | fo.DatasetView, field: str, label_field: str | None) -> None:
    """Removes the texts of samples, and the labels of what they name; the schema stays."""
    dataset = root_dataset(samples)
    view = dataset.select(samples.values("id"))
    if dataset.get_field(field) is not None:  # first: without labels nothing may look answered
        view.clear_sample_field(field)
    if label_field is None or dataset.get_field(things_path(samples, label_field)) is None:
        return
    if dataset.media_type == fo.core.media.VIDEO:
        view.clear_frame_field(label_field)
    else:
        view.clear_sample_field(label_field)


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
    stored = dataset.get_field(field)
    inner = _MARKS.get(getattr(stored, "document_type", None))  # type: ignore[arg-type]
    if inner is None:
        known = [
            name
            for name, each in dataset.get_field_schema().items()
            if getattr(each, "document_type", None) in _MARKS
        ]
        raise FieldError(
            f"dataset {dataset.name!r} has no Detections or Keypoints in {field!r} that could mark regions; "
            f"it has them in {', '.join(known) or 'no field'}"
        )
    return f"{field}.{inner}"


def read_regions(sample: fo.Sample, field: str, size: Size, *, without: str | None = None) -> dict[str, Region]:
    """The regions that a field marks in an image, by the ids of its labels: masks, boxes without masks, points.

    Args:
        sample: of an image dataset or a view
        field: with Detections or Keypoints
        size: (H, W) of the image
        without: leave out the labels that have this attribute already

    Raises:
        FieldError: for a label that marks nothing
    """
    place = locate(sample)
    stored = read_label(place, field) or {}
    labels: list[RawLabel] = next((stored[name] for name in _MARKS.values() if stored.get(name)), [])
    return {
        str(label["_id"]): _region(place, label, size)
        for label in labels
        if without is None or label.get(without) is None
    }


def clear_texts(samples: fo.Dataset | fo.DatasetView, path: str) -> None:
    """Removes an attribute from all labels of samples; the schema stays."""
    view = root_dataset(samples).select(samples.values("id"))
    view.set_field(path, None, _allow_missing=True).save(path.split(".")[0])


def write_region_texts(sample: fo.Sample, path: str, texts: Mapping[str, str]) -> None:
    """Sets an attribute of labels by their ids; `path` is that of the attribute."""
    place = locate(sample)
    changes = [
        {"sample_id": place.sample_id, "label_id": label_id, "value": text} for label_id, text in texts.items()
    ]
    place.dataset.set_label_values(path, changes)


def _region(place: Place, label: RawLabel, size: Size) -> Region:
    canvas = canvas_of(place, size)
    if "points" in label:
        places = [(x * canvas[1], y * canvas[0]) for x, y in label["points"] if math.isfinite(x) and math.isfinite(y)]
        # a point on the right or lower edge is on the last pixel
        return Points(tuple((min(x, size[1] - 1.0), min(y, size[0] - 1.0)) for x, y in places))
    x, y, width, height = label["bounding_box"]
    if label.get("mask") is not None or label.get("mask_path") is not None:
        rle = paste(mask_of(place, label), label["bounding_box"], canvas, size)
        return coco_mask.decode(rle).astype(bool)
    return Box(x * canvas[1], y * canvas[0], (x + width) * canvas[1], (y + height) * canvas[0])
