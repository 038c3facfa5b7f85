"""The masks of a video as protocols want them, read from FiftyOne: what is shown, annotated, and predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import fiftyone as fo

from fiftyone_refvos.fields import EXPRESSIONS, FieldError, read_expressions, read_masklets
from fiftyone_refvos.fields.samples import root_dataset
from fiftyone_refvos.fields.scores import (
    ExpressionFacts,
    check_expressions_field,
    check_masklet_field,
    expression_facts,
    frame_numbers,
    name_of,
    read_areas,
    samples_of_videos,
    shown_frames,
)
from fiftyone_refvos.masklet import RLE, Expression, Masklet
from fiftyone_refvos.metrics import FrameMasks, Query, VideoMasks

VOID, FOREGROUND = "void", "foreground"  # frame fields for which some protocols ask


@dataclass(frozen=True)
class Pair:
    """The true and the predicted masklet of an expression, in the frames that are evaluated.

    Attributes:
        expression: what was looked for
        facts: what else its label says
        numbers: the frame numbers, from 1, that are shown and annotated; T of them
        truth: for each of the T frames the true masks of its objects
        prediction: the same of the model; None where it has no masklet for the expression
        size: (H, W) of the frames
    """

    expression: Expression
    facts: ExpressionFacts
    numbers: tuple[int, ...]
    truth: tuple[tuple[RLE, ...], ...]
    prediction: tuple[tuple[RLE, ...], ...] | None
    size: tuple[int, int]


@dataclass(frozen=True)
class Fields:
    """Where the masklets and the expressions are."""

    prediction: str
    truth: str
    expressions: str = EXPRESSIONS


class Videos:
    """The videos that a view shows, each with the expressions and frames that it shows of them.

    Clips of one video are one video here: a frame that several of them show counts once.
    """

    def __init__(self, samples: fo.Dataset | fo.DatasetView, fields: Fields) -> None:
        self.samples = samples
        self.dataset = root_dataset(samples)
        self.fields = fields
        self._shown = samples_of_videos(samples)
        for field in (fields.prediction, fields.truth):
            check_masklet_field(samples, field)
        check_expressions_field(samples, fields.expressions)
        self.ids = list(self._shown)

    def pairs(self, sample_id: str) -> list[Pair]:
        """The masklets of every expression that is shown, and annotated in a frame that is shown.

        Raises:
            FieldError: for expressions that the video does not have, masks of different sizes, and frames that
                are annotated but not predicted
        """
        sample = self.dataset[sample_id]
        wanted, facts = self._wanted(sample_id), expression_facts(sample, self.fields.expressions)
        true, predicted = (
            self._masklets(sample, field, facts) for field in (self.fields.truth, self.fields.prediction)
        )
        pairs = []
        for expression, frames in wanted.values():
            truth, prediction = true.get(expression.id), predicted.get(expression.id)
            if truth is None:
                continue
            position = dict(zip(frame_numbers(sample, truth), truth.masks, strict=True))
            numbers = tuple(number for number in position if frames is None or number in frames)
            if not numbers:
                continue
            masks = None if prediction is None else self._predicted(sample, expression, truth, prediction, numbers)
            shown = tuple(position[number] for number in numbers)
            size = prediction.size if prediction and prediction.num_objects and not truth.num_objects else truth.size
            pairs.append(Pair(expression, facts[expression.id], numbers, shown, masks, size))
        return pairs

    def masks(self, sample_id: str) -> list[VideoMasks]:
        """The same for protocols: the expressions that are evaluated in the same frames together."""
        groups: dict[tuple[int, ...], list[Pair]] = {}
        for pair in self.pairs(sample_id):
            groups.setdefault(pair.numbers, []).append(pair)
        if not groups:
            return []
        sample = self.dataset[sample_id]
        areas = {name: read_areas(sample, name) for name in (VOID, FOREGROUND)}
        return [_video_masks(sample_id, numbers, pairs, areas) for numbers, pairs in groups.items()]

    def _wanted(self, sample_id: str) -> dict[str, tuple[Expression, set[int] | None]]:
        """The expressions that are shown, each with the frame numbers that are shown of it, None for all."""
        wanted: dict[str, tuple[Expression, set[int] | None]] = {}
        whole = isinstance(self.samples, fo.Dataset)
        for shown_id in self._shown[sample_id]:
            sample = self.samples[shown_id]
            frames = None if whole else shown_frames(sample)
            for expression in read_expressions(sample, self.fields.expressions):
                _, known = wanted.get(expression.id, (expression, set()))
                both = None if frames is None or known is None else frames | known
                wanted[expression.id] = (expression, both)
        return wanted

    def _masklets(self, sample: fo.Sample, field: str, facts: dict[str, ExpressionFacts]) -> dict[str, Masklet]:
        masklets = read_masklets(sample, field, expressions_field=self.fields.expressions, exact=True)
        for masklet in masklets:
            if masklet.expression.id not in facts:
                found = next((t for t, rles in enumerate(masklet.masks) if rles and masklet.found[t]), 0)
                raise FieldError(
                    f"{name_of(sample)}: frame {frame_numbers(sample, masklet)[found]} of {field!r} has masks of "
                    f"expression {masklet.expression.id!r}, but {self.fields.expressions!r} has only {sorted(facts)}"
                )
        return {masklet.expression.id: masklet for masklet in masklets}

    def _predicted(
        self, sample: fo.Sample, expression: Expression, truth: Masklet, prediction: Masklet, numbers: Sequence[int]
    ) -> tuple[tuple[RLE, ...], ...]:
        where = f"{name_of(sample)}: expression {expression.id!r} in frame"
        if prediction.size != truth.size and prediction.num_objects and truth.num_objects:
            raise FieldError(
                f"{where} {numbers[0]} has masks of {_times(prediction.size)} pixels in {self.fields.prediction!r}, "
                f"and of {_times(truth.size)} in {self.fields.truth!r} (height x width); they have to be of one size"
            )
        masks = dict(zip(frame_numbers(sample, prediction), prediction.masks, strict=True))
        if missing := [number for number in numbers if number not in masks]:
            raise FieldError(
                f"{where} {missing[0]} is annotated in {self.fields.truth!r}, but not predicted in "
                f"{self.fields.prediction!r} ({len(missing)} of {len(numbers)} frames are not): segment the "
                "whole video, or evaluate a view of the frames that are predicted"
            )
        return tuple(masks[number] for number in numbers) if prediction.num_objects else ((),) * len(numbers)


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
        # True masks tell the size first, then predicted ones, then the video file.
        size=max(pairs, key=lambda pair: (any(pair.truth), any(pair.prediction or ()))).size,
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


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
