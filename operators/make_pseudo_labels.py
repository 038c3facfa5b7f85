"""The operator that makes IoU pseudo-labels: form, one call of `fiftyone_refvos.make_pseudo_labels`, report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any, cast, get_args

import fiftyone as fo
from fiftyone.operators import types

from fiftyone_refvos.pseudo_labels import AbsentPolicy, PseudoLabels, make_pseudo_labels

from . import forms, reports
from .base import LibraryOperator, Samples
from .masklet_fields import GROUND_TRUTH, FieldChoice, add_fields, add_skip_failures
from .progress import Tell
from .show_view import add_view_button, keep_view

POLICIES: dict[AbsentPolicy, str] = {
    "one": "1, as in GLUS: it was right to predict nothing",
    "zero": "0: the frame shows nothing of the object, and is no key frame",
    "skip": "no label: the frame does not count",
}


@dataclass(frozen=True)
class Choice:
    """What is compared, and where the labels go besides the dataset.

    Attributes:
        folder: an absolute path, None to write no files
        overwrite: whether to replace files in it
    """

    fields: FieldChoice
    absent_policy: AbsentPolicy
    folder: str | None
    overwrite: bool
    skip_failures: bool


class MakePseudoLabels(LibraryOperator[Choice]):
    """Writes the IoU with the true masks on masklets, frame by frame, and on request into files.

    From Python, after `import fiftyone.operators as foo`:

        make = foo.get_operator("@fiftyone-refvos/refvos/make_pseudo_labels")
        make(dataset, "glus", folder="pseudo_labels", delegate=True)
    """

    NAME = "make_pseudo_labels"
    LABEL = "Make pseudo-labels"
    DESCRIPTION = "IoU of masklets with the truth in every frame, for key frame selectors"
    NOTHING_DONE = "The pseudo-labels are not complete"

    def __call__(
        self,
        sample_collection: Samples,
        pred_field: str,
        *,
        gt_field: str = GROUND_TRUTH,
        absent_policy: AbsentPolicy = "one",
        expressions_field: str | None = None,
        folder: str | None = None,
        overwrite: bool = False,
        skip_failures: bool = False,
        delegate: bool = False,
    ) -> Any:
        """Runs or schedules the operator. In notebooks prefer `fiftyone_refvos.make_pseudo_labels`.

        Args:
            sample_collection: a video dataset, a view or a clips view
            pred_field: the frame field with the predicted masklets, without `frames.`
            gt_field: the frame field with the true ones
            absent_policy: what a frame is worth in which both masks are empty
            expressions_field: the sample field with the expressions
            folder: where to write the files for the key frame selector, too
            overwrite: replace files in that folder
            skip_failures: go on after a video that has errors
            delegate: whether to schedule the run for `fiftyone delegated launch` instead of running it now

        Returns:
            as `LibraryOperator.launch`
        """
        params = {
            "pred_field": pred_field,
            "gt_field": gt_field,
            "absent_policy": absent_policy,
            "expressions_field": expressions_field,
            "folder": folder,
            "overwrite": overwrite,
            "skip_failures": skip_failures,
        }
        return self.launch(sample_collection, params, delegate=delegate)

    def read(self, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        return Choice(
            FieldChoice.of(params, dataset),
            absent_policy=cast(AbsentPolicy, params.get("absent_policy") or "one"),
            folder=forms.folder(params.get("folder")),
            overwrite=bool(params.get("overwrite")),
            skip_failures=bool(params.get("skip_failures")),
        )

    def build_form(self, inputs: types.Object, samples: Samples, choice: Choice) -> None:
        if not forms.are_videos(inputs, samples, "given pseudo-labels"):
            return
        if not add_fields(inputs, samples, choice.fields):
            return
        policies = types.RadioGroup()
        for policy, explanation in POLICIES.items():
            policies.add_choice(policy, label=explanation)
        inputs.enum(
            "absent_policy",
            [*get_args(AbsentPolicy)],
            default="one",
            label="Frames without the object in which nothing was predicted get",
            view=policies,
        )
        no_folder = choice.folder is not None and os.path.exists(choice.folder) and not os.path.isdir(choice.folder)
        inputs.str(
            "folder",
            label="Export to a folder on the server",
            description="One JSON file per expression, as the training of GLUS' key frame selector reads them",
            view=types.TextFieldView(placeholder="optional"),
            invalid=no_folder,
            error_message=f"{choice.folder} is a file, not a folder",
        )
        if choice.folder is not None:
            inputs.bool("overwrite", label="Replace files that are there already", default=False)
        add_skip_failures(inputs)
        forms.add_schedule_notice(inputs)

    def run_name(self, choice: Choice) -> str:
        return f"{choice.fields.pred_field} against {choice.fields.gt_field}"

    def first_step(self, choice: Choice) -> str:
        return f"Reading {choice.fields.pred_field}"

    def work(self, samples: Samples, choice: Choice, tell: Tell) -> dict[str, Any]:
        predicted, truth, expressions = choice.fields.names
        labels = make_pseudo_labels(
            samples,
            predicted,
            truth,
            expressions_field=expressions,
            absent_policy=choice.absent_policy,
            skip_failures=choice.skip_failures,
            progress=tell,
        )
        means = _mean_ious(labels)
        worst = samples._root_dataset.select(sorted(means, key=means.__getitem__), ordered=True) if means else None
        return {
            "pred_field": predicted,
            "saved_view": keep_view(samples, f"{predicted}: lowest IoU first", worst),
            "mean_iou": f"{fmean(means.values()):.4f}" if means else "–",
            "num_labels": len(labels.labels),
            "num_videos": len({label.sample_id for label in labels.labels}),
            "num_absent": sum(len(label.absent) for label in labels.labels),
            "num_unpredicted": len(labels.unpredicted),
            "num_failed": len(labels.failures),
            "failures": reports.failure_rows((each.filepath, each.error) for each in labels.failures),
            **_export(labels, choice),
        }

    def build_report(self, outputs: types.Object, result: Mapping[str, Any]) -> None:
        done = f"IoU of {result['num_labels']} expressions written into 'frames.{result['pred_field']}'"
        if result["failures"]:
            outputs.view("title", types.Warning(label=f"{done}; some videos have errors and got none"))
        else:
            outputs.view("title", types.Success(label=done))
        if error := result["export_error"]:
            outputs.view("export_error", types.Error(label="No files were written", description=error))
        labels = {
            "num_videos": "Videos",
            "mean_iou": "Mean IoU of a video",
            "num_absent": "Frames of expressions with neither object nor prediction",
            "num_unpredicted": "Annotated expressions without masklet, which got none",
        }
        if result["num_files"]:
            labels |= {"num_files": "Files", "folder": "In the folder"}
        reports.add_counts(outputs, labels)
        reports.add_failures(outputs, result)
        add_view_button(outputs, result, "Show the videos with the lowest IoU first")


def _mean_ious(labels: PseudoLabels) -> dict[str, float]:
    """The mean IoU of every video that has any, over the frames of its expressions."""
    ious: dict[str, list[float]] = {}
    for label in labels.labels:
        ious.setdefault(label.sample_id, []).extend(iou for iou in label.ious if iou is not None)
    return {sample_id: fmean(values) for sample_id, values in ious.items() if values}


def _export(labels: PseudoLabels, choice: Choice) -> dict[str, Any]:
    """Writes the files if asked to; what goes wrong with them does not undo the labels in the dataset."""
    files, error = [], None
    if choice.folder is not None:
        try:
            files = labels.export(choice.folder, overwrite=choice.overwrite)
        except (OSError, ValueError) as refused:
            error = str(refused)
    return {"num_files": len(files), "folder": choice.folder, "export_error": error}
