"""Files and folders on the server: chosen in the App's file explorer, typed, or passed from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fiftyone.operators import types


def given(params: Mapping[str, Any], name: str) -> Path | None:
    """A path that a form, which gives a file object, or a caller from Python has given; None for none."""
    value = params.get(name)
    text = value.get("absolute_path") if isinstance(value, Mapping) else value
    return Path(os.path.expanduser(text.strip())) if text and text.strip() else None


def problem(path: Path) -> str | None:
    """Why nothing can be read from or written to a path; None if it is a good one.

    The server's working directory means nothing to whoever fills in a form: relative paths are refused.
    """
    if "\0" in str(path) or not path.is_absolute():
        return f"'{path}' is not an absolute path: begin with /"
    if not path.exists() and not path.parent.is_dir():
        return f"There is no folder {path.parent} on the server"
    return None


def missing(path: Path, *, folder: bool = False) -> str | None:
    """Why nothing can be read from a path; None if it is there."""
    if found := problem(path):
        return found
    if folder and not path.is_dir():
        return f"There is no folder {path} on the server"
    return None if path.exists() else f"There is no file or folder {path} on the server"


def unwritable(path: Path) -> str | None:
    """Why no folder can be made or filled at a path; None if one can."""
    if found := problem(path):
        return found
    if path.exists() and not path.is_dir():
        return f"{path} is a file, but has to be a folder"
    existing = path if path.is_dir() else path.parent
    return None if os.access(existing, os.W_OK | os.X_OK) else f"{existing} cannot be written by the server"


def add(
    inputs: types.Object,
    name: str,
    params: Mapping[str, Any],
    *,
    label: str,
    error: str | None = None,
    description: str | None = None,
    folder: bool = False,
    required: bool = False,
) -> None:
    """Adds a path to a form: typed, or chosen in the file explorer.

    Args:
        inputs: the form
        name: of the parameter
        params: what the form holds so far; a path from Python is text
        label: of the input
        error: what is wrong with the path
        description: what is explained of the input
        folder: whether the explorer offers folders alone
        required: whether the form is invalid without a path
    """
    from_python = isinstance(params.get(name), str)
    inputs.define_property(
        name,
        types.String() if from_python else types.File(),
        label=label,
        description=description,
        required=required,
        view=None if from_python else types.FileExplorerView(choose_dir=folder),
        invalid=error is not None,
        error_message=error or "",
    )
