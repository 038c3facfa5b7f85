"""The operator that finds failures: form, one call of `fiftyone_refvos.find_failures`, report and view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.message import GeneratedMessage

from fiftyone_refvos.failure_analysis import find_failures
from fiftyone_refvos.failures import FailureKind
from fiftyone_refvos.fields.failures import kind_field, runs_field
from fiftyone_refvos.fields.schema import label_path

from . import forms, reports
from .base import LibraryOperator, Samples
from .masklet_fields import add_skip_failures, describe, evaluations
from .progress import Tell
from .show_view import add_back_button, add_view_button, keep_view

ALL = "all"
KINDS = [kind.value for kind in FailureKind if kind != FailureKind.NONE]


@dataclass(frozen=True)
class Choice:
    """In which evaluation failures are looked for, None if there is none, and which are shown, None for all."""

    eval_key: str | None
    kind: str | None
    skip_failures: bool


class FindFailures(LibraryOperator[Choice]):
    """Says what is wrong with every masklet of an evaluation, and shows the failures, worst first.

    From Python, after `import fiftyone.operators as foo`:

        find = foo.get_operator("@fiftyone-refvos/refvos/find_failures")
        find(dataset, "glus_eval", kind="identity switch")
    """

    NAME = "find_failures"
    LABEL = "Find failures"
    DESCRIPTION = "What is wrong with the masklets of an evaluation, worst first"
    NOTHING_DONE = "The search was not completed"

    def __call__(
        self,
        sample_collection: Samples,
        eval_key: str,
        *,
        kind: str | None = None,
        skip_failures: bool = False,
        delegate: bool = False,
    ) -> Any:
        """Runs or schedules the operator. In notebooks prefer `fiftyone_refvos.find_failures`.

        Args:
            sample_collection: a video dataset or a view of its samples
            eval_key: the evaluation
            kind: the kind of failures that the view shows; by default all
            skip_failures: go on after a video that has errors
            delegate: whether to schedule the run for `fiftyone delegated launch` instead of running it now

        Returns:
            as `LibraryOperator.launch`
        """
        params = {"eval_key": eval_key, "kind": kind, "skip_failures": skip_failures}
        return self.launch(sample_collection, params, delegate=delegate)

    def read(self, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        kind = params.get("kind") or ALL
        return Choice(
            eval_key=params.get("eval_key") or next(iter(evaluations(dataset)), None),
            kind=None if kind == ALL else kind,
            skip_failures=bool(params.get("skip_failures")),
        )

    def build_form(self, inputs: types.Object, samples: Samples, choice: Choice) -> None:
        if not forms.are_videos(inputs, samples, "searched"):
            return
        known = evaluations(samples._root_dataset)
        if not known:
            forms.error(inputs, "evaluations", "There is no evaluation of masklets yet: Evaluate masklets makes one")
            return
        descriptions = {key: describe(config) for key, config in known.items()}
        forms.dropdown(
            inputs,
            "eval_key",
            {key: key for key in known},
            default=choice.eval_key,
            label="Evaluation",
            descriptions=descriptions,
            description=descriptions.get(choice.eval_key or ""),
        )
        kinds = {ALL: "all kinds", **{kind: kind for kind in KINDS}}
        forms.dropdown(
            inputs,
            "kind",
            kinds,
            default=ALL,
            label="Failures to show",
            description="All kinds are looked for and counted; this chooses what the grid shows",
        )
        add_skip_failures(inputs)
        forms.add_schedule_notice(inputs)

    def run_name(self, choice: Choice) -> str:
        return f"{choice.kind or 'all kinds'} in {choice.eval_key}"

    def first_step(self, choice: Choice) -> str:
        return f"Reading {choice.eval_key}"

    def work(self, samples: Samples, choice: Choice, tell: Tell) -> dict[str, Any]:
        key = str(choice.eval_key)
        view = find_failures(samples, key, kind=choice.kind, skip_failures=choice.skip_failures, progress=tell)
        dataset = samples._root_dataset
        expressions = evaluations(dataset)[key].expressions_field
        counts = samples.count_values(f"{label_path(dataset, expressions)}.{kind_field(key)}")
        found = {kind: counts[kind] for kind in KINDS if kind in counts}
        good, shown = counts.get(FailureKind.NONE.value, 0), len(view)
        return {
            "eval_key": key,
            "kind": choice.kind,
            "saved_view": keep_view(samples, f"{key}: {choice.kind or 'failures'}", view if shown else None),
            "num_shown": shown,
            "num_failures": sum(found.values()),
            "num_judged": sum(found.values()) + good,
            "num_good": good,
            "num_unjudged": counts.get(None, 0),
            "counts": [
                {"kind": kind, "expressions": found[kind]} for kind in sorted(found, key=lambda kind: -found[kind])
            ],
        }

    def update_app(
        self, ctx: foo.ExecutionContext, choice: Choice, result: dict[str, Any]
    ) -> Iterator[GeneratedMessage]:
        """Shows the failures right away; the report leads back."""
        if result["saved_view"] is None:
            return
        predicted = evaluations(ctx.dataset)[result["eval_key"]].pred_field
        fields = {*ctx.active_fields, runs_field(result["eval_key"]), f"frames.{predicted}"}
        yield ctx.ops.set_active_fields(sorted(fields))
        result["former_view"] = ctx.view._serialize()
        yield ctx.ops.set_view(view=ctx.dataset.load_saved_view(result["saved_view"]))

    def build_report(self, outputs: types.Object, result: Mapping[str, Any]) -> None:
        outputs.view("title", _title(result))
        if result["counts"]:
            reports.add_table(outputs, "counts", {"kind": "Kind of failure", "expressions": "Expressions"})
        labels = {
            "num_good": "Expressions without failure",
            "num_unjudged": "Expressions that were not judged, without masklet or truth",
        }
        reports.add_counts(outputs, labels)
        if "former_view" in result:
            where = f"The grid shows them, worst first; later the saved view **{result['saved_view']}** does"
            outputs.view("shown", types.Notice(label=where))
            add_back_button(outputs, result["former_view"])
        else:
            add_view_button(outputs, result, "Show the failures, worst first")


def _title(result: Mapping[str, Any]) -> types.View:
    asked = result["kind"] or "failures"
    failing = f"{result['num_failures']} of {result['num_judged']} expressions of '{result['eval_key']}' fail"
    if result["num_shown"]:
        return types.Warning(label=f"{failing}; {result['num_shown']} videos show {asked}")
    if result["num_failures"]:
        return types.Notice(label=f"{failing}, but none of them is of the kind {asked}")
    return types.Success(label=failing)
