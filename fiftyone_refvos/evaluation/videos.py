"""The masks of videos as protocols want them: those of expressions, and of objects for protocols that count these."""

from __future__ import annotations

from collections.abc import Sequence

import fiftyone as fo

from fiftyone_refvos.evaluation.objects import object_masks
from fiftyone_refvos.evaluation.pairs import FOREGROUND, VOID, Fields, Pair, Pairs, common_size
from fiftyone_refvos.evaluation.scoring import counts_objects
from fiftyone_refvos.fields.scores import read_areas, samples_of_videos
from fiftyone_refvos.masklet import RLE
from fiftyone_refvos.metrics import FrameMasks, Protocol, Query, VideoMasks


class Videos(Pairs):
    """The videos that a view shows, each with the expressions and frames that it shows of them."""

    def __init__(self, samples: fo.Dataset | fo.DatasetView, fields: Fields) -> None:
        super().__init__(samples, fields, samples_of_videos(samples))

    def masks(self, sample_id: str, protocol: Protocol) -> list[VideoMasks]:
        """The masks of a video: the expressions that are evaluated in the same frames together, then the objects.

        Raises:
            FieldError: as `pairs`; for objects that the protocol cannot count
        """
        pairs = self.pairs(sample_id)
        groups: dict[tuple[int, ...], list[Pair]] = {}
        for pair in pairs:
            groups.setdefault(pair.numbers, []).append(pair)
        if not groups:
            return []
        sample = self.dataset[sample_id]
        areas = {name: read_areas(sample, name) for name in (VOID, FOREGROUND)}
        videos = [_video_masks(sample_id, numbers, group, areas) for numbers, group in groups.items()]
        if counts_objects(protocol):
            videos.append(object_masks(sample, self.fields, protocol, pairs, areas[VOID]))
        return videos


def _video_masks(
    name: str, numbers: tuple[int, ...], pairs: list[Pair], areas: dict[str, dict[int, list[RLE]] | None]
) -> VideoMasks:
    objects: dict[str, Sequence[FrameMasks]] = {}
    queries = []
    for pair in pairs:
        ids = _add_objects(objects, pair)
        queries.append(
            Query(pair.expression.id, object_ids=ids, type_id=pair.facts.type_id, annotator=pair.facts.annotator)
        )
    extras = {
        key: None if area is None else [area.get(number, []) for number in numbers] for key, area in areas.items()
    }
    return VideoMasks(
        name=name,
        size=common_size(pairs),
        frames=[str(number) for number in numbers],
        objects=objects,
        predictions={pair.expression.id: pair.prediction for pair in pairs if pair.prediction is not None},
        queries=queries,
        void=extras[VOID],
        foreground=extras[FOREGROUND],
    )


def _add_objects(objects: dict[str, Sequence[FrameMasks]], pair: Pair) -> tuple[str, ...]:
    """Adds the objects of an expression, and returns their ids.

    Where the expression means one object, that is the id that its label gives, under which all expressions share
    it: what is derived of its masks is then made once, and Ref-DAVIS17 numbers objects so.
    """
    count = len(pair.truth[0])
    known = pair.facts.object_ids
    if count <= 1 and len(known) == 1:
        masks = [list(rles) for rles in pair.truth]
        if objects.setdefault(known[0], masks) == masks:
            return known
    ids = tuple(f"{pair.expression.id}/{n}" for n in range(1, count + 1))
    for n, id_ in enumerate(ids):
        objects[id_] = [rles[n] for rles in pair.truth]
    return ids
