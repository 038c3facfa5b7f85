"""The operator that trains a key frame selector: form, one call of `fiftyone_refvos.train_selector`, report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from fiftyone_refvos.fields import EXPRESSIONS
from fiftyone_refvos.training.selector.config import SelectorTrainingConfig
from fiftyone_refvos.training.selector.train import train_selector
from fiftyone_refvos.training.train import hold_out

from . import forms, model_form, paths, reports
from .base import LibraryOperator, Samples
from .masklet_fields import PSEUDO_LABELS, expression_fields, named_after
from .progress import Tell
from .train_model import curves

RECIPE = SelectorTrainingConfig()
_NUMBERS: dict[str, tuple[type, str]] = {
    "steps": (int, "Steps"),
    "accumulation": (int, "Videos per step"),
    "learning_rate": (float, "Learning rate"),
    "validate_every": (int, "Steps between validations"),
}


@dataclass(frozen=True)
class Choice:
    """What the form, or a caller from Python, has chosen.

    Attributes:
        params: as they came
        base, clip_path: absolute paths
        field: what the pseudo-labels are named after; None if there are none
        recipe: numbers by name, as `SelectorTrainingConfig` has them
        validation_share: of the target, to be held out; None to validate on nothing
        folder: where the training goes
    """

    params: Mapping[str, Any]
    base: str | None
    clip_path: str | None
    field: str | None
    expressions_field: str
    recipe: Mapping[str, Any]
    validation_share: float | None
    folder: Path | None

    @classmethod
    def of(cls, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        """Reads the parameters of the operator; what they do not say is taken from the schema."""
        expressions = params.get("expressions_field") or next(iter(expression_fields(dataset)), EXPRESSIONS)
        return cls(
            params=params,
            base=forms.folder(params.get("base")),
            clip_path=forms.folder(params.get("clip_path")),
            field=params.get("field") or next(iter(named_after(dataset, expressions, PSEUDO_LABELS)), None),
            expressions_field=expressions,
            recipe={name: params[name] for name in _NUMBERS if params.get(name) is not None},
            validation_share=params.get("validation_share"),
            folder=paths.given(params, "folder"),
        )

    @property
    def config(self) -> SelectorTrainingConfig:
        """The recipe with the numbers of the form.

        Raises:
            ValueError: for numbers that are none
        """
        return SelectorTrainingConfig.of_length(**{"steps": RECIPE.steps, **self.recipe})


class TrainSelector(LibraryOperator[Choice]):
    """Trains a key frame selector on the pseudo-labels of expressions.

    From Python, after `import fiftyone.operators as foo`:

        train = foo.get_operator("@fiftyone-refvos/refvos/train_selector")
        train(dataset, "/weights/Chat-UniVi", "/trainings/kfs", field="glus", delegate=True)
    """

    NAME = "train_selector"
    LABEL = "Train key frame selector"
    DESCRIPTION = "Learn from the IoU of a model's masks which frames show an expression best"
    NOTHING_DONE = "The training failed"
    COUNTED = "steps"

    def __call__(
        self,
        sample_collection: Samples,
        base: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        *,
        field: str | None = None,
        expressions_field: str | None = None,
        steps: int | None = None,
        accumulation: int | None = None,
        learning_rate: float | None = None,
        validate_every: int | None = None,
        validation_share: float | None = None,
        clip_path: str | None = None,
        delegate: bool = False,
    ) -> Any:
        """Runs or schedules the operator. In notebooks prefer `fiftyone_refvos.train_selector`.

        Args:
            sample_collection: a video dataset, or a view of its samples
            base: a folder with a selector, or with the base of one
            folder: gets all that is written; one that holds this training goes on
            field: what the pseudo-labels are named after
            expressions_field: the sample field with the expressions
            steps, accumulation, learning_rate, validate_every: as `SelectorTrainingConfig` has them
            validation_share: of the target, to be held out
            clip_path: a CLIP folder to load instead of the base's own
            delegate: whether to schedule the run for `fiftyone delegated launch` instead of running it now

        Returns:
            as `LibraryOperator.launch`
        """
        params = {
            "base": os.path.abspath(base),
            "folder": os.path.abspath(folder),
            "field": field,
            "expressions_field": expressions_field,
            "steps": steps,
            "accumulation": accumulation,
            "learning_rate": learning_rate,
            "validate_every": validate_every,
            "validation_share": validation_share,
            "clip_path": clip_path,
        }
        return self.launch(sample_collection, params, delegate=delegate)

    def read(self, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        return Choice.of(params, dataset)

    def build_form(self, inputs: types.Object, samples: Samples, choice: Choice) -> None:
        if not forms.are_videos(inputs, samples, "learnt from"):
            return
        known = {name: name for name in named_after(samples._root_dataset, choice.expressions_field, PSEUDO_LABELS)}
        if samples._is_generated or not known:
            message = "The target has no pseudo-labels of whole videos: Make pseudo-labels writes them"
            forms.error(inputs, "field", message)
            return
        forms.dropdown(inputs, "field", known, default=choice.field, label="Pseudo-labels of", space=6)
        model_form.add_folder(inputs, "base", choice.base, "Folder of the base, or of a selector", required=True)
        model_form.add_folder(inputs, "clip_path", choice.clip_path, "CLIP folder")
        self._add_recipe(inputs, choice)
        wrong = choice.validation_share is not None and not 0 < choice.validation_share < 1
        inputs.float(
            "validation_share",
            label="Hold out a share to validate on",
            description="Keeps the parameters with the best rank correlation; empty validates on nothing",
            view=types.FieldView(space=6),
            invalid=wrong,
            error_message="Choose a share between 0 and 1",
        )
        paths.add(
            inputs,
            "folder",
            choice.params,
            label="Folder for the training",
            description="Gets the selector, a plot, logs, and checkpoints to resume from",
            error=paths.unwritable(choice.folder) if choice.folder is not None else None,
            folder=True,
            required=True,
        )
        forms.add_schedule_notice(inputs)

    def _add_recipe(self, inputs: types.Object, choice: Choice) -> None:
        try:
            defaults = choice.config
        except ValueError as error:
            forms.error(inputs, "recipe", str(error))
            defaults = RECIPE
        for name, (kind, label) in _NUMBERS.items():
            add = inputs.int if kind is int else inputs.float
            default = None if name in choice.recipe else getattr(defaults, name)
            add(name, label=label, default=default, view=types.FieldView(space=3))

    def run_name(self, choice: Choice) -> str:
        return f"{choice.field} → {choice.folder}"

    def first_step(self, choice: Choice) -> str:
        return f"Loading {choice.base}, and reading the labels of {choice.field!r}"

    def last_step(self, samples: Samples, result: Mapping[str, Any]) -> str:
        return f"{result['steps']} {self.COUNTED}"

    def work(self, samples: Samples, choice: Choice, tell: Tell) -> dict[str, Any]:
        if choice.folder is None or choice.base is None or choice.field is None:  # forms do not let it pass
            raise ValueError("choose pseudo-labels, the folder of a base, and a folder for the training")
        config, validation = choice.config, None
        if choice.validation_share is not None:
            samples, validation = hold_out(samples, choice.validation_share, seed=config.seed)
        trained = train_selector(
            samples,
            choice.base,
            field=choice.field,
            folder=choice.folder,
            config=config,
            validation_view=validation,
            expressions_field=choice.expressions_field,
            clip_path=choice.clip_path,
            progress=tell,
        )
        return {
            "folder": str(trained.folder),
            "checkpoint": str(trained.checkpoint),
            "plot": str(trained.plot),
            "steps": trained.steps,
            "validation": None if trained.validation is None else f"{trained.validation:.4f}",
            "validated_step": trained.validated_step,
            "stopped_because": trained.stopped_because,
            "data": [{"source": name, "report": report} for name, report in trained.reports.items()],
            "curves": curves(trained.folder, "rank correlation"),
        }

    def build_report(self, outputs: types.Object, result: Mapping[str, Any]) -> None:
        done = f"The selector was trained for {result['steps']} steps: it is in {result['checkpoint']}"
        outputs.view("title", types.Success(label=done))
        layout = {"title": "Losses", "xaxis": {"title": "step"}, "yaxis": {"title": "loss"}, "height": 360}
        labels = {"plot": "Picture of the curves"}
        if result["validation"] is not None:
            second = {"title": "rank correlation", "overlaying": "y", "side": "right", "range": [-1, 1]}
            layout |= {"yaxis2": second}
            labels |= {"validation": "Rank correlation of the saved parameters", "validated_step": "After step"}
        outputs.plot("curves", data=result["curves"], layout=layout)
        reports.add_counts(outputs, labels)
        reports.add_table(outputs, "data", {"source": "Trained on", "report": ""})
