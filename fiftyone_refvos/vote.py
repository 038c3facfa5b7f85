"""Voting over fields of masklets: a field with what most of them say, and how much they agree.

view -> per video the masklets of all members -> a vote per expression -> one bulk write per video. Where the members
agree least is what to look at, and to label, next.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from fiftyone_refvos.ensemble import Rule, Voted, check_rule, check_weights
from fiftyone_refvos.ensemble import vote as let_vote
from fiftyone_refvos.segment import Failure, Progress, SegmentReport, describe

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `import fiftyone_refvos` should not
    import fiftyone as fo

    from fiftyone_refvos.masklet import Expression, Masklet

logger = logging.getLogger(__name__)

PREDICTED_IOU: Literal["predicted_iou"] = "predicted_iou"
Weights = Mapping[str, float | str] | Literal["predicted_iou"]
"""What votes count; see `vote`."""
NAME = "vote"  # of the "model" in the record of the run


def vote(
    samples: fo.Dataset | fo.DatasetView,
    fields: Sequence[str],
    *,
    label_field: str = "voted",
    rule: Rule = "majority",
    weights: Weights | None = None,
    expressions_field: str = "expressions",
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> SegmentReport:
    """Lets fields of masklets vote on every pixel of every expression, and writes the outcome into `label_field`.

        rv.vote(dataset, ["sa2va", "sa2va_m20", "cutie"], label_field="voted")
        session.view = rv.most_disputed(dataset, "voted")

    It is written as if a model had segmented there, with one object per expression. How much the members agree, see
    `ensemble.vote`, stands per frame as `agreement` on the masks and, also for frames without any, in the list
    `<label_field>_agreements` of the expression, and per expression as `<label_field>_agreement`.

    Resumable: called again it does only what is missing. A video that fails is listed in the report and does not stop
    the others; nothing is written for it. Expressions that no member has looked for are passed over; one that some
    members have, and others have not, fails its video.

    Args:
        samples: a video dataset, or a view of its samples
        fields: two or more frame fields with masklets, of models or imported
        label_field: frame field for the outcome
        rule: "majority", more than half of the votes, or "report", the literal rule of the challenge report
        weights: what the votes count; by default all the same. By field a number, or the key of an evaluation of the
            field, whose J&F is taken; or "predicted_iou": of every expression the mean score that the member gave its
            masks, and for a member that sees nothing the mean of the others'
        expressions_field: the field with the expressions
        overwrite: replace what the label field holds of these samples. The masks of a video go once it was voted on;
            one that fails keeps its old masks, but they count as unfinished, and the next call votes again
        progress: called after every video

    Raises:
        ValueError: for fewer than two fields, an unknown rule, weights that do not fit the fields
        FieldError: for images, clips, fields that do not exist or hold no masklets
        FieldExistsError: if the label field was made by a model, by a vote of other members or by another rule
    """
    from fiftyone_refvos import run_records

    ballot = _Ballot.of(samples, fields, label_field, rule, weights, expressions_field)
    ballot.prepare(samples, overwrite=overwrite)
    report = SegmentReport(label_field)
    start = time.monotonic()
    ids, paths = samples.values(["id", "filepath"])
    try:
        for number, (sample_id, path) in enumerate(zip(ids, paths, strict=True), start=1):
            try:
                written = ballot.hold(samples[sample_id])
            except Exception as error:  # whatever it is, the other videos go on
                logger.debug("%s failed", path, exc_info=True)
                report.failures.append(Failure(sample_id, path, describe(error)))
            else:
                report.num_samples += bool(written)
                report.num_skipped += not written
                report.num_expressions += written
            if progress is not None:
                progress(Progress(number, len(ids), number / len(ids)))
    finally:  # also after an interruption: what was written stays, and is accounted for
        report.seconds = time.monotonic() - start
        run_records.save_report(samples._root_dataset, label_field, report)
    if report.failures:
        logger.warning("%s", report)
    return report


def most_disputed(
    samples: fo.Dataset | fo.DatasetView,
    label_field: str,
    *,
    limit: int | None = None,
    expressions_field: str = "expressions",
) -> fo.DatasetView:
    """A view of the expressions that were voted on, one per cell, those that the members agree on least first.

    Each cell is a clip of its video, and shows of the members and of the outcome the masks of its expression alone.

    Args:
        samples: what was voted on, or any other part of the dataset
        label_field: with the outcome
        limit: show so many expressions at most
        expressions_field: the field with the expressions, which are TemporalDetections

    Raises:
        FieldError: if there was no vote into this field, or the expressions cannot be made clips
    """
    import fiftyone as fo
    from fiftyone import ViewField as F

    from fiftyone_refvos import run_records
    from fiftyone_refvos.fields import FieldError

    dataset = samples._root_dataset
    record = run_records.made_by(dataset, label_field) or {}
    if record.get("name") != NAME:
        raise FieldError(f"dataset {dataset.name!r}: no vote made {label_field!r}; rv.vote(…, label_field=…) does")
    kind = getattr(dataset.get_field(expressions_field), "document_type", None)
    if samples._is_clips or kind is not fo.TemporalDetections:
        held = "clips" if samples._is_clips else f"{getattr(kind, '__name__', 'no labels')} in {expressions_field!r}"
        raise FieldError(f"disputes are shown as clips of TemporalDetections of videos, but there are {held}")
    attribute = f"{expressions_field}.{label_field}_agreement"
    clips = samples.to_clips(expressions_field, other_fields=True).exists(attribute).sort_by(attribute)
    of_expression = F("expression_id") == F(f"${expressions_field}.expression_id")
    for field in (label_field, *record["members"]):
        if dataset.get_field(f"frames.{field}") is not None:
            clips = clips.filter_labels(f"frames.{field}", of_expression, only_matches=False)
    return clips if limit is None else clips.limit(limit)


@dataclass(frozen=True)
class _Ballot:
    """Who votes on what, and how."""

    fields: tuple[str, ...]
    label_field: str
    rule: Rule
    weights: Mapping[str, float] | str | None
    expressions_field: str

    @classmethod
    def of(
        cls,
        samples: fo.Dataset | fo.DatasetView,
        fields: Sequence[str],
        label_field: str,
        rule: Rule,
        weights: Weights | None,
        expressions_field: str,
    ) -> _Ballot:
        """Checks all that can be checked before anything is written."""
        from fiftyone_refvos.fields import FieldError, check_label_field
        from fiftyone_refvos.fields.scores import check_expressions_field, check_masklet_field, samples_of_videos

        samples_of_videos(samples)  # refuses images
        if samples._is_clips:
            raise FieldError("masklets of whole videos are voted on, but this is a view of clips: pass their videos")
        check_label_field(label_field)
        if isinstance(fields, str) or len(fields) < 2 or len({*fields}) < len(fields):
            raise ValueError(f"two or more different fields can vote, got {fields!r}")
        if label_field in fields:
            raise ValueError(f"{label_field!r} votes, and cannot hold the outcome too: choose another label field")
        check_expressions_field(samples, expressions_field)
        for field in fields:
            check_masklet_field(samples, field)
        check_rule(rule, weights)
        known = _weights(samples._root_dataset, fields, weights)
        return cls(tuple(fields), label_field, rule, known, expressions_field)

    def prepare(self, samples: fo.Dataset | fo.DatasetView, *, overwrite: bool) -> None:
        """Declares the schema and the run.

        Raises:
            FieldExistsError: if something else made the label field
        """
        from fiftyone_refvos import fields, run_records
        from fiftyone_refvos.fields.scores import declare_scores

        dataset, where = samples._root_dataset, {"expressions_field": self.expressions_field}
        dataset.reload()  # another process may have written the field since
        identity = self._identity(dataset)
        if overwrite:
            run_records.check_overwrite(samples, self.label_field, identity)
        else:
            run_records.check_field(dataset, self.label_field, identity)
        fields.declare_masklet_schema(samples, self.label_field, **where)
        fields.declare_frame_list(samples, self.label_field, "agreements", **where)
        agreement = [f"{self.label_field}_agreement"]
        declare_scores(samples, self.label_field, per_frame=["agreement"], per_expression=agreement, **where)
        run_records.register(dataset, self.label_field, identity)
        if overwrite:
            # Of all at once, for an interrupted run is to go on with what it has not reached. The masks themselves go
            # when there are new ones: a video that fails keeps them, but they count as unfinished.
            fields.mark_all_unfinished(samples, self.label_field, **where)

    def _identity(self, dataset: fo.Dataset) -> dict[str, Any]:
        """What tells this vote from others: a member that another model has made since is another member."""
        from fiftyone_refvos import run_records

        return {
            "name": NAME,
            "members": [*self.fields],
            "rule": self.rule,
            "weights": dict(self.weights) if isinstance(self.weights, Mapping) else self.weights,
            "made_by": {field: run_records.made_by(dataset, field) for field in self.fields},
        }

    def hold(self, sample: fo.Sample) -> int:
        """Votes on what is missing of one video; returns the number of expressions that were written."""
        from fiftyone_refvos import fields

        where = {"expressions_field": self.expressions_field}
        expressions = fields.read_expressions(sample, self.expressions_field)
        done = fields.finished_expressions(sample, self.label_field, **where)
        done &= fields.read_frame_list(sample, self.label_field, "agreements", **where).keys()
        missing = [each for each in expressions if each.id not in done]
        if not missing:
            return 0
        members = self._members(sample, missing)
        if not members and not done:
            raise fields.FieldError(
                f"sample {sample.id} ({sample.filepath}): none of {', '.join(self.fields)} has masklets of its "
                "expressions: segment it first"
            )
        if not members:  # all that was looked for is voted on
            return 0
        try:
            outcomes = [
                let_vote(members[each.id], rule=self.rule, weights=self._weights_of(members[each.id]))
                for each in missing
                if each.id in members
            ]
        except ValueError as error:  # it names expression, fields and frame
            raise fields.FieldError(f"sample {sample.id} ({sample.filepath}), {error}") from error
        self._write(sample, outcomes)
        return len(outcomes)

    def _members(self, sample: fo.Sample, wanted: Sequence[Expression]) -> dict[str, dict[str, Masklet]]:
        """The masklets by field by expression id, of those expressions that were looked for."""
        from fiftyone_refvos import fields

        ids = [each.id for each in wanted]
        texts = {each.id: each.text for each in wanted}
        found: dict[str, dict[str, Masklet]] = {}
        for field in self.fields:
            for masklet in fields.read_masklets(
                sample, field, expressions_field=self.expressions_field, expression_ids=ids, exact=True
            ):
                id_ = masklet.expression.id
                if masklet.expression.text != texts[id_]:
                    raise fields.FieldError(
                        f"sample {sample.id} ({sample.filepath}): expression {id_!r} is {texts[id_]!r} now, but "
                        f"{field!r} was made for {masklet.expression.text!r}: segment it again"
                    )
                found.setdefault(id_, {})[field] = masklet
        for id_, members in found.items():
            if lacking := [field for field in self.fields if field not in members]:
                raise fields.FieldError(
                    f"sample {sample.id} ({sample.filepath}): {lacking[0]!r} has no masklet of expression {id_!r} "
                    f"({texts[id_]!r}), {next(iter(members))!r} has: segment it there, or leave the field out"
                )
        return found

    def _weights_of(self, members: Mapping[str, Masklet]) -> Mapping[str, float] | None:
        """What the votes on one expression count."""
        if self.weights is None or isinstance(self.weights, Mapping):
            return self.weights
        scores = {field: member.score for field, member in members.items() if not member.no_target}
        if not any(scores.values()):
            return None
        # A member that sees nothing scored nothing; with a weight of 0 it could not say so.
        return {field: scores.get(field, fmean(scores.values())) for field in members}

    def _write(self, sample: fo.Sample, outcomes: Sequence[Voted]) -> None:
        from fiftyone_refvos import fields
        from fiftyone_refvos.fields.scores import frame_numbers, write_expression_scores, write_frame_scores

        field, expressions_field = self.label_field, self.expressions_field
        fields.clear_leftovers(sample, field, expressions_field=expressions_field)
        masklets = [each.masklet for each in outcomes]
        fields.write_masklets(sample, field, masklets, expressions_field=expressions_field)
        on_masks, lists, agreed = {}, {}, {}
        for each in outcomes:
            id_, numbers = each.masklet.expression.id, frame_numbers(sample, each.masklet)
            values: list[float | None] = [None] * max(numbers, default=0)
            for number, value in zip(numbers, each.agreement.tolist(), strict=True):
                values[number - 1] = on_masks[id_, number] = value
            lists[id_], agreed[id_] = values, each.agreed
        write_frame_scores(sample, field, {"agreement": on_masks})
        write_expression_scores(sample, {f"{field}_agreement": agreed}, expressions_field)
        # Last: an expression with this list is done.
        fields.write_frame_list(sample, field, "agreements", lists, expressions_field=expressions_field)


def _weights(dataset: fo.Dataset, fields: Sequence[str], weights: Weights | None) -> Mapping[str, float] | str | None:
    """The weights with the J&F of evaluations in place of their keys."""
    if weights is None or weights == PREDICTED_IOU:
        return weights
    if isinstance(weights, str):
        raise ValueError(f"weights are {PREDICTED_IOU!r}, or numbers or evaluations by field, got {weights!r}")
    known = {
        field: _score_of(dataset, field, value) if isinstance(value, str) else float(value)
        for field, value in weights.items()
    }
    protocols = {
        dataset.get_evaluation_info(each).config.protocol for each in weights.values() if isinstance(each, str)
    }
    if len(protocols) > 1:
        raise ValueError(f"the weights are J&F by different protocols, {' and '.join(sorted(protocols))}: use one")
    check_weights(fields, known)
    return known


def _score_of(dataset: fo.Dataset, field: str, key: str) -> float:
    """The J&F, in [0, 1], that an evaluation gave a field."""
    from fiftyone_refvos.evaluation.run import METHOD

    if key not in dataset.list_evaluations(method=METHOD):
        raise ValueError(f"dataset {dataset.name!r} has no evaluation {key!r} of masklets, which weighs {field!r}")
    measured = dataset.get_evaluation_info(key).config.pred_field
    if measured != field:
        raise ValueError(f"the evaluation {key!r} is of {measured!r}, and cannot weigh {field!r}")
    report = dataset.load_evaluation_results(key).report()
    if "J&F" not in report["metrics"]:
        raise ValueError(f"the evaluation {key!r} has no J&F, only {', '.join(report['metrics'])}")
    return float(report["metrics"]["J&F"]) / (100 if report["percent"] else 1)
