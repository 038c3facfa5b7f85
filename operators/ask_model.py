"""The operator that asks a model about images and videos: form, one call of the library, report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.zoo as foz
from fiftyone.operators import types
from fiftyone.operators.message import GeneratedMessage

from fiftyone_refvos.ask import ask, caption, caption_regions
from fiftyone_refvos.ask_runs import AskReport
from fiftyone_refvos.fields.schema import masklet_path
from fiftyone_refvos.models.registry import ANSWERING

from . import forms, model_form, reports
from .base import LibraryOperator, Samples
from .progress import Tell

QUESTION, CAPTION, REGIONS = "question", "caption", "regions"
TASKS = {
    QUESTION: "Answer a question",
    CAPTION: "Describe it, with a mask for each phrase",
    REGIONS: "Describe the boxes, masks or points of a field",
}


@dataclass(frozen=True)
class Choice:
    """What the form, or a caller from Python, has chosen.

    Attributes:
        field: for answers or captions; of regions the attribute of each label
        label_field: for masks; None for none
        checkpoint, clip_path: absolute paths; Sa2VA has no CLIP folder
        device: None for the GPU where there is one
        run_now: whether a large model may be loaded by this very process
    """

    model: str
    task: str
    question: str
    field: str
    label_field: str | None
    regions_field: str | None
    overwrite: bool
    checkpoint: str | None
    device: str | None
    run_now: bool
    clip_path: str | None = None

    @classmethod
    def of(cls, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        """Reads the parameters of the operator; what they do not say is taken from the schema."""
        task = params.get("task") or QUESTION
        label_field = params.get("label_field") or ("things" if task == CAPTION else None)
        return cls(
            model=params.get("model") or ANSWERING[0],
            task=task,
            question=(params.get("question") or "").strip(),
            field=params.get("field") or ("answer" if task == QUESTION else "caption"),
            label_field=label_field,
            regions_field=params.get("regions_field") or next(iter(region_fields(dataset)), None),
            overwrite=bool(params.get("overwrite")),
            checkpoint=forms.folder(params.get("checkpoint")),
            device=None if params.get("device") == "auto" else params.get("device"),
            run_now=bool(params.get("run_now")),
        )

    @property
    def model_options(self) -> dict[str, str]:
        """What `foz.load_zoo_model` is to be told besides the name."""
        return {name: value for name in ("checkpoint", "device") if (value := getattr(self, name)) is not None}


def region_fields(dataset: fo.Dataset) -> list[str]:
    """The sample fields whose labels can mark regions; none in videos."""
    if dataset.media_type != fo.core.media.IMAGE:
        return []
    kinds = (fo.Detections, fo.Keypoints)
    schema = dataset.get_field_schema().items()
    return [name for name, each in schema if getattr(each, "document_type", None) in kinds]


class AskModel(LibraryOperator[Choice]):
    """Writes what a model says of images or videos into fields.

    From Python, after `import fiftyone.operators as foo`:

        ask = foo.get_operator("@fiftyone-refvos/refvos/ask_model")
        ask(dataset, "sa2va-4b", question="What is shown?", field="shown", delegate=True)
    """

    NAME = "ask_model"
    LABEL = "Ask model"
    DESCRIPTION = "Answers, captions with masks, and captions of regions, by a model that sees"
    NOTHING_DONE = "Nothing was asked"
    COUNTED = "samples"

    def __call__(
        self,
        sample_collection: Samples,
        model: str,
        *,
        task: str = QUESTION,
        question: str | None = None,
        field: str | None = None,
        label_field: str | None = None,
        regions_field: str | None = None,
        overwrite: bool = False,
        checkpoint: str | None = None,
        device: str | None = None,
        delegate: bool = False,
    ) -> Any:
        """Runs or schedules the operator. In notebooks prefer `rv.ask`, `rv.caption` and `rv.caption_regions`.

        Args:
            sample_collection: an image or video dataset, or a view of one
            model: its name in the zoo
            task: "question", "caption" or "regions"
            question: free text, of the first task
            field: for the texts; of regions the attribute of each label
            label_field: for the masks of what is shown
            regions_field: with the boxes, masks or points
            overwrite: replace the texts of these samples, each once there is a new one
            checkpoint: a folder to load instead of the published weights
            device: "cpu" or "cuda"; by default the GPU where there is one
            delegate: whether to schedule the run for `fiftyone delegated launch` instead of running it now

        Returns:
            as `LibraryOperator.launch`
        """
        params = {
            "model": model,
            "task": task,
            "question": question,
            "field": field,
            "label_field": label_field,
            "regions_field": regions_field,
            "overwrite": overwrite,
            "checkpoint": checkpoint,
            "device": device,
            "run_now": not delegate,
        }
        return self.launch(sample_collection, params, delegate=delegate)

    def read(self, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        return Choice.of(params, dataset)

    def resolve_execution_options(self, ctx: foo.ExecutionContext) -> foo.ExecutionOptions:
        """Both ways; where the App can schedule, it is to schedule large models unless asked not to."""
        choice = Choice.of(ctx.params, ctx.dataset)
        schedule = model_form.is_large(choice.model) and forms.can_schedule() and not choice.run_now
        return foo.ExecutionOptions(allow_immediate_execution=not schedule, allow_delegated_execution=True)

    def build_form(self, inputs: types.Object, samples: Samples, choice: Choice) -> None:
        if not forms.are_videos_or_images(inputs, samples, "asked about"):
            return
        model_form.add_model(inputs, choice, ANSWERING)
        forms.dropdown(inputs, "task", TASKS, default=QUESTION, label="Task")
        if choice.task == QUESTION:
            inputs.str("question", label="Question", required=True)
        if choice.task == REGIONS:
            self._add_regions(inputs, samples._root_dataset, choice)
        self._add_name(inputs, "field", choice.field, "Attribute" if choice.task == REGIONS else "Field for the text")
        if choice.task != REGIONS:
            self._add_name(inputs, "label_field", choice.label_field, "Label field for masks")
        inputs.bool("overwrite", label="Ask anew where there is a text", default=False)
        model_form.add_execution(inputs, large=model_form.is_large(choice.model))

    def _add_regions(self, inputs: types.Object, dataset: fo.Dataset, choice: Choice) -> None:
        known = {name: name for name in region_fields(dataset)}
        if known:
            forms.dropdown(inputs, "regions_field", known, default=choice.regions_field, label="Regions", space=6)
        else:
            message = "The target has no images with Detections or Keypoints, whose regions could be described"
            forms.error(inputs, "regions_field", message)

    def _add_name(self, inputs: types.Object, name: str, chosen: str | None, label: str) -> None:
        problem = None if chosen is None else forms.name_problem(chosen, "field")
        inputs.str(
            name,
            label=label,
            view=types.TextFieldView(space=6, placeholder=chosen or "optional"),
            invalid=problem is not None,
            error_message=problem or "",
        )

    def run_name(self, choice: Choice) -> str:
        return f"{choice.model} → {choice.field}"

    def first_step(self, choice: Choice) -> str:
        return f"Loading {choice.model}"

    def work(self, samples: Samples, choice: Choice, tell: Tell) -> dict[str, Any]:
        model = foz.load_zoo_model(choice.model, **choice.model_options)
        options: dict[str, Any] = {"overwrite": choice.overwrite, "progress": tell}
        if choice.task == REGIONS:
            options |= {"regions_field": choice.regions_field, "attribute": choice.field}
            return _result(caption_regions(samples, model, **options))
        options["label_field"] = choice.label_field
        if choice.task == CAPTION:
            return _result(caption(samples, model, caption_field=choice.field, **options))
        return _result(ask(samples, model, choice.question, answer_field=choice.field, **options))

    def update_app(
        self, ctx: foo.ExecutionContext, choice: Choice, result: dict[str, Any]
    ) -> Iterator[GeneratedMessage]:
        shown = {str(choice.regions_field)} if choice.task == REGIONS else {choice.field}
        if choice.task != REGIONS and choice.label_field is not None:
            shown.add(masklet_path(ctx.dataset, choice.label_field))
        yield ctx.ops.set_active_fields(sorted({*ctx.active_fields, *shown}))

    def build_report(self, outputs: types.Object, result: Mapping[str, Any]) -> None:
        kind = types.Warning if result["failures"] else types.Success
        outputs.view("title", kind(label=f"{result['num_answers']} texts written into '{result['field']}'"))
        labels = {
            "num_samples": "Samples",
            "num_skipped": "Samples that were complete before",
            "num_failed": "Failed",
            "seconds": "Seconds",
        }
        reports.add_counts(outputs, labels)
        reports.add_failures(outputs, result)


def _result(report: AskReport) -> dict[str, Any]:
    return {
        "field": report.field,
        "num_samples": report.num_samples,
        "num_answers": report.num_answers,
        "num_skipped": report.num_skipped,
        "num_failed": len(report.failures),
        "seconds": round(report.seconds, 1),
        "failures": reports.failure_rows((each.filepath, each.error) for each in report.failures),
    }
