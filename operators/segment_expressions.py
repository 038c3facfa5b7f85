"""The operator that segments what sentences describe: form, one call of `fiftyone_refvos.segment`, report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.core.media as fom
import fiftyone.operators as foo
import fiftyone.zoo as foz
from fiftyone.operators import types
from fiftyone.operators.message import GeneratedMessage

from fiftyone_refvos.fields import EXPRESSIONS
from fiftyone_refvos.fields.schema import masklet_path
from fiftyone_refvos.models.registry import DEFAULT_IMAGE_MODEL
from fiftyone_refvos.segment import segment

from . import segment_form, segment_report
from .base import LibraryOperator, Samples
from .forms import can_schedule
from .progress import Tell
from .segment_form import Choice


class SegmentingOperator(LibraryOperator[Choice]):
    """What operators that segment have in common: all but what they are called, and their forms."""

    NOTHING_DONE = "Nothing was segmented"

    def resolve_execution_options(self, ctx: foo.ExecutionContext) -> foo.ExecutionOptions:
        """Both ways; where the App can schedule, it is to schedule large models unless asked not to.

        `default_choice_to_delegated` alone does not do it: the App preselects "Execute" where it is allowed.
        """
        choice = self.read(ctx.params, ctx.dataset)
        schedule = choice.is_large and can_schedule() and not choice.run_now
        return foo.ExecutionOptions(allow_immediate_execution=not schedule, allow_delegated_execution=True)

    def run_name(self, choice: Choice) -> str:
        return f"{choice.model} → {choice.label_field}"

    def first_step(self, choice: Choice) -> str:
        return f"Loading {choice.model}"

    def work(self, samples: Samples, choice: Choice, tell: Tell) -> dict[str, Any]:
        report = segment(
            samples,
            foz.load_zoo_model(choice.model, **choice.model_options),
            label_field=choice.label_field,
            prompts=choice.prompts or None,
            prompt_field=choice.prompt_field,
            key_frames=choice.key_frames,
            overwrite=choice.overwrite,
            progress=tell,
        )
        return segment_report.to_result(report)

    def update_app(
        self, ctx: foo.ExecutionContext, choice: Choice, result: dict[str, Any]
    ) -> Iterator[GeneratedMessage]:
        path = masklet_path(ctx.dataset, choice.label_field)
        yield ctx.ops.set_active_fields(sorted({*ctx.active_fields, path}))

    def build_report(self, outputs: types.Object, result: Mapping[str, Any]) -> None:
        segment_report.build(outputs, result)


class SegmentExpressions(SegmentingOperator):
    """Writes masklets of the expressions of videos into a frame field, masks of those of images into a sample field.

    From Python, after `import fiftyone.operators as foo`:

        segment = foo.get_operator("@fiftyone-refvos/refvos/segment_expressions")
        segment(dataset, model="glus-tiny", prompts=["the red circle"], delegate=True)
    """

    NAME = "segment_expressions"
    LABEL = "Segment expressions"
    DESCRIPTION = "Find what sentences describe, in every frame of videos, or in images"

    def __call__(
        self,
        sample_collection: Samples,
        *,
        model: str | None = None,
        label_field: str | None = None,
        prompts: str | Sequence[str] | None = None,
        prompt_field: str = EXPRESSIONS,
        key_frames: str | None = None,
        overwrite: bool = False,
        checkpoint: str | None = None,
        clip_path: str | None = None,
        device: str | None = None,
        delegate: bool = False,
    ) -> Any:
        """Runs or schedules the operator. In notebooks prefer `fiftyone_refvos.segment`.

        Args:
            sample_collection: a dataset of videos or images, a view or a clips view
            model: its name in the zoo; by default the one that ships for such samples
            label_field: frame field for the masklets, sample field for those of images; by default the name of the
                model
            prompts: texts to look for, one per line or a list; by default those of `prompt_field`
            prompt_field: where the expressions are
            key_frames: the name of those to start from, and to go on in both directions
            overwrite: replace what the label field holds
            checkpoint: a folder to load instead of the published weights
            clip_path: a CLIP folder to load instead of the published one
            device: "cpu" or "cuda"; by default the GPU where there is one
            delegate: whether to schedule the run for `fiftyone delegated launch` instead of running it now

        Returns:
            as `LibraryOperator.launch`
        """
        params = {
            "model": model,
            "label_field": label_field,
            "prompts": prompts if prompts is None or isinstance(prompts, str) else list(prompts),
            "prompt_field": prompt_field,
            "key_frames": key_frames,
            "overwrite": overwrite,
            "checkpoint": checkpoint,
            "clip_path": clip_path,
            "device": device,
            "run_now": not delegate,
        }
        return self.launch(sample_collection, params, delegate=delegate)

    def read(self, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        if not params.get("model") and dataset.media_type == fom.IMAGE:
            return Choice.of({**params, "model": DEFAULT_IMAGE_MODEL})
        return Choice.of(params)

    def build_form(self, inputs: types.Object, samples: Samples, choice: Choice) -> None:
        segment_form.build(inputs, samples, choice)
