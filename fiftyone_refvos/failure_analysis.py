"""Failures of a model in a FiftyOne dataset: found by the rules of `failures`, written, shown worst first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiftyone_refvos.segment import Progress

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `import fiftyone_refvos` should not
    import fiftyone as fo

    from fiftyone_refvos.failures import FailureConfig
    from fiftyone_refvos.fields.failures import FailureLabel
    from fiftyone_refvos.masklet import Expression, Masklet

logger = logging.getLogger(__name__)


def find_failures(
    samples: fo.Dataset | fo.DatasetView,
    name: str,
    *,
    gt_field: str | None = None,
    eval_key: str | None = None,
    kind: str | Iterable[str] | None = None,
    expressions_field: str | None = None,
    config: FailureConfig | None = None,
    skip_failures: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> fo.DatasetView:
    """Finds out what is wrong with every masklet of a model, and returns a view of it, worst first.

    Writes `<eval_key>_failure`, the kind of failure or "none", on the expressions, and into the sample field
    `<eval_key>_failures` the frames where it happens, as `fo.TemporalDetections` with the kind as label,
    `expression_id`, `expression`, `severity`, for an identity switch `switch_frame`, and `other_object_id` where
    another object was found. Called again, it writes the same; what it says of other expressions stays.

        rv.find_failures(dataset, "glus_eval", kind="identity switch")

    Judged are the expressions that `samples` shows, in all annotated frames. An expression without masklets of
    the model, or without ground truth, gets None.

    Args:
        samples: a video dataset, or a view of its samples; no clips
        name: an evaluation of the dataset, which tells the fields, or the frame field with the masklets
        gt_field: the frame field with the true masks; by default that of the evaluation, or `ground_truth`
        eval_key: prefix of what is written; `name` by default
        kind: one or more kinds of `FailureKind`; all failures by default. Restricts the view, not what is
            written
        expressions_field: the field with the expressions; by default that of the evaluation, or `expressions`
        config: thresholds of the rules
        skip_failures: log what is wrong with a video whose masks cannot be compared, and go on; its expressions
            get None
        progress: called before and after every video

    Returns:
        a view of the samples with such failures, the most severe first, which shows these failures and their
        expressions alone

    Raises:
        FieldError: for clips and images, fields that do not exist or do not hold masks, masks of different size,
            and annotated frames that were not segmented
        ValueError: for an unknown kind
    """
    from fiftyone_refvos.failures import FailureConfig
    from fiftyone_refvos.fields import FieldError
    from fiftyone_refvos.fields.failures import declare_failures
    from fiftyone_refvos.fields.scores import check_masklet_field

    _check_videos(samples)
    kinds = _kinds(kind)
    key = eval_key or name
    fields = _fields_of(samples, name, gt_field, expressions_field)
    for field in (fields.prediction, fields.truth):
        check_masklet_field(samples, field)
    declare_failures(samples, key, expressions_field=fields.expressions)
    judge = _Judge(key, fields, config or FailureConfig())
    ids = samples.values("id")
    for number, sample_id in enumerate(ids):
        if progress is not None:
            progress(Progress(number + 1, len(ids), number / len(ids)))
        try:
            judge.judge(samples[sample_id])
        except FieldError as error:
            if not skip_failures:
                raise
            logger.warning("no failures of %r were looked for: %s", fields.prediction, error)
    if progress is not None and ids:
        progress(Progress(len(ids), len(ids), 1.0))
    return show_failures(samples, key, kind=kinds, expressions_field=fields.expressions)


def show_failures(
    samples: fo.Dataset | fo.DatasetView,
    eval_key: str,
    *,
    kind: str | Iterable[str] | None = None,
    expressions_field: str = "expressions",
) -> fo.DatasetView:
    """The view that `find_failures` returns, of what an earlier call has written; nothing is computed.

    Raises:
        FieldError: if `find_failures` was not called with this key
        ValueError: for an unknown kind
    """
    from fiftyone import ViewField as F

    from fiftyone_refvos.fields import FieldError
    from fiftyone_refvos.fields.failures import kind_field, runs_field

    kinds, field = _kinds(kind), runs_field(eval_key)
    if samples.get_field(field) is None:
        raise FieldError(f"there is no field {field!r}: call find_failures(…, eval_key={eval_key!r}) first")
    shown = samples.filter_labels(expressions_field, F(kind_field(eval_key)).is_in(kinds))
    if kinds == ["none"]:  # which happens nowhere
        return shown
    severity = F(f"{field}.detections.severity").max()
    return shown.filter_labels(field, F("label").is_in(kinds)).sort_by(severity, reverse=True)


@dataclass(frozen=True)
class _Judge:
    """Judges the expressions of one video after the other."""

    eval_key: str
    fields: _Fields
    config: FailureConfig

    def judge(self, sample: fo.Sample) -> None:
        """Finds and writes the failures of the expressions that a sample shows.

        Raises:
            FieldError: for masks that cannot be compared; its expressions get None
        """
        from fiftyone_refvos.fields import FieldError, read_expressions
        from fiftyone_refvos.fields.failures import write_failures

        if sample[self.fields.expressions] is None:
            return
        expressions = read_expressions(sample, self.fields.expressions)
        failures: dict[str, FailureLabel | None] = {expression.id: None for expression in expressions}
        try:
            failures.update(self._failures(sample, expressions))
        except ValueError as error:  # what an earlier call said must not stay either
            write_failures(sample, self.eval_key, dict.fromkeys(failures), expressions_field=self.fields.expressions)
            if isinstance(error, FieldError):
                raise
            fields = f"{self.fields.prediction!r} against {self.fields.truth!r}"
            raise FieldError(f"sample {sample.id} ({sample.filepath}), {fields}: {error}") from error
        write_failures(sample, self.eval_key, failures, expressions_field=self.fields.expressions)

    def _failures(self, sample: fo.Sample, expressions: list[Expression]) -> Iterator[tuple[str, FailureLabel]]:
        from fiftyone_refvos.failures import classify
        from fiftyone_refvos.fields.failures import FailureLabel
        from fiftyone_refvos.fields.objects import read_objects

        ids = [expression.id for expression in expressions]
        predicted = self._masklets(sample, self.fields.prediction, ids)
        true = self._masklets(sample, self.fields.truth, ids)
        judged = [id_ for id_ in ids if id_ in predicted and id_ in true]
        judged = [id_ for id_ in judged if true[id_].num_objects or not self._is_prompt(sample, id_)]
        if not judged:
            return
        masklets = [masklets[id_] for id_ in judged for masklets in (true, predicted)]
        size = next((masklet.size for masklet in masklets if masklet.num_objects), masklets[0].size)
        tracks = read_objects(sample, self.fields.truth, size)
        for id_ in judged:
            others = [track for track in tracks if id_ not in track.expression_ids]
            failure = classify(predicted[id_], true[id_], [track.masklet for track in others], self.config)
            object_id = None if failure.other is None else others[failure.other].object_id
            label = FailureLabel(failure.kind, failure.runs, failure.severity, failure.switch_frame, object_id)
            yield id_, label

    def _masklets(self, sample: fo.Sample, field: str, ids: list[str]) -> dict[str, Masklet]:
        from fiftyone_refvos.fields import read_masklets

        masklets = read_masklets(sample, field, expressions_field=self.fields.expressions, expression_ids=ids)
        return {masklet.expression.id: masklet for masklet in masklets}

    def _is_prompt(self, sample: fo.Sample, expression_id: str) -> bool:
        """Whether somebody typed the expression, so that no mask does not mean no target."""
        from fiftyone_refvos.fields.expressions import labels_by_id
        from fiftyone_refvos.fields.samples import locate

        label = labels_by_id(locate(sample), self.fields.expressions)[expression_id]
        known = ("no_target", "object_ids", f"{self.fields.truth}_text")
        return label.get("kind") == "prompt" and all(label.get(name) is None for name in known)


def _check_videos(samples: fo.Dataset | fo.DatasetView) -> None:
    from fiftyone_refvos.fields import FieldError

    if samples.media_type != "video" or samples._dataset._is_generated:
        made = samples._dataset._is_generated
        kind = "clips, frames or patches" if made else f"{samples.media_type or 'no'} samples"
        raise FieldError(
            f"failures are found in whole videos, but {samples.name or 'this view'!r} holds {kind}: pass the "
            "video dataset, or a view of its samples"
        )


def _kinds(kind: str | Iterable[str] | None) -> list[str]:
    """The asked kinds; all failures by default."""
    from fiftyone_refvos.failures import FailureKind

    known = [each.value for each in FailureKind]
    if kind is None:
        return [each for each in known if each != FailureKind.NONE]
    kinds = [str(each) for each in ([kind] if isinstance(kind, str) else kind)]
    if unknown := [each for each in kinds if each not in known]:
        raise ValueError(f"there is no kind of failure {unknown[0]!r}, only: {', '.join(known)}")
    return kinds


@dataclass(frozen=True)
class _Fields:
    """The frame fields with the predicted and the true masks, and the sample field with the expressions."""

    prediction: str
    truth: str
    expressions: str


def _fields_of(
    samples: fo.Dataset | fo.DatasetView, name: str, gt_field: str | None, expressions_field: str | None
) -> _Fields:
    """What an evaluation of that name says; without one, `name` is the field with the predicted masks."""
    dataset = samples._root_dataset
    config = dataset.get_evaluation_info(name).config if name in dataset.list_evaluations() else None
    prediction = getattr(config, "pred_field", None) or name
    truth = gt_field or getattr(config, "gt_field", None) or "ground_truth"
    expressions = expressions_field or getattr(config, "expressions_field", None) or "expressions"
    return _Fields(prediction.removeprefix("frames."), truth.removeprefix("frames."), expressions)
