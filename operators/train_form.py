"""The form of the operator that trains: model, fields, recipe, validation, and where the result goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import fiftyone as fo
from fiftyone.operators import types

from fiftyone_refvos.fields import EXPRESSIONS
from fiftyone_refvos.models.registry import DEFAULT_MODEL, TRAINABLE
from fiftyone_refvos.training.config import Precision, SamplingConfig, TrainingConfig
from fiftyone_refvos.training.train import hold_out

from . import forms, model_form, paths
from .base import Samples
from .masklet_fields import GROUND_TRUTH, expression_fields, masklet_fields

RECIPE = TrainingConfig()
NUMBERS: dict[str, tuple[type, str]] = {
    "steps": (int, "Steps"),
    "batch_size": (int, "Videos per forward pass"),
    "accumulation": (int, "Forward passes per step"),
    "learning_rate": (float, "Learning rate"),
    "validate_every": (int, "Steps between validations"),
    "save_every": (int, "Steps between checkpoints"),
}
PRECISIONS = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}
NONE, SHARE = "none", "share"
_VIEW = "view:"  # before the name of a saved view
_SHARE = 0.1


@dataclass(frozen=True)
class Choice:
    """What the form, or a caller from Python, has chosen.

    Attributes:
        params: as they came
        model: its name
        checkpoint, clip_path: absolute paths; None for the published ones
        masklets_field: the masks to learn; None if there are none
        min_iou: the least pseudo-label; None for all frames
        no_target: whether expressions that mean nothing are learnt, too
        recipe: numbers by name, as `TrainingConfig` has them
        validation: NONE, SHARE, or `view:` and the name of a saved view
        folder: where the training goes
        run_now: whether a large model may be trained by this very process
    """

    params: Mapping[str, Any]
    model: str
    checkpoint: str | None
    clip_path: str | None
    masklets_field: str | None
    validation_field: str | None
    expressions_field: str
    min_iou: float | None
    no_target: bool
    recipe: Mapping[str, Any]
    validation: str
    validation_share: float
    folder: Path | None
    run_now: bool

    @classmethod
    def of(cls, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        """Reads the parameters of the operator."""
        known, expressions = masklet_fields(dataset), expression_fields(dataset)
        truth = GROUND_TRUTH if GROUND_TRUTH in known else None
        field = params.get("masklets_field") or truth or next(iter(known), None)
        default = EXPRESSIONS if EXPRESSIONS in expressions else next(iter(expressions), EXPRESSIONS)
        given = {name: params[name] for name in (*NUMBERS, "precision", "patience") if params.get(name) is not None}
        share = params.get("validation_share")
        return cls(
            params=params,
            model=params.get("model") or DEFAULT_MODEL,
            checkpoint=forms.folder(params.get("checkpoint")),
            clip_path=forms.folder(params.get("clip_path")),
            masklets_field=field,
            validation_field=params.get("validation_field") or truth or field,
            expressions_field=params.get("expressions_field") or default,
            min_iou=params.get("min_iou"),
            no_target=bool(params.get("no_target")),
            recipe=given,
            validation=params.get("validation") or NONE,
            validation_share=_SHARE if share is None else share,
            folder=paths.given(params, "folder"),
            run_now=bool(params.get("run_now")),
        )

    @property
    def config(self) -> TrainingConfig:
        """The recipe with the numbers of the form.

        Raises:
            ValueError: for numbers that are none
        """
        sampling = SamplingConfig(no_target=self.no_target)
        return TrainingConfig.of_length(**{"steps": RECIPE.steps, "sampling": sampling, **self.recipe})

    def split(self, samples: Samples) -> tuple[Samples, Samples | None]:
        """What is trained on, and what is validated on."""
        if self.validation == SHARE:
            return hold_out(samples, self.validation_share, seed=self.config.seed)
        if self.validation.startswith(_VIEW):
            return samples, samples._root_dataset.load_saved_view(self.validation.removeprefix(_VIEW))
        return samples, None


def build(inputs: types.Object, samples: Samples, choice: Choice) -> None:
    """Adds all inputs to a form."""
    if not forms.are_videos(inputs, samples, "trained on"):
        return
    if samples._is_generated:
        forms.error(inputs, "media", "Whole videos can be trained on, but the target holds clips")
        return
    dataset = samples._root_dataset
    if choice.masklets_field is None or not expression_fields(dataset):
        message = "The target has no field with masks of expressions to learn: annotate it, or import a dataset"
        forms.error(inputs, "masklets_field", message)
        return
    model_form.add_model(inputs, choice, TRAINABLE)
    _add_fields(inputs, dataset, choice)
    _add_recipe(inputs, choice)
    _add_validation(inputs, samples, choice)
    _add_folder(inputs, choice)
    model_form.add_execution(inputs, large=model_form.is_large(choice.model))


def _add_fields(inputs: types.Object, dataset: fo.Dataset, choice: Choice) -> None:
    known = {name: name for name in masklet_fields(dataset)}
    forms.dropdown(inputs, "masklets_field", known, default=choice.masklets_field, label="Masks to learn", space=6)
    inputs.float(
        "min_iou",
        label="Least IoU of a frame",
        description="For masks of a model: learn only from frames whose pseudo-label reaches it",
        view=types.FieldView(space=6),
        min=0,
        max=1,
    )
    inputs.bool(
        "no_target",
        label="Learn that there may be no such object",
        description="From expressions without an object, which are left out otherwise",
        default=False,
    )
    expressions = {name: name for name in expression_fields(dataset)}
    if len(expressions) > 1:
        forms.dropdown(
            inputs, "expressions_field", expressions, default=choice.expressions_field, label="Expressions"
        )


def _add_recipe(inputs: types.Object, choice: Choice) -> None:
    try:
        defaults = choice.config
    except ValueError as error:
        forms.error(inputs, "recipe", str(error))
        defaults = RECIPE
    for name, (kind, label) in NUMBERS.items():
        add = inputs.int if kind is int else inputs.float
        wrong = choice.recipe.get(name) is not None and not choice.recipe[name] > 0
        add(
            name,
            label=label,
            default=None if name in choice.recipe else getattr(defaults, name),
            view=types.FieldView(space=4),
            invalid=wrong,
            error_message="Choose a number above 0",
        )
    precisions = {name: PRECISIONS[name] for name in get_args(Precision)}
    forms.dropdown(inputs, "precision", precisions, default=RECIPE.precision, label="Precision", space=4)


def _add_validation(inputs: types.Object, samples: Samples, choice: Choice) -> None:
    views = {f"{_VIEW}{name}": f"the saved view '{name}'" for name in samples._root_dataset.list_saved_views()}
    choices = {NONE: "nothing: save the last parameters", SHARE: "a share of the target, held out", **views}
    forms.dropdown(inputs, "validation", choices, default=NONE, label="Validate, and keep the best, on", space=6)
    if choice.validation == NONE:
        return
    if choice.validation == SHARE:
        inputs.float(
            "validation_share",
            label="Share",
            default=_SHARE,
            view=types.FieldView(space=3),
            invalid=not 0 < choice.validation_share < 1,
            error_message="Choose a share between 0 and 1",
        )
    known = {name: name for name in masklet_fields(samples._root_dataset)}
    forms.dropdown(inputs, "validation_field", known, default=choice.validation_field, label="True masks", space=3)
    inputs.int(
        "patience",
        label="Stop early",
        description="After so many validations in a row without a better one; empty never stops early",
        view=types.FieldView(space=6),
        min=1,
    )


def _add_folder(inputs: types.Object, choice: Choice) -> None:
    problem = paths.unwritable(choice.folder) if choice.folder is not None else None
    paths.add(
        inputs,
        "folder",
        choice.params,
        label="Folder for the training",
        description="Gets the adapter, a merged checkpoint, a plot, logs, and checkpoints to resume from",
        error=problem,
        folder=True,
        required=True,
    )
    if choice.folder is not None and problem is None and (choice.folder / "checkpoints").is_dir():
        notice = "The folder holds a training: with the same settings it goes on, with others it is refused."
        inputs.view("folder_notice", types.Notice(label=notice))
