"""The objects of a video as DAVIS 2017, SA-V and vos-benchmark count them, with what expressions predict of them.

Objects are the true ones by `object_id`, named by expressions or not. An expression takes part if it means exactly
one of them. Semi-supervised, SA-V and vos-benchmark: the first expression of an object predicts it. Unsupervised:
the masklet of every such expression is a proposal, numbered from 1 in the order of the expressions. Where a protocol
reads label maps, in which a pixel has one object, the lowest number keeps a pixel of several predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import fiftyone as fo

from fiftyone_refvos.evaluation.pairs import Fields, Pair, common_size
from fiftyone_refvos.fields import FieldError
from fiftyone_refvos.fields.expressions import labels_by_id
from fiftyone_refvos.fields.objects import ObjectTrack, read_objects
from fiftyone_refvos.fields.samples import locate
from fiftyone_refvos.fields.scores import frame_numbers, name_of
from fiftyone_refvos.masklet import RLE
from fiftyone_refvos.metrics import Protocol, VideoMasks, merge_labels
from fiftyone_refvos.metrics.davis import Davis17
from fiftyone_refvos.metrics.first_seen import FirstSeen


def object_masks(
    sample: fo.Sample,
    fields: Fields,
    protocol: Protocol,
    pairs: Sequence[Pair],
    void: Mapping[int, list[RLE]] | None,
) -> VideoMasks:
    """The masks of a video by object.

    Args:
        sample: the video
        fields: where its masks are
        protocol: the protocol that counts the objects
        pairs: the expressions that are evaluated; at least one
        void: pixels by frame number that nobody annotated

    Raises:
        FieldError: for objects without an id, or whose expressions are all hidden by the view; for expressions
            that are evaluated in different frames
    """
    tracks = _tracks(sample, fields, protocol, common_size(pairs))
    meant = {pair.expression.id: _object_of(pair.expression.id, pair.facts.object_ids, tracks) for pair in pairs}
    taking = [pair for pair in pairs if meant[pair.expression.id] is not None]
    _check_shown(sample, fields, protocol, tracks, {id_ for id_ in meant.values() if id_ is not None})
    numbers = _frames(sample, protocol, taking or pairs)
    video = VideoMasks(
        name=sample.id,
        size=common_size(pairs),
        frames=[str(number) for number in numbers],
        objects={id_: _masks(sample, track, numbers) for id_, track in tracks.items()},
        predictions={},
        void=None if void is None else [void.get(number, []) for number in numbers],
    )
    predictions: dict[str, Sequence[tuple[RLE, ...]]] = {}
    proposals = isinstance(protocol, Davis17) and protocol.task == "unsupervised"
    for number, pair in enumerate(taking, start=1):
        id_ = str(number) if proposals else str(meant[pair.expression.id])
        # With an object that is nowhere there is nothing to compare, but a proposal of it is one.
        if pair.prediction is not None and (proposals or id_ in tracks):
            predictions.setdefault(id_, pair.prediction)
    if isinstance(protocol, FirstSeen) and protocol.strict:  # SA-V has one file per object: these may overlap
        return replace(video, predictions=predictions)
    return replace(video, predictions=merge_labels(video, predictions))


def _tracks(sample: fo.Sample, fields: Fields, protocol: Protocol, size: tuple[int, int]) -> dict[str, ObjectTrack]:
    found: dict[str, ObjectTrack] = {}
    for track in read_objects(sample, fields.truth, size, exact=True):
        reason = None
        if track.object_id is None:
            reason = f"has masks without object_id ({track.masklet.expression.text!r})"
        elif track.object_id in found:
            reason = f"has different objects with the object_id {track.object_id!r}"
        if reason or track.object_id is None:
            raise FieldError(
                f"{name_of(sample)}: {fields.truth!r} {reason}, and {protocol.name!r} counts the objects of a video: "
                "give each its own object_id, or choose a protocol of expressions"
            )
        found[track.object_id] = track
    return found


def _object_of(expression_id: str, object_ids: Sequence[str], tracks: Mapping[str, ObjectTrack]) -> str | None:
    """The object that an expression means, None if it means several or none.

    Its label says so by `object_ids`; where it does not, the masks of the expression do.
    """
    named = object_ids or [id_ for id_, track in tracks.items() if expression_id in track.expression_ids]
    return named[0] if len(named) == 1 else None


def _check_shown(
    sample: fo.Sample, fields: Fields, protocol: Protocol, tracks: Mapping[str, ObjectTrack], meant: set[str]
) -> None:
    """All objects of a video count: one whose expressions are hidden by a view would silently count as missed."""
    for id_, label in labels_by_id(locate(sample), fields.expressions).items():
        object_id = _object_of(id_, [str(each) for each in label.get("object_ids") or ()], tracks)
        if object_id in tracks and object_id not in meant:
            raise FieldError(
                f"{name_of(sample)}: {protocol.name!r} counts all objects of a video, but no expression of object "
                f"{object_id!r} is shown and annotated (expression {id_!r} means it): evaluate whole samples, or a "
                "view with an expression of each object"
            )


def _frames(sample: fo.Sample, protocol: Protocol, pairs: Sequence[Pair]) -> tuple[int, ...]:
    numbers = pairs[0].numbers
    for pair in pairs:
        if pair.numbers != numbers:
            raise FieldError(
                f"{name_of(sample)}: {protocol.name!r} wants all objects of a video in the same frames, but "
                f"expressions {pairs[0].expression.id!r} and {pair.expression.id!r} are shown or annotated in "
                "different ones: choose a protocol of expressions, or a view of common frames"
            )
    return numbers


def _masks(sample: fo.Sample, track: ObjectTrack, numbers: Sequence[int]) -> list[tuple[RLE, ...]]:
    masks = dict(zip(frame_numbers(sample, track.masklet), track.masklet.masks, strict=True))
    return [masks[number] for number in numbers]
