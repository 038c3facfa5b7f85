"""The part of forms that chooses a model: its name, and local copies of what it is loaded from."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Protocol

from fiftyone.operators import types

from fiftyone_refvos.models.registry import CLIP, DEFAULT_MODEL, MODELS

from . import forms


class ModelChoice(Protocol):
    """What a form says of its model.

    Attributes:
        model: its name
        checkpoint, clip_path: absolute paths; None for the published ones
    """

    @property
    def model(self) -> str: ...

    @property
    def checkpoint(self) -> str | None: ...

    @property
    def clip_path(self) -> str | None: ...


def add_model(
    inputs: types.Object,
    choice: ModelChoice,
    names: Collection[str] = tuple(MODELS),
    default: str = DEFAULT_MODEL,
) -> None:
    """Adds the choice of one of some models to a form, and says what it downloads."""
    forms.dropdown(
        inputs,
        "model",
        {name: name for name in names},
        default=default if default in names else next(iter(names)),
        label="Model",
        descriptions={name: MODELS[name].description for name in names},
        invalid=choice.model not in names,
        error_message=f"{choice.model!r} is none of the models, which are {', '.join(names)}",
    )
    if choice.model in MODELS:
        inputs.view("model_notice", types.Notice(label=_about(choice)))
    add_folder(inputs, "checkpoint", choice.checkpoint, "Checkpoint folder")
    if _takes_clip(choice.model):
        add_folder(inputs, "clip_path", choice.clip_path, "CLIP folder")


def _takes_clip(model: str) -> bool:
    return model in MODELS and MODELS[model].system == "glus"


def is_large(model: str) -> bool:
    """Whether a model has billions of parameters, as those have that do not ship with the package."""
    return model in MODELS and MODELS[model].source is not None


def _about(choice: ModelChoice) -> str:
    spec = MODELS[choice.model]
    clip = CLIP if _takes_clip(choice.model) else None
    sources = [
        f"{source.size_bytes / 2**30:.1f} GiB from huggingface.co/{source.repo_id}, licence: {source.licence}"
        for source, local in (
            (spec.source, choice.checkpoint),
            (clip, choice.clip_path),
        )
        if spec.source is not None and source is not None and local is None
    ]
    download = f" The first run downloads {'; and '.join(sources)}." if sources else ""
    return f"{spec.description}.{download}"


def add_folder(inputs: types.Object, name: str, folder: str | None, label: str, *, required: bool = False) -> None:
    """Adds a folder on the server to load from."""
    inputs.str(
        name,
        label=label,
        required=required,
        view=types.TextFieldView(space=6, placeholder="" if required else "optional, a local copy"),
        invalid=folder is not None and not os.path.isdir(folder),
        error_message=f"There is no folder {folder} on the server",
    )


def add_execution(inputs: types.Object, *, large: bool) -> None:
    """Says how to schedule a run, and leads runs of large models there."""
    if not large:
        forms.add_schedule_notice(inputs)
    elif forms.can_schedule():
        advice = f"A model of this size is scheduled: {forms.WHERE_TO_LAUNCH}"
        inputs.view("schedule_notice", types.Warning(label=advice))
        inputs.bool("run_now", label="Run it now instead, in the process of the App's server", default=False)
    else:
        advice = (
            "Execute loads this large model into the process of the App's server. "
            f"Better schedule it: {forms.how_to_schedule()}choose Schedule, and {forms.WHERE_TO_LAUNCH}"
        )
        inputs.view("schedule_notice", types.Warning(label=advice))
