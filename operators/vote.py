"""The operator that lets fields vote: form, one call of `fiftyone_refvos.vote`, report and view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.message import GeneratedMessage

from fiftyone_refvos import run_records
from fiftyone_refvos.ensemble import Rule
from fiftyone_refvos.fields import EXPRESSIONS
from fiftyone_refvos.vote import NAME, PREDICTED_IOU, Weights, most_disputed, vote

from . import forms, label_fields, reports
from .base import LibraryOperator, Samples
from .masklet_fields import GROUND_TRUTH, evaluations, expression_fields, masklet_fields
from .progress import Tell
from .show_view import add_view_button, keep_view

RULES = {"majority": "more than half of the votes", "report": "more than (N + 1) / 2 of N votes, as in the report"}
EQUAL, EVALUATIONS = "equal", "evaluations"
WEIGHTS = {
    EQUAL: "all the same",
    PREDICTED_IOU: "the scores that models gave their own masks",
    EVALUATIONS: "the J&F of the latest evaluation of each field",
}
NUM_SHOWN = 20
_MEMBER = "member_"


@dataclass(frozen=True)
class Choice:
    """What the form, or a caller from Python, has chosen.

    Attributes:
        params: as they came
        known: the fields that could vote
        fields: those that do
        label_field: for the outcome
        weighing: a key of WEIGHTS
        given: weights that a caller from Python gave instead
    """

    params: Mapping[str, Any]
    known: tuple[str, ...]
    fields: tuple[str, ...]
    label_field: str
    rule: Rule
    weighing: str
    given: Mapping[str, float | str] | None
    expressions_field: str
    overwrite: bool

    @property
    def weights(self) -> str | None:
        """How the votes are weighed, as far as the rule knows weights."""
        return None if self.weighing == EQUAL or self.rule == "report" else self.weighing


class Vote(LibraryOperator[Choice]):
    """Lets several fields of masklets vote on every pixel, and shows what they agree on least.

    From Python, after `import fiftyone.operators as foo`:

        vote = foo.get_operator("@fiftyone-refvos/refvos/vote")
        vote(dataset, ["sa2va", "sa2va_m20", "cutie"], label_field="voted")
    """

    NAME = "vote"
    LABEL = "Vote"
    DESCRIPTION = "One field of masklets out of several, and where they disagree"
    NOTHING_DONE = "Nothing was voted on"

    def __call__(
        self,
        sample_collection: Samples,
        fields: Sequence[str],
        *,
        label_field: str = "voted",
        rule: Rule = "majority",
        weights: Weights | None = None,
        expressions_field: str = EXPRESSIONS,
        overwrite: bool = False,
        delegate: bool = False,
    ) -> Any:
        """Runs or schedules the operator. In notebooks prefer `fiftyone_refvos.vote`.

        Args:
            sample_collection: a video dataset, or a view of its samples
            fields: two or more frame fields with masklets
            label_field: frame field for the outcome
            rule: see `fiftyone_refvos.vote`
            weights: see `fiftyone_refvos.vote`
            expressions_field: the field with the expressions
            overwrite: replace what the label field holds of these samples
            delegate: whether to schedule the run for `fiftyone delegated launch` instead of running it now

        Returns:
            as `LibraryOperator.launch`
        """
        params = {
            "fields": list(fields),
            "label_field": label_field,
            "rule": rule,
            "weights": weights if weights is None or isinstance(weights, str) else dict(weights),
            "expressions_field": expressions_field,
            "overwrite": overwrite,
        }
        return self.launch(sample_collection, params, delegate=delegate)

    def read(self, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        label_field = params.get("label_field") or "voted"
        known = tuple(name for name in masklet_fields(dataset) if name != label_field)
        members = (name for name in known if params.get(_MEMBER + name, _votes_by_default(dataset, name)))
        expressions, weights = expression_fields(dataset), params.get("weights") or EQUAL
        default = EXPRESSIONS if EXPRESSIONS in expressions else next(iter(expressions), EXPRESSIONS)
        return Choice(
            params=params,
            known=known,
            fields=tuple(params.get("fields", members)),
            label_field=label_field,
            rule=cast(Rule, params.get("rule") or "majority"),
            weighing=weights if isinstance(weights, str) else EQUAL,
            given=None if isinstance(weights, str) else weights,
            expressions_field=params.get("expressions_field") or default,
            overwrite=bool(params.get("overwrite")),
        )

    def build_form(self, inputs: types.Object, samples: Samples, choice: Choice) -> None:
        if not forms.are_videos(inputs, samples, "voted on"):
            return
        dataset = samples._root_dataset  # no public name leads there from a clips view
        expressions = expression_fields(dataset)
        if len(choice.known) < 2 or not expressions:
            found = f"but it is: {', '.join(choice.known)}" if choice.known else "but there is none"
            advice = "Segment expressions and Import predictions make them"
            forms.error(inputs, "members", f"Two fields with masklets are needed, {found}. {advice}.")
            return
        _add_members(inputs, choice)
        if len(expressions) > 1:
            names = {name: name for name in expressions}
            forms.dropdown(inputs, "expressions_field", names, default=choice.expressions_field, label="Expressions")
        forms.dropdown(inputs, "rule", RULES, default="majority", label="A pixel is inside by", space=6)
        if choice.given is not None:
            inputs.define_property("weights", types.Object(), label="Weights")
        elif choice.rule == "majority":
            _add_weights(inputs, dataset, choice)
        if label_fields.add(inputs, dataset, choice.label_field):
            label_fields.add_overwrite(
                inputs,
                dataset,
                choice.label_field,
                is_same=lambda former: (
                    former.get("name") == NAME
                    and (former.get("members"), former.get("rule")) == ([*choice.fields], choice.rule)
                ),
                goes_on="Only what is missing is voted on.",
                overwrite=choice.overwrite,
            )
        forms.add_schedule_notice(inputs)

    def run_name(self, choice: Choice) -> str:
        return f"{', '.join(choice.fields)} → {choice.label_field}"

    def first_step(self, choice: Choice) -> str:
        return f"Reading {', '.join(choice.fields)}"

    def work(self, samples: Samples, choice: Choice, tell: Tell) -> dict[str, Any]:
        dataset = samples._root_dataset
        weights = choice.given if choice.given is not None else choice.weights
        report = vote(
            samples,
            choice.fields,
            label_field=choice.label_field,
            rule=choice.rule,
            weights=_latest(dataset, choice.fields) if weights == EVALUATIONS else cast(Weights | None, weights),
            expressions_field=choice.expressions_field,
            overwrite=choice.overwrite,
            progress=tell,
        )
        disputed = most_disputed(samples, choice.label_field, expressions_field=choice.expressions_field)
        rows = _rows(disputed, choice)
        return {
            "label_field": report.label_field,
            "num_videos": report.num_samples,
            "num_expressions": report.num_expressions,
            "num_skipped": report.num_skipped,
            "num_failed": len(report.failures),
            "saved_view": keep_view(samples, f"{choice.label_field}: most disputed", disputed if rows else None),
            "disputed": rows,
            "failures": reports.failure_rows((failure.filepath, failure.error) for failure in report.failures),
        }

    def update_app(
        self, ctx: foo.ExecutionContext, choice: Choice, result: dict[str, Any]
    ) -> Iterator[GeneratedMessage]:
        yield ctx.ops.set_active_fields(sorted({*ctx.active_fields, f"frames.{choice.label_field}"}))

    def build_report(self, outputs: types.Object, result: Mapping[str, Any]) -> None:
        title = f"{result['num_expressions']} masklets written into 'frames.{result['label_field']}'"
        outputs.view("title", (types.Warning if result["failures"] else types.Success)(label=title))
        labels = {
            "num_videos": "Videos that were voted on",
            "num_skipped": "Videos that were complete",
            "num_failed": "Videos that failed",
        }
        reports.add_counts(outputs, labels)
        if result["disputed"]:
            columns = {"agreement": "Agreement", "text": "Expression", "video": "File"}
            reports.add_table(outputs, "disputed", columns, label="Most disputed")
        reports.add_failures(outputs, result)
        add_view_button(outputs, result, "Show the most disputed first")


def _votes_by_default(dataset: fo.Dataset, field: str) -> bool:
    """Whether a field is neither the truth nor the outcome of a vote."""
    return field != GROUND_TRUTH and (run_records.made_by(dataset, field) or {}).get("name") != NAME


def _add_members(inputs: types.Object, choice: Choice) -> None:
    """A box for every field."""
    if "fields" in choice.params:
        inputs.list("fields", types.String(), label="Fields that vote")
        return
    inputs.view("members", types.Header(label="Fields that vote", divider=True))
    for name in choice.known:
        view = types.CheckboxView(space=3)
        inputs.bool(_MEMBER + name, label=name, default=name in choice.fields, view=view)
    if len(choice.fields) < 2:
        forms.error(inputs, "too_few", "Tick at least two fields")
    elif len(choice.fields) % 2 == 0:
        notice = "Of an even number of votes half is not enough: where they tie, there is no mask"
        inputs.view("even", types.Notice(label=notice))


def _add_weights(inputs: types.Object, dataset: fo.Dataset, choice: Choice) -> None:
    """What the votes count; an evaluation of every field can weigh them."""
    lacking = [field for field in choice.fields if field not in _latest(dataset, choice.fields)]
    wrong = choice.weighing == EVALUATIONS and bool(lacking)
    forms.dropdown(
        inputs,
        "weights",
        WEIGHTS,
        default=EQUAL,
        label="Votes count",
        space=6,
        invalid=wrong,
        error_message=f"There is no evaluation of {', '.join(lacking)}: Evaluate masklets makes one" if wrong else "",
    )


def _latest(dataset: fo.Dataset, fields: Sequence[str]) -> dict[str, float | str]:
    """The latest evaluation of every field that has one."""
    latest: dict[str, float | str] = {}
    for key, config in evaluations(dataset).items():
        if config.pred_field in fields:
            latest.setdefault(config.pred_field, key)
    return latest


def _rows(disputed: fo.DatasetView, choice: Choice) -> list[dict[str, str]]:
    """The expressions that are agreed on least."""
    field = choice.expressions_field
    paths = [f"{field}.{choice.label_field}_agreement", f"{field}.label", "filepath"]
    found = zip(*disputed.limit(NUM_SHOWN).values(paths), strict=True)
    return [
        {"agreement": f"{agreement:.4f}", "text": text, "video": Path(path).name} for agreement, text, path in found
    ]
