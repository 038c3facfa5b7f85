"""The true and the predicted masklets of expressions, read from FiftyOne: what is shown, annotated, and predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    shown_frames,
)
from fiftyone_refvos.masklet import RLE, Expression, Masklet

VOID, FOREGROUND = "void", "foreground"  # fields for which some protocols ask

Wanted = dict[str, tuple[Expression, set[int] | None]]


@dataclass(frozen=True)
class Pair:
    """The true and the predicted masklet of an expression, in the frames that are evaluated.

    Attributes:
        expression: what was looked for
        facts: what else its label says
        numbers: the frame numbers, from 1, that are shown and annotated; T of them; an image has number 1
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


class Pairs:
    """What a view shows of videos or images: the expressions and frames of each.

    Clips of one video are one video here: a frame that several of them show counts once.
    """

    def __init__(
        self, samples: fo.Dataset | fo.DatasetView, fields: Fields, shown: Mapping[str, Sequence[str]]
    ) -> None:
        """Checks the fields; `shown` are the ids of the samples, or clips, that are shown of each video or image."""
        self.samples = samples
        self.dataset = root_dataset(samples)
        self.fields = fields
        self._shown = shown
        for field in (fields.prediction, fields.truth):
            check_masklet_field(samples, field)
        check_expressions_field(samples, fields.expressions)
        self.ids = list(shown)

    def pairs(self, sample_id: str) -> list[Pair]:
        """The masklets of every expression that is shown, and annotated in a frame that is shown.

        A typed expression without true masks is annotated only if the dataset says that it has no target.

        Raises:
            FieldError: for expressions that the video does not have, masks of different sizes, and frames that
                are annotated but not predicted
        """
        sample = self.dataset[sample_id]
        fields = self.fields
        wanted = self.wanted(sample_id)
        facts = expression_facts(sample, fields.expressions, truth=fields.truth, prediction=fields.prediction)
        true, predicted = (self._masklets(sample, field, facts) for field in (fields.truth, fields.prediction))
        pairs = []
        for expression, frames in wanted.values():
            truth, prediction = true.get(expression.id), predicted.get(expression.id)
            if truth is None or (facts[expression.id].unjudged and not truth.num_objects):
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

    def wanted(self, sample_id: str) -> Wanted:
        """The expressions that are shown, each with the frame numbers that are shown of it, None for all."""
        wanted: Wanted = {}
        whole = isinstance(self.samples, fo.Dataset) or self.samples.media_type == "image"
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


def common_size(pairs: Sequence[Pair]) -> tuple[int, int]:
    """(H, W) of the frames of a video: true masks tell it first, then predicted ones, then the file."""
    return max(pairs, key=lambda pair: (any(pair.truth), any(pair.prediction or ()))).size


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
