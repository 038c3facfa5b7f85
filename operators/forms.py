"""Inputs that several forms have, and what they list: all of it from the schema of the dataset alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from .base import Samples

WHERE_TO_LAUNCH = "run `fiftyone delegated launch` on a machine that sees the same database and files."


def error(inputs: types.Object, name: str, message: str) -> None:
    """A message that makes the form invalid."""
    inputs.view(name, types.Error(label=message), invalid=True, error_message=message)


def are_videos(inputs: types.Object, samples: Samples, done: str) -> bool:
    """Whether the target holds videos; if not, the form says so.

    Args:
        inputs: the form
        samples: the target
        done: what can be done with videos, e.g. "segmented"
    """
    return _are(inputs, samples, done, ("video",))


def are_videos_or_images(inputs: types.Object, samples: Samples, done: str) -> bool:
    """As `are_videos`, for what can be done with images, too."""
    return _are(inputs, samples, done, ("video", "image"))


def _are(inputs: types.Object, samples: Samples, done: str, kinds: tuple[str, ...]) -> bool:
    if samples.media_type in kinds:
        return True
    held = f"{samples.media_type} samples" if samples.media_type else "no samples"
    names = " and ".join(f"{kind}s" for kind in kinds)
    error(inputs, "media", f"Only {names} can be {done}, but the target holds {held}")
    return False


def dropdown(
    inputs: types.Object,
    name: str,
    choices: Mapping[str, str],
    *,
    label: str,
    default: str | None,
    descriptions: Mapping[str, str] | None = None,
    description: str | None = None,
    space: int = 12,
    **options: Any,
) -> None:
    """A choice of one of several values.

    Args:
        inputs: the form
        name: of the parameter
        choices: what is shown of every value
        label: of the input
        default: the value that is chosen already
        descriptions: what is explained of the values
        description: what is explained of the input
        space: its width, of 12
        **options: further ones of `types.Object.enum`
    """
    view = types.DropdownView(space=space)
    for value, shown in choices.items():
        view.add_choice(value, label=shown, description=(descriptions or {}).get(value))
    inputs.enum(name, [*choices], default=default, label=label, description=description, view=view, **options)


def name_problem(name: str, what: str) -> str | None:
    """Why a text cannot be the name of a field, or of what fields are named after; None if it can."""
    if not name.isidentifier() or name.startswith("_"):
        return f"{name!r} cannot be a {what}: use letters, digits and _, and begin with a letter"
    return None


def can_schedule() -> bool:
    """Whether the App offers to schedule; FiftyOne without Enterprise does so if this setting is on."""
    return bool(fo.config.allow_legacy_orchestrators)


def how_to_schedule() -> str:
    """What to do before the App offers to schedule; empty if it does."""
    return "" if can_schedule() else "start the App with `FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS=true`, "


def add_schedule_notice(inputs: types.Object) -> None:
    """Says how to schedule a long run."""
    advice = (
        f"Long runs belong in the schedule: {how_to_schedule()}choose Schedule beside Execute, and {WHERE_TO_LAUNCH}"
    )
    inputs.view("schedule_notice", types.Notice(label=advice))


def folder(path: str | None) -> str | None:
    """An absolute path, as `foz.load_zoo_model` makes it; None for an empty text."""
    return os.path.abspath(os.path.expanduser(path.strip())) if path and path.strip() else None
