"""Failures of a model in a FiftyOne dataset: found by the rules of `failures`, written, shown worst first."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fiftyone_refvos.segment import Progress

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `import fiftyone_refvos` should not
    import fiftyone as fo

    from fiftyone_refvos.evaluation.pairs import Pair
    from fiftyone_refvos.evaluation.videos import Videos
    from fiftyone_refvos.failures import FailureConfig
    from fiftyone_refvos.fields.failures import FailureLabel
    from fiftyone_refvos.masklet import RLE, Masklet

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

    Judged are the expressions that `samples` shows, in the annotated frames that it shows; clips of one video are
    one video. Void pixels count in no mask. An expression without masklets of the model, or without ground truth,
    gets None; see `evaluate` for typed ones.

    Args:
        samples: a video dataset, a view or a clips view
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
        expressions alone; for clips, of their videos

    Raises:
        FieldError: for images, fields that do not exist or do not hold masks, masks of different size, unknown
            expression ids, and annotated frames that were not segmented
        ValueError: for an unknown kind
    """
    from fiftyone_refvos.evaluation.pairs import Fields
    from fiftyone_refvos.evaluation.videos import Videos
    from fiftyone_refvos.failures import FailureConfig
    from fiftyone_refvos.fields import FieldError
    from fiftyone_refvos.fields.failures import declare_failures

    kinds = _kinds(kind)
    key = eval_key or name
    fields = Fields(*_fields_of(samples, name, gt_field, expressions_field))
    videos = Videos(samples, fields)
    declare_failures(samples, key, expressions_field=fields.expressions)
    judge = _Judge(key, videos, config or FailureConfig())
    ids = [sample_id for sample_id in videos.ids if videos.dataset[sample_id][fields.expressions] is not None]
    for number, sample_id in enumerate(ids):
        if progress is not None:
            progress(Progress(number + 1, len(ids), number / len(ids)))
        try:
            judge.judge(sample_id)
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

    Args:
        samples: what was passed there, or any other part of the dataset
        eval_key: the prefix of what was written
        kind: one or more kinds; all failures by default
        expressions_field: the field with the expressions

    Raises:
        FieldError: if `find_failures` was not called with this key
        ValueError: for an unknown kind
    """
    from fiftyone import ViewField as F

    from fiftyone_refvos.fields import FieldError
    from fiftyone_refvos.fields.failures import kind_field, runs_field
    from fiftyone_refvos.fields.schema import label_path

    kinds, field = _kinds(kind), runs_field(eval_key)
    samples = _whole_videos(samples, expressions_field)
    if samples.get_field(field) is None:
        raise FieldError(f"there is no field {field!r}: call find_failures(…, eval_key={eval_key!r}) first")
    shown = samples.filter_labels(expressions_field, F(kind_field(eval_key)).is_in(kinds))
    of_shown = F(f"${label_path(samples._root_dataset, expressions_field)}.expression_id").contains(
        [F("expression_id")]
    )
    matching = F("label").is_in(kinds) & of_shown
    if kinds == ["none"]:  # which happens nowhere
        return shown.filter_labels(field, matching, only_matches=False)
    severity = F(f"{field}.detections.severity").max()
    return shown.filter_labels(field, matching).sort_by(severity, reverse=True)


def _whole_videos(samples: fo.Dataset | fo.DatasetView, expressions_field: str) -> fo.Dataset | fo.DatasetView:
    """For clips, a view of their videos, with the expressions that they show; anything else as it is."""
    from fiftyone_refvos.fields.expressions import show_expressions
    from fiftyone_refvos.fields.schema import LISTS

    if not samples._is_clips:
        return samples
    videos = samples._root_dataset.select(samples.distinct("sample_id"))
    stored = samples.get_field(expressions_field)
    if stored is None:  # clips of something else show all expressions
        return videos
    inner = LISTS[stored.document_type]
    values = samples.values(f"{expressions_field}.{inner}.id" if inner else f"{expressions_field}.id", unwind=True)
    return show_expressions(videos, expressions_field, [id_ for id_ in values if id_])


def failure_table(samples: fo.Dataset | fo.DatasetView, eval_key: str, *, limit: int = 10) -> str:
    """What `find_failures` has found as text: how often each kind, and the most severe ones.

    Args:
        samples: the view that it returned
        eval_key: the prefix of what it wrote
        limit: how many failures to list
    """
    from collections import Counter

    from fiftyone_refvos.fields.failures import runs_field

    worst: dict[tuple[str, str], Any] = {}
    for sample_id, path, found in zip(
        *samples.values(["id", "filepath", f"{runs_field(eval_key)}.detections"]), strict=True
    ):
        for run in found or ():
            worst.setdefault((sample_id, run.expression_id), (run, path))
    ranked = sorted(worst.values(), key=lambda each: each[0].severity, reverse=True)
    counts = Counter(run.label for run, _ in ranked)
    lines = [f"{count:6}  {kind}" for kind, count in counts.most_common()] or ["no failures"]
    for run, path in ranked[:limit]:
        first, last = run.support
        lines.append(f"{run.severity:.4f}  {run.label}  frames {first}-{last}  {path}  {run.expression}")
    return "\n".join(lines)


@dataclass(frozen=True)
class _Judge:
    """Judges the expressions of one video after the other."""

    eval_key: str
    videos: Videos
    config: FailureConfig

    def judge(self, sample_id: str) -> None:
        """Finds and writes the failures of the expressions that are shown of a video.

        Raises:
            FieldError: for masks that cannot be compared; its expressions get None
        """
        from fiftyone_refvos.fields import FieldError
        from fiftyone_refvos.fields.failures import write_failures

        sample, fields = self.videos.dataset[sample_id], self.videos.fields
        failures: dict[str, FailureLabel | None] = dict.fromkeys(self.videos.wanted(sample_id))
        try:
            failures.update(self._failures(sample))
        except ValueError as error:  # what an earlier call said must not stay either
            write_failures(sample, self.eval_key, dict.fromkeys(failures), expressions_field=fields.expressions)
            if isinstance(error, FieldError):
                raise
            names = f"{fields.prediction!r} against {fields.truth!r}"
            raise FieldError(f"sample {sample.id} ({sample.filepath}), {names}: {error}") from error
        write_failures(sample, self.eval_key, failures, expressions_field=fields.expressions)

    def _failures(self, sample: fo.Sample) -> Iterator[tuple[str, FailureLabel]]:
        from fiftyone_refvos.evaluation.pairs import VOID, common_size
        from fiftyone_refvos.failures import classify
        from fiftyone_refvos.fields.failures import FailureLabel
        from fiftyone_refvos.fields.objects import read_objects
        from fiftyone_refvos.fields.scores import read_areas

        pairs = [pair for pair in self.videos.pairs(sample.id) if pair.prediction is not None]
        if not pairs:
            return
        tracks = read_objects(sample, self.videos.fields.truth, common_size(pairs), exact=True)
        areas = read_areas(sample, VOID) or {}
        void = {number - 1: tuple(rles) for number, rles in areas.items()}
        for pair in pairs:
            others = [track for track in tracks if pair.expression.id not in track.expression_ids]
            prediction, truth = (_masklet(pair, masks) for masks in (pair.prediction or (), pair.truth))
            failure = classify(prediction, truth, [track.masklet for track in others], self.config, void=void)
            object_id = None if failure.other is None else others[failure.other].object_id
            label = FailureLabel(failure.kind, failure.runs, failure.severity, failure.switch_frame, object_id)
            yield pair.expression.id, label


def _masklet(pair: Pair, masks: tuple[tuple[RLE, ...], ...]) -> Masklet:
    """The true or predicted masks of a pair; all scores are 1."""
    import numpy as np

    from fiftyone_refvos.masklet import Masklet

    return Masklet(
        pair.expression,
        pair.size,
        tuple(number - 1 for number in pair.numbers),
        masks,
        np.ones((len(masks), len(masks[0])), dtype=np.float32),
        np.ones(len(masks), dtype=bool),
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


def _fields_of(
    samples: fo.Dataset | fo.DatasetView, name: str, gt_field: str | None, expressions_field: str | None
) -> tuple[str, str, str]:
    """The fields with the predicted and the true masks, and with the expressions.

    An evaluation of that name says them; without one, `name` is the field with the predicted masks.
    """
    dataset = samples._root_dataset
    config = dataset.get_evaluation_info(name).config if name in dataset.list_evaluations() else None

    def said(setting: str) -> str | None:  # FiftyOne's own evaluations name paths
        return (getattr(config, setting, None) or "").removeprefix("frames.") or None

    return (
        said("pred_field") or name,
        gt_field or said("gt_field") or "ground_truth",
        expressions_field or said("expressions_field") or "expressions",
    )
