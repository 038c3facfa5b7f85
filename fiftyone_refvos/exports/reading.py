"""From FiftyOne samples back to records: what there is of a video in one field of masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo

from fiftyone_refvos.datasets.files import natural_key
from fiftyone_refvos.datasets.masks import union
from fiftyone_refvos.datasets.records import (
    Annotations,
    ExpressionRecord,
    FileMedia,
    FolderMedia,
    Masks,
    MediaRecord,
    ObjectRecord,
)
from fiftyone_refvos.exports.records import Exported
from fiftyone_refvos.fields import frame_source, read_expressions
from fiftyone_refvos.fields.expressions import labels_by_id
from fiftyone_refvos.fields.objects import ObjectTrack, read_objects
from fiftyone_refvos.fields.samples import Place, RawLabel, locate
from fiftyone_refvos.fields.schema import label_path
from fiftyone_refvos.fields.scores import media_name, read_areas
from fiftyone_refvos.fields.state import covered_frames, present_frames
from fiftyone_refvos.video import FolderFrames, FrameSource

SPLITS = ("train", "valid", "valid_u", "val", "test", "testA", "testB", "eval")
"""Tags that say which split of a dataset a sample belongs to."""

# What labels have for other reasons than that a dataset says it of an expression.
_OURS = {"label", "support", "tags", "expression_id", "kind", "object_ids", "no_target", "index", "instance"}
DEFAULT_FRAME_RATE = 24.0  # of folders of frames of which nobody knows
_PLAIN = (bool, int, float, str)


@dataclass(frozen=True)
class Shown:
    """What a view shows of a video.

    Attributes:
        frames: the frame numbers
        detection_ids: of the masks
    """

    frames: set[int]
    detection_ids: set[str]


def read_sample(
    sample: fo.Sample,
    field: str,
    expressions_field: str,
    split: str | None = None,
    shown: Shown | None = None,
    *,
    exact: bool = False,
) -> Exported:
    """Reads one sample.

    Masklets of models and ground truth alike become objects: one that several expressions name is one object.
    Of a view only the expressions that it shows are read, and objects that other expressions name are left out.

    Args:
        sample: a sample of a dataset or view, no clip
        field: the field with the masks, without `frames.`
        expressions_field: the field with the expressions
        split: of the dataset; by default the first tag that is the name of one, else "train"
        shown: the frames and masks that a view shows of it; None for all
        exact: refuse a mask that does not have the size of its box, which is stretched to it otherwise

    Raises:
        FieldError: for boxes without masks, and media that are not where the sample says; with `exact` for masks
            of other sizes
    """
    place, source = locate(sample), frame_source(sample)
    count = len(source)
    numbers = present_frames(place, field) & (shown.frames if shown else set(range(1, count + 1)))
    annotated = frozenset(number - 1 for number in numbers if number <= count)
    labels = labels_by_id(place, expressions_field)
    wanted = {each.id: labels[each.id] for each in read_expressions(sample, expressions_field)}
    by_model = is_of_model(place.dataset, field, expressions_field)
    shown_ids = shown.detection_ids if shown else None
    found = read_objects(sample, field, source.size, detection_ids=shown_ids, exact=exact)
    tracks = _named([track for track in found if not track.expression_ids or track.expression_ids & wanted.keys()])
    objects = {id_: _object(id_, track, annotated, count, by_model) for id_, track in tracks.items()}
    expressions = []
    for id_, label in wanted.items():
        covered = _covered(field, label, annotated, by_model)
        object_ids = _object_ids(label, id_, tracks, by_model) if covered else None
        number = label.get(f"{field}_key_frame")
        expressions.append(
            ExpressionRecord(
                id=id_,
                text=label.get("label") or "",
                object_ids=object_ids,
                kind=label.get("kind"),
                attributes=_plain(label),
                covered=covered,
                key_frame=None if number is None else number - 1,
            )
        )
        for missing in [each for each in object_ids or () if each not in objects]:
            objects[missing] = ObjectRecord(missing, (None,) * count)  # an object without a pixel in any frame
    record = MediaRecord(
        name=media_name(sample),
        split=split or next((tag for tag in sample.tags if tag in SPLITS), "train"),
        media=_media(place, source),
        expressions=tuple(expressions),
        attributes={name: value for name, value in sample.iter_fields() if isinstance(value, _PLAIN)},
    )
    void, foreground = (_areas(sample, name, count) if place.is_video else None for name in ("void", "foreground"))
    ordered = tuple(sorted(objects.values(), key=lambda each: natural_key(each.id)))
    stems = _stems(record, count if place.is_video else None)
    return Exported(record, Annotations(source.size, ordered, annotated, void, foreground), stems)


def is_of_model(dataset: fo.Dataset, field: str, expressions_field: str) -> bool:
    """Whether a model, or an import of its predictions, wrote the field, so that objects are numbered anew in it."""
    return dataset.get_field(f"{label_path(dataset, expressions_field)}.{field}_score") is not None


def _named(tracks: list[ObjectTrack]) -> dict[str, ObjectTrack]:
    """Unique ids of the objects: their own, and where several have the same, with that of their expression."""
    times = Counter(track.object_id for track in tracks)
    named: dict[str, ObjectTrack] = {}
    for track in tracks:
        id_ = track.object_id
        if id_ is None or times[id_] > 1:
            owner = min(track.expression_ids, key=natural_key, default="")
            id_ = "_".join(part for part in (owner, id_) if part) or str(len(named) + 1)
        while id_ in named:
            id_ += "_"
        named[id_] = track
    return named


def _object(id_: str, track: ObjectTrack, annotated: frozenset[int], count: int, by_model: bool) -> ObjectRecord:
    masks: list[Any] = [None] * count
    for t, (rle,), found in zip(track.masklet.frames, track.masklet.masks, track.masklet.found, strict=True):
        if found and t in annotated:
            masks[t] = rle
    score = track.masklet.score if by_model else None
    return ObjectRecord(id_, tuple(masks), track.anno_id, track.category, score=score)


def _object_ids(
    label: RawLabel, expression_id: str, tracks: Mapping[str, ObjectTrack], by_model: bool
) -> tuple[str, ...] | None:
    """What the dataset says that an expression means, where it is its own truth; else what has masks of it."""
    found = tuple(id_ for id_, track in tracks.items() if expression_id in track.expression_ids)
    if not by_model and label.get("object_ids") is not None:
        # An object has another id here where somebody has changed its masks for one of its expressions.
        named = {tracks[id_].object_id: id_ for id_ in found}
        return tuple(named.get(str(each), str(each)) for each in label["object_ids"])
    # Of a typed prompt without true masks nobody has said that there is no such object.
    return found or (None if label.get("kind") == "prompt" and not by_model else ())


def _covered(field: str, label: RawLabel, annotated: frozenset[int], by_model: bool) -> frozenset[int]:
    """Indices of the frames for which the masks of an expression are known."""
    if label.get(f"{field}_text") is not None:
        return annotated & {number - 1 for number in covered_frames(field, label)}
    return frozenset() if by_model else annotated


def _media(place: Place, source: FrameSource) -> FolderMedia | FileMedia:
    if not place.is_video or not isinstance(source, FolderFrames):
        return FileMedia(Path(place.filepath))
    (rate,) = place.values("metadata.frame_rate")
    return FolderMedia(source.folder, source.names, rate or DEFAULT_FRAME_RATE)


def _stems(record: MediaRecord, count: int | None) -> tuple[str, ...]:
    """The names of the `count` frames of a video, None for an image, which is its own frame."""
    if isinstance(record.media, FolderMedia):
        return tuple(Path(name).stem for name in record.media.names)
    if count is None:
        return (record.media.path.stem,)
    return tuple(f"{t:05d}" for t in range(count))  # in a file they have no names


def _plain(label: RawLabel) -> dict[str, Any]:
    return {
        name: value
        for name, value in label.items()
        if isinstance(value, _PLAIN) and name not in _OURS and not name.startswith("_")
    }


def _areas(sample: fo.Sample, name: str, count: int) -> Masks | None:
    """The union of the masks of a field in every frame; None where the sample has none in any."""
    areas = read_areas(sample, name)
    if not areas:
        return None
    return tuple(union(areas.get(t + 1, [])) for t in range(count))
