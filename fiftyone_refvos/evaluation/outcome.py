"""From the scores of all samples to the fields and the registered run; what videos and images have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from fiftyone_refvos.evaluation.pairs import Pairs
from fiftyone_refvos.evaluation.results import MaskletEvaluationResults
from fiftyone_refvos.evaluation.run import MaskletEvaluation, measures_of
from fiftyone_refvos.fields import FieldError
from fiftyone_refvos.fields.schema import masklet_path
from fiftyone_refvos.fields.scores import (
    declare_scores,
    name_of,
    write_expression_scores,
    write_frame_scores,
)


class Outcome(ABC):
    """The scores of an evaluation, sample by sample; nothing is in the database before `write`."""

    def __init__(self, media: Pairs) -> None:
        self.media = media
        self.failures: list[dict[str, str]] = []

    def add(self, sample_id: str, result: list[Any] | Exception) -> None:
        """Takes the scores of a video or image, or the reason why there are none."""
        if not isinstance(result, Exception):
            self.take(sample_id, result)
            return
        sample = self.media.dataset[sample_id]
        error = str(self.error(sample_id, result))
        self.failures.append({"sample_id": sample_id, "filepath": sample.filepath, "error": error})

    def error(self, sample_id: str, error: Exception) -> Exception:
        """The error of a video or image, with a message that names the sample and the fields."""
        if isinstance(error, FieldError):
            return error
        fields, name = self.media.fields, name_of(self.media.dataset[sample_id])
        text = str(error).removeprefix(f"{sample_id}: ").removeprefix(f"{sample_id}, ")
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        return FieldError(f"{name}: {kind}{text} ({fields.prediction!r} against {fields.truth!r})")

    def check_any(self, evaluated: bool, things: str) -> None:
        """Raises a ValueError if nothing was evaluated, though nothing failed."""
        if evaluated or self.failures:
            return
        fields = self.media.fields
        raise ValueError(
            f"there is nothing to evaluate: no expression of {fields.expressions!r} is annotated in "
            f"{masklet_path(self.media.dataset, fields.truth)!r} of the {len(self.media.ids)} {things}"
        )

    def write(self, method: MaskletEvaluation, eval_key: str, results: MaskletEvaluationResults) -> None:
        """Writes all fields, then the run; whatever interrupts it, none of them remains."""
        try:
            self._delete(method, eval_key)  # also what a process that was killed has left
            self._write_fields(eval_key)
            method.register_run(self.media.samples, eval_key)
            method.save_run_results(self.media.samples, eval_key, results)
        except BaseException:  # also Ctrl-C, which may come while the former run is being deleted
            self._delete(method, eval_key)
            raise

    def _delete(self, method: MaskletEvaluation, eval_key: str) -> None:
        """Deletes the run of a key, be it the former or the new one, and scores that no run has."""
        dataset = self.media.dataset
        if eval_key in dataset.list_evaluations():
            dataset.delete_evaluation(eval_key)
        method.delete_scores(dataset, eval_key)

    def _write_fields(self, key: str) -> None:
        dataset, fields, measures = self.media.dataset, self.media.fields, measures_of(self.media.dataset)
        declare_scores(
            dataset,
            fields.prediction,
            per_frame=[f"{key}_{name}" for name in measures.per_frame],
            per_expression=[f"{key}_{name}" for name in measures.per_expression],
            per_video=[f"{key}_{name}" for name in measures.per_sample],
            expressions_field=fields.expressions,
        )
        by_sample = self.expression_scores()
        for sample_id, scores in by_sample.items():
            sample = dataset[sample_id]
            per_frame = {f"{key}_{name}": values for name, values in self.mask_scores(sample_id).items()}
            write_frame_scores(sample, fields.prediction, per_frame)
            per_expression = {
                f"{key}_{name}": {id_: values[name] for id_, values in scores.items()}
                for name in measures.per_expression
            }
            write_expression_scores(sample, per_expression, fields.expressions)
        for name in measures.per_sample:
            values = {sample_id: self.sample_score(sample_id, name) for sample_id in by_sample}
            dataset.set_values(f"{key}_{name}", values, key_field="id")

    @abstractmethod
    def take(self, sample_id: str, result: list[Any]) -> None:
        """Takes the scores of a video or image."""

    @abstractmethod
    def expression_scores(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """By sample id, by expression id the measures of every evaluated expression."""

    @abstractmethod
    def mask_scores(self, sample_id: str) -> Mapping[str, Mapping[tuple[str, int], float]]:
        """By measure, by (expression id, frame number) what goes onto the predicted detections."""

    @abstractmethod
    def sample_score(self, sample_id: str, name: str) -> float:
        """The mean of a measure over the expressions of a sample."""
