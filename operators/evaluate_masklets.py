"""The operator that measures masklets: form, one call of `fiftyone_refvos.evaluate`, report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.message import GeneratedMessage

from fiftyone_refvos.evaluate import evaluate
from fiftyone_refvos.evaluation.run import METHOD
from fiftyone_refvos.evaluation.scoring import DEFAULT_IMAGE_PROTOCOL
from fiftyone_refvos.metrics import IMAGE_PROTOCOLS, MEVIS, PROTOCOLS, ImageProtocol, Protocol

from . import forms, reports
from .base import LibraryOperator, Samples
from .masklet_fields import GROUND_TRUTH, FieldChoice, add_fields, add_skip_failures, describe
from .progress import Tell
from .show_view import add_view_button, keep_view

if TYPE_CHECKING:
    from fiftyone_refvos.evaluation.results import MaskletEvaluationResults

SHARES = ("N-acc", "T-acc")  # which no program prints in percent


@dataclass(frozen=True)
class Choice:
    """What is evaluated, and how."""

    fields: FieldChoice
    eval_key: str
    protocol: str
    skip_failures: bool


class EvaluateMasklets(LibraryOperator[Choice]):
    """Scores the masklets of a model against the true ones, as an evaluation of the dataset.

    From Python, after `import fiftyone.operators as foo`:

        evaluate = foo.get_operator("@fiftyone-refvos/refvos/evaluate_masklets")
        evaluate(dataset, "glus", eval_key="glus_eval", delegate=True)
    """

    NAME = "evaluate_masklets"
    LABEL = "Evaluate masklets"
    DESCRIPTION = "J and F of masklets, IoU of masks of images, by a published protocol"
    NOTHING_DONE = "Nothing was evaluated"

    def __call__(
        self,
        sample_collection: Samples,
        pred_field: str,
        *,
        gt_field: str = GROUND_TRUTH,
        eval_key: str | None = None,
        protocol: str | None = None,
        expressions_field: str | None = None,
        skip_failures: bool = False,
        delegate: bool = False,
    ) -> Any:
        """Runs or schedules the operator. In notebooks prefer `fiftyone_refvos.evaluate`.

        Args:
            sample_collection: a dataset of videos or images, a view or a clips view
            pred_field: the field with the predicted masklets, without `frames.`
            gt_field: the field with the true ones
            eval_key: the name of the evaluation; by default `<pred_field>_eval`
            protocol: its name; by default MeViS' for videos, gRefCOCO's for images
            expressions_field: the sample field with the expressions
            skip_failures: go on after a video that has errors
            delegate: whether to schedule the run for `fiftyone delegated launch` instead of running it now

        Returns:
            as `LibraryOperator.launch`
        """
        params = {
            "pred_field": pred_field,
            "gt_field": gt_field,
            "eval_key": eval_key,
            "protocol": protocol,
            "expressions_field": expressions_field,
            "skip_failures": skip_failures,
        }
        return self.launch(sample_collection, params, delegate=delegate)

    def read(self, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        fields = FieldChoice.of(params, dataset)
        return Choice(
            fields,
            eval_key=(params.get("eval_key") or "").strip() or f"{fields.pred_field}_eval",
            protocol=params.get("protocol") or _default_protocol(dataset.media_type),
            skip_failures=bool(params.get("skip_failures")),
        )

    def build_form(self, inputs: types.Object, samples: Samples, choice: Choice) -> None:
        if not forms.are_videos_or_images(inputs, samples, "evaluated"):
            return
        if not add_fields(inputs, samples, choice.fields):
            return
        descriptions = _protocols(samples.media_type)
        forms.dropdown(
            inputs,
            "protocol",
            {name: name for name in descriptions},
            default=_default_protocol(samples.media_type),
            label="Protocol",
            descriptions=descriptions,
            description=descriptions.get(choice.protocol),
        )
        _add_eval_key(inputs, samples._root_dataset, choice.eval_key)
        add_skip_failures(inputs)
        forms.add_schedule_notice(inputs)

    def run_name(self, choice: Choice) -> str:
        return f"{choice.fields.pred_field} → {choice.eval_key}"

    def first_step(self, choice: Choice) -> str:
        return f"Reading {choice.fields.pred_field}"

    def work(self, samples: Samples, choice: Choice, tell: Tell) -> dict[str, Any]:
        predicted, truth, expressions = choice.fields.names
        results = evaluate(
            samples,
            predicted,
            eval_key=choice.eval_key,
            gt_field=truth,
            protocol=choice.protocol,
            expressions_field=expressions,
            skip_failures=choice.skip_failures,
            progress=tell,
        )
        measure = _measure(choice, samples)
        worst = samples._root_dataset.exists(measure).sort_by(measure) if results.expressions else None
        saved = keep_view(samples, f"{choice.eval_key}: worst first", worst)
        return {"eval_key": choice.eval_key, "saved_view": saved, **_to_result(results)}

    def update_app(
        self, ctx: foo.ExecutionContext, choice: Choice, result: dict[str, Any]
    ) -> Iterator[GeneratedMessage]:
        """Shows the score of every video or image in the grid."""
        yield ctx.ops.set_active_fields(sorted({*ctx.active_fields, _measure(choice, ctx.dataset)}))

    def build_report(self, outputs: types.Object, result: Mapping[str, Any]) -> None:
        media = result["media"]
        done = f"{result['num_expressions']} expressions of {result['num_samples']} {media} evaluated"
        if result["failures"]:
            title = types.Warning(label=f"{done}; some {media} have errors and were left out")
        else:
            title = types.Success(label=f"{done}: the evaluation is {result['eval_key']!r}")
        outputs.view("title", title)
        unit = "percent" if result["percent"] else "from 0 to 1"
        shares = [name for name in SHARES if name in result["measures"]]
        if result["percent"] and shares:
            unit += f", {' and '.join(shares)} from 0 to 1"
        label = f"By the protocol {result['protocol']}, {unit}"
        reports.add_table(outputs, "table", {"of": "", **{name: name for name in result["measures"]}}, label=label)
        labels = {
            "num_frames": "Frames of expressions that were compared",
            "num_unpredicted": "Expressions of which nothing was predicted in their video, which count as 0",
            "num_no_target": "Expressions without target",
            "num_failed": f"{media.capitalize()} that were left out",
        }
        reports.add_counts(outputs, {name: label for name, label in labels.items() if result[name] is not None})
        reports.add_failures(outputs, result)
        add_view_button(outputs, result, f"Show the worst {media} first")


def _protocols(media_type: str) -> dict[str, str]:
    """What the protocols for some media are, by name."""
    known: Mapping[str, Protocol | ImageProtocol] = PROTOCOLS if media_type == "video" else IMAGE_PROTOCOLS
    return {name: each.description for name, each in known.items()}


def _default_protocol(media_type: str | None) -> str:
    return MEVIS.name if media_type == "video" else DEFAULT_IMAGE_PROTOCOL.name


def _measure(choice: Choice, samples: Samples) -> str:
    """The field with the score of a sample."""
    return f"{choice.eval_key}_{'JF' if samples.media_type == 'video' else 'iou'}"


def _add_eval_key(inputs: types.Object, dataset: fo.Dataset, key: str) -> None:
    problem = forms.name_problem(key, "name of an evaluation")
    config = dataset.get_evaluation_info(key).config if key in dataset.list_evaluations() else None
    if config is not None and config.method != METHOD:
        problem = f"{key!r} is an evaluation of another kind: choose another name"
    inputs.str(
        "eval_key",
        label="Name of the evaluation",
        description="Fields with the scores begin with it",
        view=types.TextFieldView(placeholder=key),
        invalid=problem is not None,
        error_message=problem or "",
    )
    if config is not None and problem is None:
        notice = f"'{key}' exists already: {describe(config)}. It will be replaced once the new one is complete."
        inputs.view("eval_key_notice", types.Warning(label=notice))


def _to_result(results: MaskletEvaluationResults) -> dict[str, Any]:
    report = results.report()
    rows = {"all": report["metrics"], **report["groups"]}
    measures = list(dict.fromkeys(name for values in rows.values() for name in values))
    digits = 2 if report["percent"] else 4
    return {
        "protocol": report["protocol"],
        "percent": report["percent"],
        "measures": measures,
        "table": [
            {"of": of, **{name: _number(values.get(name), digits) for name in measures}}
            for of, values in rows.items()
        ],
        "media": "images" if "num_images" in report else "videos",
        "num_samples": report.get("num_images", report.get("num_videos")),
        "num_expressions": report["num_expressions"],
        "num_unpredicted": report.get("num_unpredicted"),
        "num_frames": report.get("num_frames"),
        "num_no_target": report.get("num_no_target"),
        "num_failed": report["num_failures"],
        "failures": reports.failure_rows((each["filepath"], each["error"]) for each in results.failures),
    }


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}f}"
