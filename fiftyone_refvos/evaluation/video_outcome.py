"""What an evaluation makes of the scores of videos."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from fiftyone_refvos.evaluation.outcome import Outcome
from fiftyone_refvos.evaluation.pairs import Pairs
from fiftyone_refvos.evaluation.results import MaskletEvaluationResults, pack_frames
from fiftyone_refvos.evaluation.run import VIDEO_MEASURES, MaskletEvaluation
from fiftyone_refvos.fields.scores import expression_texts
from fiftyone_refvos.metrics import Protocol, UnitScores, no_target_accuracy


class VideoOutcome(Outcome):
    """The scores of the videos of an evaluation."""

    def __init__(self, media: Pairs) -> None:
        super().__init__(media)
        self._units: list[UnitScores] = []
        self._expressions: dict[str, list[UnitScores]] = {}

    def take(self, sample_id: str, result: list[Any]) -> None:
        self._units += [unit for scores in result for unit in scores.units]
        evaluated = [unit for scores in result for unit in scores.expressions if unit.frames]
        if evaluated:
            self._expressions[sample_id] = evaluated

    def results(self, protocol: Protocol, method: MaskletEvaluation, eval_key: str) -> MaskletEvaluationResults:
        """The results for the dataset.

        Raises:
            ValueError: if nothing was evaluated
        """
        self.check_any(bool(self._expressions), "videos")
        return MaskletEvaluationResults(
            self.media.samples,
            method.config,
            eval_key,
            expressions=[row for sample_id in self._expressions for row in self._rows(sample_id)],
            summary=asdict(protocol.summarize(self._units)),
            extras=no_target_accuracy([unit for units in self._expressions.values() for unit in units]),
            failures=self.failures,
            frame_data=[_pack(unit) for units in self._expressions.values() for unit in units],
            backend=method,
        )

    def expression_scores(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        return {
            sample_id: {unit.id: _means(unit) for unit in units} for sample_id, units in self._expressions.items()
        }

    def mask_scores(self, sample_id: str) -> Mapping[str, Mapping[tuple[str, int], float]]:
        return {name: _by_frame(self._expressions[sample_id], name) for name in VIDEO_MEASURES.per_frame}

    def sample_score(self, sample_id: str, name: str) -> float:
        return float(np.mean([_means(unit)[name] for unit in self._expressions[sample_id]]))

    def _rows(self, sample_id: str) -> list[dict[str, Any]]:
        sample = self.media.dataset[sample_id]
        texts = expression_texts(sample, self.media.fields.expressions)
        return [
            {
                "sample_id": sample_id,
                "filepath": sample.filepath,
                "expression_id": unit.id,
                "text": texts[unit.id],
                **_means(unit),
                "num_frames": len(unit.frames),
                "predicted": unit.predicted,
                "has_target": bool(unit.truth_area.any()),
                "type_id": unit.type_id,
            }
            for unit in self._expressions[sample_id]
        ]


def _means(unit: UnitScores) -> dict[str, float]:
    J, F = float(np.mean(unit.J)), float(np.mean(unit.F))
    return {"J": J, "F": F, "JF": (J + F) / 2}


def _by_frame(units: list[UnitScores], name: str) -> Mapping[tuple[str, int], float]:
    return {
        (unit.id, int(frame)): float(value)
        for unit in units
        for frame, value in zip(unit.frames, getattr(unit, name), strict=True)
    }


def _pack(unit: UnitScores) -> str:
    return pack_frames([int(frame) for frame in unit.frames], unit.J, unit.F)
