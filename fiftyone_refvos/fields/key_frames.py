"""Key frames of expressions, and numbers of every frame that stand with an expression as one list."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import fiftyone as fo

from fiftyone_refvos.fields.expressions import labels_by_id, set_attributes
from fiftyone_refvos.fields.media import num_frames
from fiftyone_refvos.fields.samples import FieldError, Place, locate, root_dataset
from fiftyone_refvos.fields.schema import EXPRESSIONS, declare, declare_floats, label_path
from fiftyone_refvos.fields.scores import write_frame_scores

FrameList = Literal["ious", "key_frame_scores", "agreements"]
_SCORE = "key_frame_score"


def declare_frame_list(
    samples: fo.Dataset | fo.DatasetView, field: str, name: FrameList, *, expressions_field: str = EXPRESSIONS
) -> None:
    """Declares a list of one number per frame of expressions, `<field>_<name>`.

    Raises:
        FieldError: if the path holds something else
    """
    dataset = root_dataset(samples)
    declare(dataset, f"{label_path(dataset, expressions_field)}.{field}_{name}", fo.ListField)


def declare_key_frames(
    samples: fo.Dataset | fo.DatasetView, field: str, *, expressions_field: str = EXPRESSIONS
) -> None:
    """Declares what `write_key_frames` writes."""
    dataset = root_dataset(samples)
    declare_frame_list(samples, field, "key_frame_scores", expressions_field=expressions_field)
    declare(dataset, f"{label_path(dataset, expressions_field)}.{field}_key_frame", fo.IntField)
    if _has_masks(dataset, field):
        declare_floats(dataset, [f"frames.{field}.detections.{_SCORE}"])


def write_frame_list(
    sample: fo.Sample,
    field: str,
    name: FrameList,
    values: Mapping[str, Sequence[float | None]],
    *,
    expressions_field: str = EXPRESSIONS,
) -> None:
    """Sets one number per frame of a video, or of a clip, by expression id; frames outside of a clip keep theirs."""
    place = locate(sample)
    labels = labels_by_id(place, expressions_field)
    attribute = f"{field}_{name}"
    lists = {id_: _whole(place, (labels.get(id_) or {}).get(attribute), each) for id_, each in values.items()}
    set_attributes(place, expressions_field, labels, {attribute: lists})


def read_frame_list(
    sample: fo.Sample, field: str, name: FrameList, *, expressions_field: str = EXPRESSIONS
) -> dict[str, tuple[float | None, ...]]:
    """What `write_frame_list` wrote, by expression id; for a clip of its frames."""
    place = locate(sample)
    found = {}
    for id_, label in labels_by_id(place, expressions_field).items():
        values = label.get(f"{field}_{name}")
        if values is not None:
            found[id_] = tuple(values[place.first - 1 : place.last])
    return found


def write_key_frames(
    sample: fo.Sample,
    field: str,
    key_frames: Mapping[str, int],
    scores: Mapping[str, Sequence[float | None]],
    *,
    expressions_field: str = EXPRESSIONS,
) -> None:
    """Sets the key frames of expressions, and how each frame was scored; on the masks of `field`, too, if it has any.

    Args:
        sample: a sample of a dataset, a view or a clips view
        field: what the attributes are named after: a field of masklets, or another name
        key_frames: index from 0 by expression id
        scores: `(T,)` by expression id, none for key frames that come without, whose former scores go; infinite ones
            count as unknown
        expressions_field: the field with the expressions

    Raises:
        FieldError: for an unknown expression id
    """
    place = locate(sample)
    known = {
        id_: [None if each is None or not math.isfinite(each) else float(each) for each in values]
        for id_, values in scores.items()
    }
    numbers = {id_: place.first + index for id_, index in key_frames.items()}
    labels = labels_by_id(place, expressions_field)
    set_attributes(place, expressions_field, labels, {f"{field}_key_frame": numbers})
    attribute = f"{field}_key_frame_scores"
    former = {id_: None for id_ in key_frames.keys() - known.keys() if labels[id_].get(attribute) is not None}
    if former:
        set_attributes(place, expressions_field, labels, {attribute: former})
    if (known or former) and _has_masks(place.dataset, field):
        frames = range(place.first, (place.last or num_frames(place)) + 1)
        on_masks: dict[tuple[str, int], float | None] = {(id_, number): None for id_ in former for number in frames}
        on_masks |= {
            (id_, place.first + index): value for id_, values in known.items() for index, value in enumerate(values)
        }
        write_frame_scores(sample, field, {_SCORE: on_masks})
    # Last: an expression with scores is done.
    write_frame_list(sample, field, "key_frame_scores", known, expressions_field=expressions_field)


def read_key_frames(sample: fo.Sample, field: str, *, expressions_field: str = EXPRESSIONS) -> dict[str, int]:
    """The key frames of expressions, as index from 0 by expression id; for a clip, from its first frame.

    Raises:
        FieldError: for a key frame outside of the clip, or the video
    """
    place = locate(sample)
    found = {}
    for id_, label in labels_by_id(place, expressions_field).items():
        number = label.get(f"{field}_key_frame")
        if number is None:
            continue
        if not place.contains(number) or number > num_frames(place):
            where = f"frames {place.first} to {place.last or num_frames(place)}"
            raise FieldError(
                f"{place}: the key frame {number} of expression {id_!r} in {field!r} is outside of {where}: select "
                "the key frames again"
            )
        found[id_] = number - place.first
    return found


def mark_all_unselected(
    samples: fo.Dataset | fo.DatasetView, field: str, *, expressions_field: str = EXPRESSIONS
) -> None:
    """Removes the scores of whole videos, so that key frames are chosen anew; the former ones stay until then."""
    dataset = root_dataset(samples)
    path = f"{label_path(dataset, expressions_field)}.{field}_key_frame_scores"
    view = dataset.select(samples.values("id")).set_field(path, None, _allow_missing=True)
    view.save(expressions_field)


def has_key_frames(samples: fo.Dataset | fo.DatasetView, field: str, *, expressions_field: str = EXPRESSIONS) -> bool:
    """Whether expressions can have key frames of that name."""
    dataset = root_dataset(samples)
    return dataset.get_field(f"{label_path(dataset, expressions_field)}.{field}_key_frame") is not None


def count_key_frames(
    samples: fo.Dataset | fo.DatasetView, field: str, *, expressions_field: str = EXPRESSIONS
) -> int:
    """How many expressions have a key frame of that name."""
    count: int = samples.count(f"{label_path(root_dataset(samples), expressions_field)}.{field}_key_frame")
    return count


def frame_names(sample: fo.Sample) -> list[str]:
    """The names of the frames of a whole video: of files, without suffix; in a video file counted from 00000."""
    place = locate(sample)
    (names,) = place.values("frame_names")
    return [Path(name).stem for name in names] if names else [f"{t:05d}" for t in range(num_frames(place))]


def _whole(place: Place, former: Sequence[float | None] | None, values: Sequence[float | None]) -> list[float | None]:
    if place.last is None:
        return list(values)
    whole: list[float | None] = [None] * num_frames(place) if former is None else [*former]
    whole[place.first - 1 : place.first - 1 + len(values)] = values
    return whole


def _has_masks(dataset: fo.Dataset, field: str) -> bool:
    stored = dataset.get_field(f"frames.{field}") if dataset.media_type == "video" else None
    return getattr(stored, "document_type", None) is fo.Detections
