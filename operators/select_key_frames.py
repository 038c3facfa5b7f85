"""The operator that chooses key frames: form, one call of `fiftyone_refvos.select_key_frames`, report with plots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from fiftyone_refvos.fields import EXPRESSIONS, FieldError
from fiftyone_refvos.key_frame_quality import SelectorQuality, key_frame_quality
from fiftyone_refvos.key_frames import CONFIDENCE, MIDDLE, ORACLE, WITHOUT_WEIGHTS, select_key_frames
from fiftyone_refvos.models.registry import SELECTORS

from . import forms, model_form, reports
from .base import LibraryOperator, Samples
from .masklet_fields import GROUND_TRUTH, expression_fields, masklet_fields
from .progress import Tell

_PLOTTED = 12  # expressions, at most: results are documents of the database


@dataclass(frozen=True)
class Choice:
    """What the form, or a caller from Python, has chosen.

    Attributes:
        masklets_field: whose pseudo-labels or scores are used, and compared with; None if there are none
        checkpoint, clip_path: absolute paths
    """

    selector: str
    field: str
    masklets_field: str | None
    expressions_field: str
    overwrite: bool
    checkpoint: str | None
    clip_path: str | None

    @classmethod
    def of(cls, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        """Reads the parameters of the operator; what they do not say is taken from the schema."""
        selector = params.get("selector") or MIDDLE
        known, expressions = masklet_fields(dataset), expression_fields(dataset)
        of_models = [name for name in known if name != GROUND_TRUTH]
        return cls(
            selector=selector,
            field=params.get("field") or f"{selector.replace('-', '_')}_kf",
            masklets_field=params.get("masklets_field") or next(iter(of_models), None),
            expressions_field=params.get("expressions_field") or next(iter(expressions), EXPRESSIONS),
            overwrite=bool(params.get("overwrite")),
            checkpoint=forms.folder(params.get("checkpoint")),
            clip_path=forms.folder(params.get("clip_path")),
        )

    @property
    def needs_masklets(self) -> bool:
        """Whether the selector chooses by masklets."""
        return self.selector in (ORACLE, CONFIDENCE)

    @property
    def options(self) -> dict[str, str]:
        """With which a selector of the zoo is loaded."""
        if self.selector not in SELECTORS:
            return {}
        return {name: value for name in ("checkpoint", "clip_path") if (value := getattr(self, name)) is not None}


class SelectKeyFrames(LibraryOperator[Choice]):
    """Chooses the frame of every video that shows best what each expression names.

    From Python, after `import fiftyone.operators as foo`:

        select = foo.get_operator("@fiftyone-refvos/refvos/select_key_frames")
        select(dataset, "glus-kfs", field="kfs", checkpoint="/trainings/kfs/selector", delegate=True)
    """

    NAME = "select_key_frames"
    LABEL = "Select key frames"
    DESCRIPTION = "Choose the frame that shows best what each expression names, to start from"
    NOTHING_DONE = "No key frames were selected"

    def __call__(
        self,
        sample_collection: Samples,
        selector: str,
        *,
        field: str | None = None,
        masklets_field: str | None = None,
        expressions_field: str | None = None,
        overwrite: bool = False,
        checkpoint: str | None = None,
        clip_path: str | None = None,
        delegate: bool = False,
    ) -> Any:
        """Runs or schedules the operator. In notebooks prefer `fiftyone_refvos.select_key_frames`.

        Args:
            sample_collection: a video dataset, a view or a clips view
            selector: "middle", "oracle", "confidence", or its name in the zoo
            field: what the attributes of the expressions are named after
            masklets_field: the masklets that the oracle and the confidence choose by
            expressions_field: the sample field with the expressions
            overwrite: choose anew where there are key frames
            checkpoint: a folder with the selector
            clip_path: a CLIP folder to load instead of the checkpoint's own
            delegate: whether to schedule the run for `fiftyone delegated launch` instead of running it now

        Returns:
            as `LibraryOperator.launch`
        """
        params = {
            "selector": selector,
            "field": field,
            "masklets_field": masklets_field,
            "expressions_field": expressions_field,
            "overwrite": overwrite,
            "checkpoint": checkpoint,
            "clip_path": clip_path,
        }
        return self.launch(sample_collection, params, delegate=delegate)

    def read(self, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        return Choice.of(params, dataset)

    def build_form(self, inputs: types.Object, samples: Samples, choice: Choice) -> None:
        if not forms.are_videos(inputs, samples, "searched for key frames"):
            return
        dataset = samples._root_dataset
        if not expression_fields(dataset):
            forms.error(inputs, "expressions", "The target has no expressions: segment it, or import a dataset")
            return
        weighted = {name: spec.description for name, spec in SELECTORS.items()}
        choices = {**WITHOUT_WEIGHTS, **weighted}
        forms.dropdown(
            inputs,
            "selector",
            {name: name for name in choices},
            default=MIDDLE,
            label="Selector",
            descriptions=choices,
        )
        if choice.selector in SELECTORS:
            model_form.add_folder(inputs, "checkpoint", choice.checkpoint, "Selector folder")
            model_form.add_folder(inputs, "clip_path", choice.clip_path, "CLIP folder")
        self._add_fields(inputs, dataset, choice)
        inputs.bool("overwrite", label="Choose anew where there are key frames", default=False)
        forms.add_schedule_notice(inputs)

    def _add_fields(self, inputs: types.Object, dataset: fo.Dataset, choice: Choice) -> None:
        problem = forms.name_problem(choice.field, "name of key frames")
        inputs.str(
            "field",
            label="Name of the key frames",
            description="What the attributes of the expressions are named after: a field of masklets, or another",
            default=choice.field,
            view=types.FieldView(space=6),
            invalid=problem is not None,
            error_message=problem or "",
        )
        known = {name: name for name in masklet_fields(dataset) if name != GROUND_TRUTH}
        if known:
            label = "Choose by the masklets in" if choice.needs_masklets else "Compare with the IoU of"
            forms.dropdown(inputs, "masklets_field", known, default=choice.masklets_field, label=label, space=6)
        elif choice.needs_masklets:
            message = f"{choice.selector!r} chooses by masklets of a model: segment the target first"
            forms.error(inputs, "masklets_field", message)
        fields = {name: name for name in expression_fields(dataset)}
        if len(fields) > 1:
            forms.dropdown(inputs, "expressions_field", fields, default=choice.expressions_field, label="Expressions")

    def run_name(self, choice: Choice) -> str:
        return f"{choice.selector} → {choice.field}"

    def first_step(self, choice: Choice) -> str:
        return f"Opening the selector {choice.selector}"

    def work(self, samples: Samples, choice: Choice, tell: Tell) -> dict[str, Any]:
        report = select_key_frames(
            samples,
            choice.selector,
            field=choice.field,
            masklets_field=choice.masklets_field if choice.needs_masklets else None,
            expressions_field=choice.expressions_field,
            overwrite=choice.overwrite,
            progress=tell,
            **choice.options,
        )
        return {
            "field": report.field,
            "num_videos": report.num_videos,
            "num_expressions": report.num_expressions,
            "num_skipped": report.num_skipped,
            "num_failed": len(report.failures),
            "failures": reports.failure_rows((each.filepath, each.error) for each in report.failures),
            "quality": _quality(samples, choice),
        }

    def build_report(self, outputs: types.Object, result: Mapping[str, Any]) -> None:
        done = f"{result['num_expressions']} key frames written into '{result['field']}_key_frame'"
        kind = types.Warning if result["failures"] else types.Success
        outputs.view("title", kind(label=done))
        labels = {"num_videos": "Videos", "num_skipped": "Videos that were complete before", "num_failed": "Failed"}
        reports.add_counts(outputs, labels)
        reports.add_failures(outputs, result)
        if (quality := result["quality"]) is not None:
            outputs.view("quality_notice", types.Notice(label=quality["summary"]))
            _add_plots(outputs, quality)


def _quality(samples: Samples, choice: Choice) -> dict[str, Any] | None:
    """The selector against the true IoU of a model's masklets, where they have pseudo-labels."""
    if choice.masklets_field is None:
        return None
    try:
        quality = key_frame_quality(
            samples, choice.field, choice.masklets_field, expressions_field=choice.expressions_field
        )
    except FieldError:  # nothing to compare with
        return None
    return {"summary": str(quality), "calibration": _calibration(quality), "expressions": _expressions(quality)}


