"""Images as protocols of referring segmentation want them, and what an evaluation makes of their scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import fiftyone as fo
import numpy as np

from fiftyone_refvos.evaluation.outcome import Outcome
from fiftyone_refvos.evaluation.pairs import VOID, Fields, Pair, Pairs, common_size
from fiftyone_refvos.evaluation.results import ImageEvaluationResults
from fiftyone_refvos.evaluation.run import MaskletEvaluation
from fiftyone_refvos.evaluation.scoring import ExpressionScore, ImageMasks, ImageQuery
from fiftyone_refvos.fields import FieldError
from fiftyone_refvos.fields.scores import expression_texts, ids_of_images, name_of, read_areas
from fiftyone_refvos.masklet import RLE
from fiftyone_refvos.metrics import ImageProtocol, Summary


class Images(Pairs):
    """The images that a view shows, each with the expressions that it shows of them."""

    def __init__(self, samples: fo.Dataset | fo.DatasetView, fields: Fields) -> None:
        super().__init__(samples, fields, ids_of_images(samples))

    def masks(self, sample_id: str) -> list[ImageMasks]:
        """The masks of an image; none if no expression is annotated.

        Raises:
            FieldError: as `pairs`, and for expressions that were not looked for
        """
        pairs = self.pairs(sample_id)
        if not pairs:
            return []
        sample = self.dataset[sample_id]
        void = read_areas(sample, VOID) or {}
        queries = tuple(
            ImageQuery(pair.expression.id, pair.truth[0], self._predictions(sample, pair), pair.facts.rejected)
            for pair in pairs
        )
        return [ImageMasks(sample_id, common_size(pairs), queries, tuple(void.get(1, ())))]

    def _predictions(self, sample: fo.Sample, pair: Pair) -> tuple[RLE, ...]:
        if pair.prediction is not None:
            return pair.prediction[0]
        if pair.facts.rejected:  # "there is no such object" needs no list of masks
            return ()
        raise FieldError(
            f"{name_of(sample)}: expression {pair.expression.id!r} is annotated in {self.fields.truth!r}, but not "
            f"predicted in {self.fields.prediction!r}: segment it, or evaluate a view of what is predicted"
        )


class ImageOutcome(Outcome):
    """The scores of the images of an evaluation."""

    def __init__(self, media: Pairs) -> None:
        super().__init__(media)
        self._scores: dict[str, list[ExpressionScore]] = {}

    def take(self, sample_id: str, result: list[Any]) -> None:
        scores = [score for scores in result for score in scores]
        if scores:
            self._scores[sample_id] = scores

    def results(self, protocol: ImageProtocol, method: MaskletEvaluation, eval_key: str) -> ImageEvaluationResults:
        """The results for the dataset.

        Raises:
            ValueError: if nothing was evaluated
        """
        self.check_any(bool(self._scores), "images")
        values = protocol.summarize([each.score for scores in self._scores.values() for each in scores])
        return ImageEvaluationResults(
            self.media.samples,
            method.config,
            eval_key,
            expressions=[row for sample_id in self._scores for row in self._rows(sample_id)],
            summary=asdict(Summary(protocol.name, protocol.percent, values)),
            extras={},
            failures=self.failures,
            frame_data=[],
            backend=method,
        )

    def expression_scores(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        return {
            sample_id: {each.id: {"iou": each.iou} for each in scores} for sample_id, scores in self._scores.items()
        }

    def mask_scores(self, sample_id: str) -> Mapping[str, Mapping[tuple[str, int], float]]:
        return {"iou": {(each.id, 1): each.iou for each in self._scores[sample_id]}}

    def sample_score(self, sample_id: str, name: str) -> float:
        return float(np.mean([each.iou for each in self._scores[sample_id]]))

    def _rows(self, sample_id: str) -> list[dict[str, Any]]:
        sample = self.media.dataset[sample_id]
        texts = expression_texts(sample, self.media.fields.expressions)
        return [
            {
                "sample_id": sample_id,
                "filepath": sample.filepath,
                "expression_id": each.id,
                "text": texts[each.id],
                "iou": each.iou,
                "intersection": each.score.intersection,
                "union": each.score.union,
                "has_target": bool(each.score.truth_area),
                "no_target": each.score.no_target,
            }
            for each in self._scores[sample_id]
        ]
