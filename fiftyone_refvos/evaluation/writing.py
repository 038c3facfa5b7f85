"""From the scores of all videos to fields, results and the registered run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from fiftyone_refvos.evaluation.results import MaskletEvaluationResults, pack_frames
from fiftyone_refvos.evaluation.run import PER_EXPRESSION, PER_FRAME, PER_VIDEO, MaskletEvaluation
from fiftyone_refvos.evaluation.scoring import VideoScores
from fiftyone_refvos.evaluation.videos import Videos
from fiftyone_refvos.fields import FieldError
from fiftyone_refvos.fields.scores import (
    declare_scores,
    expression_texts,
    name_of,
    write_expression_scores,
    write_frame_scores,
)
from fiftyone_refvos.metrics import Protocol, UnitScores, no_target_accuracy


class Outcome:
    """The scores of the videos of an evaluation; nothing is in the database before `write`."""

    def __init__(self, videos: Videos) -> None:
        self._videos = videos
        self._units: list[UnitScores] = []
        self._expressions: dict[str, list[UnitScores]] = {}
        self._failures: list[dict[str, str]] = []

    def add(self, sample_id: str, result: list[VideoScores] | Exception) -> None:
        """Takes the scores of a video, or the reason why there are none."""
        if isinstance(result, Exception):
            sample = self._videos.dataset[sample_id]
            failure = {
                "sample_id": sample_id,
                "filepath": sample.filepath,
                "error": str(self.error(sample_id, result)),
            }
            self._failures.append(failure)
            return
        self._units += [unit for scores in result for unit in scores.units]
        evaluated = [unit for scores in result for unit in scores.expressions if unit.frames]
        if evaluated:
            self._expressions[sample_id] = evaluated

    def error(self, sample_id: str, error: Exception) -> Exception:
        """The error of a video, with a message that names the sample and the fields."""
        if isinstance(error, FieldError):
            return error
        fields, name = self._videos.fields, name_of(self._videos.dataset[sample_id])
        text = str(error).removeprefix(f"{sample_id}: ").removeprefix(f"{sample_id}, ")
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return FieldError(f"{name}: {kind}{text} ({fields.prediction!r} against {fields.truth!r})")

    def results(self, protocol: Protocol, method: MaskletEvaluation, eval_key: str) -> MaskletEvaluationResults:
        """The results for the dataset.

        Raises:
            ValueError: if nothing was evaluated
        """
        if not self._expressions and not self._failures:
            fields = self._videos.fields
            raise ValueError(
                f"there is nothing to evaluate: no expression of {fields.expressions!r} is annotated in "
                f"'frames.{fields.truth}' of the {len(self._videos.ids)} videos"
            )
        return MaskletEvaluationResults(
            self._videos.samples,
            method.config,
            eval_key,
            expressions=[row for sample_id in self._expressions for row in self._rows(sample_id)],
            summary=asdict(protocol.summarize(self._units)),
            extras=no_target_accuracy([unit for units in self._expressions.values() for unit in units]),
            failures=self._failures,
            frame_data=[_pack(unit) for units in self._expressions.values() for unit in units],
            backend=method,
        )

    def write(self, method: MaskletEvaluation, eval_key: str, results: MaskletEvaluationResults) -> None:
        """Writes all fields, then the run; whatever interrupts it, none of them remains."""
        dataset = self._videos.dataset
        if eval_key in dataset.list_evaluations():
            dataset.delete_evaluation(eval_key)
        try:
            self._write_fields(eval_key)
            method.register_run(self._videos.samples, eval_key)
            method.save_run_results(self._videos.samples, eval_key, results)
        except BaseException:  # also Ctrl-C
            if eval_key in dataset.list_evaluations():
                method.delete_run(dataset, eval_key, cleanup=False)
            method.cleanup(dataset, eval_key)
            raise

    def _write_fields(self, key: str) -> None:
        dataset, fields = self._videos.dataset, self._videos.fields
        declare_scores(
            dataset,
            fields.prediction,
            per_frame=[f"{key}_{name}" for name in PER_FRAME],
            per_expression=[f"{key}_{name}" for name in PER_EXPRESSION],
            per_video=[f"{key}_{name}" for name in PER_VIDEO],
            expressions_field=fields.expressions,
        )
        for sample_id, units in self._expressions.items():
            sample = dataset[sample_id]
            per_frame = {f"{key}_{name}": _by_frame(units, name) for name in PER_FRAME}
            write_frame_scores(sample, fields.prediction, per_frame)
            means = {unit.id: _means(unit) for unit in units}
            per_expression = {
                f"{key}_{name}": {id_: values[name] for id_, values in means.items()} for name in PER_EXPRESSION
            }
            write_expression_scores(sample, per_expression, fields.expressions)
        for name in PER_VIDEO:
            per_video = {
                sample_id: float(np.mean([_means(unit)[name] for unit in units]))
                for sample_id, units in self._expressions.items()
            }
            dataset.set_values(f"{key}_{name}", per_video, key_field="id")

    def _rows(self, sample_id: str) -> list[dict[str, Any]]:
        sample = self._videos.dataset[sample_id]
        texts = expression_texts(sample, self._videos.fields.expressions)
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
