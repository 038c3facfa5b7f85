"""The operator that segments what sentences describe: form, one call of `fiftyone_refvos.segment`, report."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.zoo as foz
from fiftyone.operators import types
from fiftyone.operators.message import GeneratedMessage

from fiftyone_refvos.fields import EXPRESSIONS
from fiftyone_refvos.models.registry import DEFAULT_MODEL
from fiftyone_refvos.segment import Progress, SegmentReport, segment

from . import segment_form, segment_report
from .progress import Throttle, is_from_app, stream
from .segment_form import Choice

logger = logging.getLogger(__name__)


class SegmentExpressions(foo.Operator):
    """Writes masklets of the expressions of videos into a frame field.

    From Python, after `import fiftyone.operators as foo`:

        segment = foo.get_operator("@fiftyone-refvos/refvos/segment_expressions")
        segment(dataset, model="glus-tiny", prompts=["the red circle"], delegate=True)
    """

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="segment_expressions",
            label="Segment expressions",
            description="Find what sentences describe, in every frame of videos",
            icon="/assets/segment_expressions.svg",
            dynamic=True,
            execute_as_generator=True,  # in the App alone, see `execute`
            allow_immediate_execution=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def __call__(
        self,
        sample_collection: fo.Dataset | fo.DatasetView,
        *,
        model: str = DEFAULT_MODEL,
        label_field: str | None = None,
        prompts: str | Sequence[str] | None = None,
        prompt_field: str = EXPRESSIONS,
        overwrite: bool = False,
        checkpoint: str | None = None,
        clip_path: str | None = None,
        device: str | None = None,
        delegate: bool = False,
    ) -> Any:
        """Runs or schedules the operator. In notebooks prefer `fiftyone_refvos.segment`.

        Args:
            sample_collection: a video dataset, a view or a clips view
            model: its name in the zoo
            label_field: frame field for the masklets; by default the name of the model
            prompts: texts to look for, one per line or a list; by default those of `prompt_field`
            prompt_field: where the expressions are
            overwrite: replace what the label field holds
            checkpoint: a folder to load instead of the published weights
            clip_path: a CLIP folder to load instead of the published one
            device: "cpu" or "cuda"; by default the GPU where there is one
            delegate: whether to schedule the run for `fiftyone delegated launch` instead of running it now

        Returns:
            the `fiftyone.operators.ExecutionResult`; in a notebook, an `asyncio.Task` of it
        """
        params = {
            "model": model,
            "label_field": label_field,
            "prompts": prompts if prompts is None or isinstance(prompts, str) else list(prompts),
            "prompt_field": prompt_field,
            "overwrite": overwrite,
            "checkpoint": checkpoint,
            "clip_path": clip_path,
            "device": device,
            "run_now": not delegate,
        }
        given = {name: value for name, value in params.items() if value is not None}
        samples = "view" if isinstance(sample_collection, fo.DatasetView) else "dataset"
        ctx = {samples: sample_collection, "request_delegation": delegate}
        return foo.execute_operator(self.uri, ctx, params=given)

    def resolve_placement(self, ctx: foo.ExecutionContext) -> types.Placement:
        """A button above the grid."""
        button = types.Button(label=self.config.label, icon=self.config.icon, prompt=True)
        return types.Placement(types.Places.SAMPLES_GRID_SECONDARY_ACTIONS, button)

    def resolve_execution_options(self, ctx: foo.ExecutionContext) -> foo.ExecutionOptions:
        """Both ways; where the App can schedule, it is to schedule large models unless asked not to.

        `default_choice_to_delegated` alone does not do it: the App preselects "Execute" where it is allowed.
        """
        choice = Choice.of(ctx.params)
        schedule = choice.is_large and segment_form.can_schedule() and not choice.run_now
        return foo.ExecutionOptions(allow_immediate_execution=not schedule, allow_delegated_execution=True)

    def resolve_input(self, ctx: foo.ExecutionContext) -> types.Property:
        """The form; runs at every keystroke."""
        inputs = types.Object()
        samples = ctx.target_view(require_flat=True)  # also makes FiftyOne add the choice of the target
        segment_form.build(inputs, samples, Choice.of(ctx.params))
        return types.Property(inputs, view=types.View(label=self.config.label))

    def resolve_run_name(self, ctx: foo.ExecutionContext) -> str:
        """What the App's list of runs shows."""
        choice = Choice.of(ctx.params)
        return f"{self.config.label}: {choice.model} → {choice.label_field}"

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, Any] | Iterator[Any]:
        """Segments, and returns what `resolve_output` shows.

        In the App the messages of a generator are the one way to a progress bar, and not cut off after
        `FIFTYONE_OPERATOR_TIMEOUT`. Everywhere else FiftyOne drops the result of generators, so there it is
        returned.
        """
        choice = Choice.of(ctx.params)
        samples = ctx.target_view(require_flat=True)
        if is_from_app(ctx):
            return self._execute_in_app(ctx, samples, choice)
        tell = Throttle(lambda progress: ctx.set_progress(progress.fraction, _count(progress)))
        ctx.set_progress(0.0, f"Loading {choice.model}")
        report = _segment(samples, choice, tell)
        ctx.set_progress(1.0, f"{len(samples)}/{len(samples)} videos")
        return segment_report.to_result(report)

    def _execute_in_app(
        self, ctx: foo.ExecutionContext, samples: fo.Dataset | fo.DatasetView, choice: Choice
    ) -> Iterator[GeneratedMessage]:
        yield ctx.ops.set_progress(f"Loading {choice.model}", 0.0)
        updates = stream(lambda tell: _segment(samples, choice, tell))
        try:
            while True:
                progress = next(updates)
                yield ctx.ops.set_progress(_count(progress), progress.fraction)
        except StopIteration as end:
            yield ctx.ops.reload_dataset()
            yield ctx.ops.set_active_fields(sorted({*ctx.active_fields, f"frames.{choice.label_field}"}))
            result = segment_report.to_result(end.value)
        except Exception as error:  # raised into the open response it would be shown as a network error
            logger.exception("segmentation failed")
            result = {"error": str(error) or type(error).__name__}
        # takes the place of the progress bar, where a result of the operator would open beside it
        yield ctx.ops.show_output(self._report(result).to_json(), result)

    def resolve_output(self, ctx: foo.ExecutionContext) -> types.Property:
        """What was done, and which videos failed."""
        return self._report(ctx.results)

    def _report(self, result: Mapping[str, Any] | None) -> types.Property:
        outputs = types.Object()
        if result:
            segment_report.build(outputs, result)
        return types.Property(outputs, view=types.View(label=self.config.label))


def _segment(samples: fo.Dataset | fo.DatasetView, choice: Choice, tell: Callable[[Progress], None]) -> SegmentReport:
    return segment(
        samples,
        foz.load_zoo_model(choice.model, **choice.model_options),
        label_field=choice.label_field,
        prompts=choice.prompts or None,
        prompt_field=choice.prompt_field,
        overwrite=choice.overwrite,
        progress=tell,
    )


def _count(progress: Progress) -> str:
    return f"{progress.video}/{progress.num_videos} videos"
