"""Masklets written into FiftyOne and read back, exact to the pixel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou
import numpy as np
from bson import ObjectId

from fiftyone_refvos.fields.crops import crop, to_detection
from fiftyone_refvos.fields.expressions import labels_by_id
from fiftyone_refvos.fields.media import canvas_of
from fiftyone_refvos.fields.samples import FieldError, Place, RawLabel, locate, read_frames, write_frames
from fiftyone_refvos.fields.schema import EXPRESSIONS, declare_masklet_schema
from fiftyone_refvos.fields.state import mark_finished, mark_unfinished
from fiftyone_refvos.masklet import Masklet


def write_masklets(
    sample: fo.Sample,
    field: str,
    masklets: Sequence[Masklet],
    *,
    expressions_field: str = EXPRESSIONS,
    key_frame_scores: Mapping[str, Sequence[float | None]] | None = None,
    complete: bool = True,
) -> None:
    """Writes masklets of one video into `frames.<field>` (an image: into `<field>`) with one bulk write.

    In each covered frame the detections of the written expressions are replaced, those of other expressions
    stay; a frame without any gets an empty list, an empty mask no detection. (expression, object) pairs keep
    the `index` and `instance` of an earlier run. Once the masks are in, the attributes of the expressions
    follow.

    One process at a time may write into a field of a sample. The schema is declared here only where
    `declare_masklet_schema` was not called before.

    Args:
        sample: a sample of a dataset, a view or a clips view; for a clip, frame 0 of the masklets is its
            first
        field: the label field
        masklets: one per expression, all of the size of the frames of the sample; their expressions must be
            in `expressions_field`
        expressions_field: the field with the expressions
        key_frame_scores: `(T,)` scores of a key frame selector per expression id, for the frames of its
            masklet
        complete: whether the masklets reach to the end of the video or clip; if not, the expressions are not
            finished

    Raises:
        FieldError: for an expression that the sample does not have, masks that do not have the size of the
            frames, or frames outside of the clip
    """
    place = locate(sample)
    if not masklets:
        return
    declare_masklet_schema(place.dataset, field, expressions_field=expressions_field)
    labels = labels_by_id(place, expressions_field)
    _check(place, field, masklets, expressions_field, labels)
    key_frame_scores = key_frame_scores or {}
    canvas = canvas_of(place, masklets[0].size)
    ids = [masklet.expression.id for masklet in masklets]

    stored = read_frames(place, field)
    templates = _Templates(stored)
    fresh: dict[int, dict[str, list[RawLabel]]] = defaultdict(dict)
    for masklet in masklets:
        scores = key_frame_scores.get(masklet.expression.id)
        for number, detections in _raw_frames(place, masklet, canvas, templates, scores):
            fresh[number][masklet.expression.id] = detections
    merged = {number: _merge(stored.get(number), fresh[number]) for number in sorted(fresh)}

    mark_unfinished(place, field, expressions_field, labels, ids)
    write_frames(place, field, merged)
    mark_finished(place, field, expressions_field, labels, masklets, complete=complete)


def labels_for(sample: fo.Sample, masklets: Sequence[Masklet]) -> dict[int, fo.Detections]:
    """What `write_masklets` would write, as FiftyOne objects by frame number, for `apply_model`.

    Args:
        sample: a sample of a dataset, a view or a clips view
        masklets: of its frames, all of one size
    """
    if not masklets:
        return {}
    place = locate(sample)
    return to_labels(masklets, canvas_of(place, masklets[0].size), first=place.first)


def to_labels(masklets: Sequence[Masklet], canvas: tuple[int, int], *, first: int = 1) -> dict[int, fo.Detections]:
    """The same labels as FiftyOne objects by frame number, for samples that are in no dataset yet.

    Args:
        masklets: of one video
        canvas: (H, W) of the picture that the App shows, as `canvas_size` gives it
        first: frame number of their frame 0; greater than 1 for clips
    """
    templates = _Templates({})
    frames: dict[int, list[fo.Detection]] = {frame + first: [] for masklet in masklets for frame in masklet.frames}
    for masklet in masklets:
        for n in range(masklet.num_objects):
            track = fo.Detection.from_dict(templates.of(masklet, n))
            for t, frame in enumerate(masklet.frames):
                detection = to_detection(
                    masklet.masks[t][n],
                    canvas,
                    label=track.label,
                    confidence=float(masklet.scores[t, n]),
                    index=track.index,
                    instance=track.instance,
                    expression_id=track.expression_id,
                    object_id=track.object_id,
                )
                if detection is not None:
                    frames[frame + first].append(detection)
    return {number: fo.Detections(detections=detections) for number, detections in sorted(frames.items())}


class _Templates:
    """The part of a raw detection that is the same in all frames, one per (expression, object) of a video."""

    def __init__(self, stored: Mapping[int, RawLabel | None]) -> None:
        self._tracks: dict[tuple[str | None, str | None], tuple[int | None, Any]] = {}
        for label in stored.values():
            for detection in label["detections"] if label else ():
                key = (detection.get("expression_id"), detection.get("object_id"))
                self._tracks.setdefault(key, (detection.get("index"), detection.get("instance")))
        self._next = max((index or 0 for index, _ in self._tracks.values()), default=0) + 1

    def of(self, masklet: Masklet, n: int) -> RawLabel:
        """The template of object n, from 0, of a masklet; its object id counts from 1 as `index` does."""
        expression, object_id = masklet.expression, str(n + 1)
        index, instance = self._tracks.get((expression.id, object_id), (None, None))
        if index is None:
            index, self._next = self._next, self._next + 1
        detection = fo.Detection(
            label=expression.text,
            bounding_box=[0, 0, 1, 1],
            mask=np.ones((1, 1), dtype=bool),
            confidence=0.0,
            index=index,
            instance=fo.Instance(),
            expression_id=expression.id,
            object_id=object_id,
        )
        template = detection.to_dict()
        template["instance"] = instance or template["instance"]
        self._tracks[expression.id, object_id] = (index, template["instance"])
        return template


def _raw_frames(
    place: Place,
    masklet: Masklet,
    canvas: tuple[int, int],
    templates: _Templates,
    key_frame_scores: Sequence[float | None] | None,
) -> Iterator[tuple[int, list[RawLabel]]]:
    """Yields the frame number and the raw detections of every frame of a masklet."""
    if key_frame_scores is not None and len(key_frame_scores) != len(masklet.frames):
        raise FieldError(
            f"{place}: expression {masklet.expression.id!r} has {len(key_frame_scores)} key frame scores for "
            f"{len(masklet.frames)} frames"
        )
    of_object = [templates.of(masklet, n) for n in range(masklet.num_objects)]
    for t, frame in enumerate(masklet.frames):
        detections = []
        for n, rle in enumerate(masklet.masks[t]):
            cropped = crop(rle)
            if cropped is None:
                continue
            detection = {
                **of_object[n],
                "_id": ObjectId(),
                "bounding_box": cropped.relative_box(canvas),
                "mask": fou.serialize_numpy_array(cropped.mask),
                "confidence": float(masklet.scores[t, n]),
            }
            score = None if key_frame_scores is None else key_frame_scores[t]
            if score is not None:
                detection["key_frame_score"] = float(score)
            detections.append(detection)
        yield place.first + frame, detections


def _merge(stored: RawLabel | None, fresh: Mapping[str, Sequence[RawLabel]]) -> RawLabel:
    """The raw Detections of a frame, in the order of `index`, with new detections of some expressions."""
    label = stored or {"_cls": "Detections", "detections": []}
    detections = [detection for detection in label["detections"] if detection.get("expression_id") not in fresh]
    detections += [detection for of_expression in fresh.values() for detection in of_expression]
    return {**label, "detections": sorted(detections, key=lambda detection: detection.get("index") or 0)}


def _check(
    place: Place,
    field: str,
    masklets: Sequence[Masklet],
    expressions_field: str,
    labels: Mapping[str, RawLabel],
) -> None:
    ids = [masklet.expression.id for masklet in masklets]
    if len(set(ids)) < len(ids):
        raise FieldError(f"{place}: one masklet per expression is written into {field!r}, got expression ids {ids}")
    if unknown := [id_ for id_ in ids if id_ not in labels]:
        raise FieldError(
            f"{place}: {expressions_field!r} has no expression {unknown[0]!r} to write a masklet for, only "
            f"{sorted(labels)}; add_expressions adds one"
        )
    if len(sizes := {tuple(masklet.size) for masklet in masklets}) > 1:
        raise FieldError(f"{place}: the masklets of a video must have one size, got {sorted(sizes)}")
    last = max((masklet.frames[-1] for masklet in masklets if masklet.frames), default=0)
    if not place.contains(place.first + last):
        raise FieldError(
            f"{place}: frame {last} (from 0) of the masklets is outside of the clip, which has "
            f"{(place.last or 0) - place.first + 1} frames"
        )
    if not place.is_video and last > 0:
        raise FieldError(f"{place} is an image, but the masklets have a frame {last}")
