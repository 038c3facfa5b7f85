"""The form of the operator that segments: what can be chosen, and what is wrong with a choice.

It is built anew at every keystroke: all it looks at are the schema of the dataset and the record of a run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.core.media as fom
from fiftyone.core.clips import ClipsView
from fiftyone.operators import types

from fiftyone_refvos.fields import EXPRESSIONS, FieldError
from fiftyone_refvos.fields.schema import prompt_type
from fiftyone_refvos.models.registry import DEFAULT_IMAGE_MODEL, DEFAULT_MODEL, IMAGE_MODELS

from . import forms, label_fields
from .base import Samples
from .masklet_fields import KEY_FRAMES, named_after
from .model_form import add_execution, add_model, is_large

DEVICES = {"auto": "auto: GPU where there is one", "cpu": "CPU", "cuda": "GPU"}

# Texts that are no prompts: FiftyOne's own, and where folder datasets keep their frames.
_NO_PROMPTS = {"id", "filepath", "tags", "frames_dir", "frame_names", "image_name"}


@dataclass(frozen=True)
class Choice:
    """What the form, or a caller from Python, has chosen.

    Attributes:
        prompts: the typed ones, () for those of `prompt_field`
        prompts_listed: whether they came as a list, which only Python gives, and not as lines of a text
        key_frames: the name of those to start from; None to start from the first frame
        checkpoint, clip_path: absolute paths, as `foz.load_zoo_model` makes them; None for the published ones
        adapter: the absolute path of what a training changed of the model, if that is to be loaded
        device: None for the GPU where there is one
        run_now: whether a large model may be loaded by this very process
    """

    model: str
    label_field: str
    prompts: tuple[str, ...]
    prompts_listed: bool
    prompt_field: str
    key_frames: str | None
    overwrite: bool
    checkpoint: str | None
    clip_path: str | None
    adapter: str | None
    device: str | None
    run_now: bool

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Choice:
        """Reads the parameters of the operator."""
        model = params.get("model") or DEFAULT_MODEL
        typed = params.get("prompts") or ""
        lines = typed.splitlines() if isinstance(typed, str) else typed
        device = params.get("device")
        return cls(
            model=model,
            label_field=params.get("label_field") or model.replace("-", "_"),
            prompts=tuple(line.strip() for line in lines if line.strip()),
            prompts_listed=isinstance(typed, list),
            prompt_field=params.get("prompt_field") or EXPRESSIONS,
            key_frames=params.get("key_frames") or None,
            overwrite=bool(params.get("overwrite")),
            checkpoint=forms.folder(params.get("checkpoint")),
            clip_path=forms.folder(params.get("clip_path")),
            adapter=forms.folder(params.get("adapter")),
            device=None if device == "auto" else device,
            run_now=bool(params.get("run_now")),
        )

    @property
    def model_options(self) -> dict[str, str]:
        """What `foz.load_zoo_model` is to be told besides the name."""
        names = ("checkpoint", "clip_path", "adapter", "device")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def is_large(self) -> bool:
        """Whether the model has billions of parameters, as those have that do not ship with the package."""
        return is_large(self.model)


def build(inputs: types.Object, samples: Samples, choice: Choice) -> None:
    """Adds all inputs to a form.

    Args:
        inputs: the form
        samples: what is to be segmented
        choice: what the form says so far
    """
    if not forms.are_videos_or_images(inputs, samples, "segmented"):
        return
    dataset = samples._root_dataset  # no public name leads there from a clips view
    images = samples.media_type == fom.IMAGE
    if images and samples._dataset._is_generated:
        forms.error(inputs, "media", "Only whole images can be segmented, but the target holds frames or patches")
        return
    if images:
        add_model(inputs, choice, IMAGE_MODELS, DEFAULT_IMAGE_MODEL)
    else:
        add_model(inputs, choice)
    _add_prompts(inputs, dataset, choice, "image" if images else "video")
    if not images:
        _add_key_frames(inputs, dataset, choice)
    can_be = label_fields.add(inputs, dataset, choice.label_field)
    forms.dropdown(inputs, "device", DEVICES, default="auto", label="Device", space=6)
    if can_be:
        label_fields.add_overwrite(
            inputs,
            dataset,
            choice.label_field,
            is_same=lambda former: _is_same_model(former, choice),
            goes_on="The run goes on with what is missing.",
            overwrite=choice.overwrite,
            clips=isinstance(samples, ClipsView),
        )
    add_execution(inputs, large=choice.is_large)


def _add_prompts(inputs: types.Object, dataset: fo.Dataset, choice: Choice, thing: str) -> None:
    fields = _prompt_fields(dataset)
    typed = f"Type what to look for in every {thing}, one thing per line."
    inputs.define_property(
        "prompts",
        types.List(types.String()) if choice.prompts_listed else types.String(),
        label="Prompts",
        description=f"{typed} Leave empty to take them from a field." if fields else typed,
        required=not fields,
        view=types.TextFieldView(multiline=True, rows=3),
    )
    if choice.prompts or not fields:
        return
    forms.dropdown(
        inputs,
        "prompt_field",
        {name: name for name in fields},
        default=EXPRESSIONS if EXPRESSIONS in fields else None,
        required=EXPRESSIONS not in fields,
        label="Prompt field",
    )


def _add_key_frames(inputs: types.Object, dataset: fo.Dataset, choice: Choice) -> None:
    field = EXPRESSIONS if choice.prompts else choice.prompt_field
    names = named_after(dataset, field, KEY_FRAMES)
    if names:
        forms.dropdown(
            inputs,
            "key_frames",
            {name: name for name in names},
            default=None,
            label="Key frames",
            description="Start from them, and go on in both directions; empty starts from the first frame",
            required=False,
        )


def _prompt_fields(dataset: fo.Dataset) -> list[str]:
    return [name for name in dataset.get_field_schema() if name not in _NO_PROMPTS and _can_prompt(dataset, name)]


def _can_prompt(dataset: fo.Dataset, field: str) -> bool:
    try:
        prompt_type(dataset, field)
    except FieldError:
        return False
    return True


def _is_same_model(former: Mapping[str, Any], choice: Choice) -> bool:
    """As far as the form can tell; the run itself compares all settings, and says what differs."""
    chosen = {"name": choice.model}
    chosen |= {name: getattr(choice, name) for name in ("checkpoint", "clip_path", "adapter", "key_frames")}
    return all(former.get(name) == value for name, value in chosen.items())