def _calibration(quality: SelectorQuality) -> list[dict[str, Any]]:
    curve = quality.calibration
    return [
        {
            "name": quality.field,
            "mode": "lines+markers",
            "x": [each.score for each in curve],
            "y": [each.truth for each in curve],
            "text": [f"{each.count} frames" for each in curve],
        }
    ]


def _expressions(quality: SelectorQuality) -> list[dict[str, Any]]:
    """Score and true IoU over the frames, of the expressions whose IoU spreads most."""
    widest = sorted(quality.expressions, key=lambda each: -each.spread)[:_PLOTTED]
    return [
        {
            "title": f"{each.video}: {each.text} (rank correlation {each.spearman:.2f})",
            "data": [
                {"name": "score", "mode": "lines", "x": list(each.frames), "y": list(each.scores)},
                {"name": "true IoU", "mode": "lines", "yaxis": "y2", "x": list(each.frames), "y": list(each.ious)},
            ],
        }
        for each in widest
    ]


def _add_plots(outputs: types.Object, quality: Mapping[str, Any]) -> None:
    layout = {
        "title": "Calibration",
        "xaxis": {"title": "mean score"},
        "yaxis": {"title": "mean true IoU", "range": [0, 1]},
        "height": 320,
    }
    outputs.plot("calibration", data=quality["calibration"], layout=layout)
    for number, each in enumerate(quality["expressions"]):
        layout = {
            "title": each["title"],
            "xaxis": {"title": "frame"},
            "yaxis": {"title": "score"},
            "yaxis2": {"title": "true IoU", "overlaying": "y", "side": "right", "range": [0, 1]},
            "height": 320,
        }
        outputs.plot(f"expression_{number}", data=each["data"], layout=layout)
