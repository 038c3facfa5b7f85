"""What the operators have in common: a form, one call of `fiftyone_refvos` with progress, a report in its place."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import fiftyone as fo
import fiftyone.core.media as fom
import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.message import GeneratedMessage

from fiftyone_refvos.segment import Progress

from .progress import Tell, Throttle, is_from_app, stream

logger = logging.getLogger(__name__)

Samples: TypeAlias = fo.Dataset | fo.DatasetView
Choice = TypeVar("Choice")


class LibraryOperator(foo.Operator, Generic[Choice]):
    """An operator over one function of the library, which runs at once or from the schedule.

    Attributes:
        NAME: its name in fiftyone.yml, and that of its icon in assets/
        LABEL: its title
        DESCRIPTION: one line about it
        NOTHING_DONE: the title of the report of a run that failed
        COUNTED: what its progress counts
    """

    NAME: ClassVar[str]
    LABEL: ClassVar[str]
    DESCRIPTION: ClassVar[str]
    NOTHING_DONE: ClassVar[str]
    COUNTED: ClassVar[str] = "videos"

    @abstractmethod
    def read(self, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        """What the form, or a caller from Python, has chosen; with defaults for the rest."""

    @abstractmethod
    def build_form(self, inputs: types.Object, samples: Samples, choice: Choice) -> None:
        """Adds all inputs; looks at nothing but the schema and records of runs, since it runs at every keystroke."""

    @abstractmethod
    def run_name(self, choice: Choice) -> str:
        """What a run does, in the list of runs behind the label."""

    @abstractmethod
    def first_step(self, choice: Choice) -> str:
        """What is done before there is progress to tell of."""

    def last_step(self, samples: Samples, result: Mapping[str, Any]) -> str:
        """What is done when there is no more progress to tell of."""
        return f"{len(samples)}/{len(samples)} {self._things(samples)}"

    @abstractmethod
    def work(self, samples: Samples, choice: Choice, tell: Tell) -> dict[str, Any]:
        """Calls the library, and returns what is reported: values that fit into a run record."""

    @abstractmethod
    def build_report(self, outputs: types.Object, result: Mapping[str, Any]) -> None:
        """Adds to an output what is to be shown of a result."""

    def target(self, ctx: foo.ExecutionContext) -> Any:
        """The samples to work on; None for an operator that needs no dataset."""
        return ctx.target_view(require_flat=True)  # also makes FiftyOne add the choice of the target to forms

    def update_app(
        self, ctx: foo.ExecutionContext, choice: Choice, result: dict[str, Any]
    ) -> Iterator[GeneratedMessage]:
        """What the App is told to do once the dataset is reloaded; may add to the result what only it can use."""
        yield from ()

    def launch(self, sample_collection: Samples | None, params: Mapping[str, Any], *, delegate: bool) -> Any:
        """Runs or schedules the operator from Python.

        Returns:
            the `fiftyone.operators.ExecutionResult`; in a notebook, an `asyncio.Task` of it
        """
        given = {name: value for name, value in params.items() if value is not None}
        ctx: dict[str, Any] = {"request_delegation": delegate}
        if sample_collection is not None:
            ctx["view" if isinstance(sample_collection, fo.DatasetView) else "dataset"] = sample_collection
        return foo.execute_operator(self.uri, ctx, params=given)

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name=self.NAME,
            label=self.LABEL,
            description=self.DESCRIPTION,
            icon=f"/assets/{self.NAME}.svg",
            dynamic=True,
            execute_as_generator=True,  # in the App alone, see `execute`
            allow_immediate_execution=True,
            allow_delegated_execution=True,
            risk_level=types.RiskLevel.MEDIUM,
        )

    def resolve_placement(self, ctx: foo.ExecutionContext) -> types.Placement:
        """A button above the grid."""
        button = types.Button(label=self.config.label, icon=self.config.icon, prompt=True)
        return types.Placement(types.Places.SAMPLES_GRID_SECONDARY_ACTIONS, button)

    def resolve_input(self, ctx: foo.ExecutionContext) -> types.Property:
        """The form; runs at every keystroke."""
        inputs = types.Object()
        self.build_form(inputs, self.target(ctx), self.read(ctx.params, ctx.dataset))
        return types.Property(inputs, view=types.View(label=self.config.label))

    def resolve_run_name(self, ctx: foo.ExecutionContext) -> str:
        """What lists of runs show."""
        return f"{self.config.label}: {self.run_name(self.read(ctx.params, ctx.dataset))}"

    def execute(self, ctx: foo.ExecutionContext) -> dict[str, Any] | Iterator[Any]:
        """Does the work, and returns what `resolve_output` shows.

        In the App the messages of a generator are the one way to a progress bar, and not cut off after
        `FIFTYONE_OPERATOR_TIMEOUT`. Everywhere else FiftyOne drops the result of generators, so there it is
        returned.
        """
        choice = self.read(ctx.params, ctx.dataset)
        samples = self.target(ctx)
        if is_from_app(ctx):
            return self._execute_in_app(ctx, samples, choice)
        tell = Throttle(lambda progress: ctx.set_progress(progress.fraction, self._count(progress, samples)))
        ctx.set_progress(0.0, self.first_step(choice))
        result = self.work(samples, choice, tell)
        ctx.set_progress(1.0, self.last_step(samples, result))
        return result

    def _execute_in_app(self, ctx: foo.ExecutionContext, samples: Any, choice: Choice) -> Iterator[GeneratedMessage]:
        yield ctx.ops.set_progress(self.first_step(choice), 0.0)
        updates = stream(lambda tell: self.work(samples, choice, tell))
        try:
            while True:
                progress = next(updates)
                yield ctx.ops.set_progress(self._count(progress, samples), progress.fraction)
        except StopIteration as end:
            result = end.value
            if samples is not None:
                yield ctx.ops.reload_dataset()
            yield from self.update_app(ctx, choice, result)
        except Exception as error:  # raised into the open response it would be shown as a network error
            logger.exception("%s failed", self.uri)
            result = {"error": str(error) or type(error).__name__}
        # takes the place of the progress bar, where a result of the operator would open beside it
        yield ctx.ops.show_output(self._report(result).to_json(), result)

    def resolve_output(self, ctx: foo.ExecutionContext) -> types.Property:
        """What was done, and what failed."""
        return self._report(ctx.results)

    def _report(self, result: Mapping[str, Any] | None) -> types.Property:
        outputs = types.Object()
        if result and (error := result.get("error")):
            outputs.view("title", types.Error(label=self.NOTHING_DONE, description=error))
        elif result:
            self.build_report(outputs, result)
        return types.Property(outputs, view=types.View(label=self.config.label))

    def _count(self, progress: Progress, samples: Samples | None) -> str:
        return f"{progress.video}/{progress.num_videos} {self._things(samples)}"

    def _things(self, samples: Samples | None) -> str:
        """What progress counts; where videos are counted, it counts the images of datasets of images."""
        images = samples is not None and samples.media_type == fom.IMAGE
        return "images" if images and self.COUNTED == "videos" else self.COUNTED
