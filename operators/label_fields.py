"""The label field that masklets are written into: whether it can be one, and what becomes of one that exists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from fiftyone_refvos import run_records
from fiftyone_refvos.fields.schema import frame_prefix, masklet_path

from . import forms


def add(inputs: types.Object, dataset: fo.Dataset, name: str) -> bool:
    """Adds the name of a label field to a form.

    Args:
        inputs: the form
        dataset: the dataset
        name: the chosen one, or what it is if nothing is typed

    Returns:
        whether it can be one
    """
    found = problem(dataset, name)
    inputs.str(
        "label_field",
        label="Label field (of the frames)" if frame_prefix(dataset) else "Label field",
        view=types.TextFieldView(space=6, placeholder=name),
        invalid=found is not None,
        error_message=found or "",
    )
    return found is None


def problem(dataset: fo.Dataset, name: str) -> str | None:
    """Why masklets cannot be in a label field of that name; None if they can."""
    if found := forms.name_problem(name, "field"):
        return found
    path = masklet_path(dataset, name)
    stored = dataset.get_field(path)
    kind = getattr(stored, "document_type", None)
    if stored is not None and kind is not fo.Detections:
        return f"{path!r} holds {(kind or type(stored)).__name__}, not Detections: choose another name"
    return None


def add_overwrite(
    inputs: types.Object,
    dataset: fo.Dataset,
    name: str,
    *,
    is_same: Callable[[Mapping[str, Any]], bool],
    goes_on: str,
    overwrite: bool,
    clips: bool = False,
) -> None:
    """Says who made a label field that exists, and asks before it is replaced; of clips it never is.

    Args:
        inputs: the form
        dataset: the dataset
        name: of a label field without problem
        is_same: whether what made the field, by its record, is what would write into it now
        goes_on: what is done then
        overwrite: whether the form says to replace it
        clips: whether the target is a clips view
    """
    if dataset.get_field(masklet_path(dataset, name)) is None:
        return
    former = run_records.made_by(dataset, name)
    same = former is not None and is_same(former)
    maker = "no segmentation run made it" if former is None else f"it was made by {_describe(former)}"
    if same:
        notice = f"'{name}' exists already: {maker}. {goes_on}"
        inputs.view("label_field_notice", types.Notice(label=notice))
    elif clips:
        forms.error(inputs, "label_field_notice", f"'{name}' exists already: {maker}. Choose another label field.")
    else:
        inputs.view("label_field_notice", types.Warning(label=f"'{name}' exists already: {maker}."))
    if not clips:
        inputs.bool(
            "overwrite",
            label="Overwrite: replace what it holds of the target, and start anew",
            default=False,
            invalid=not same and not overwrite,
            error_message="Tick this, or choose another label field",
        )


def _describe(identity: Mapping[str, Any]) -> str:
    settings = ", ".join(f"{name}={value}" for name, value in identity.items() if name != "name")
    return f"{identity.get('name')} ({settings})" if settings else str(identity.get("name"))
