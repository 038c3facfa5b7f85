"""Views that reports lead to: kept with the dataset by name, and shown in the grid by a button."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types

from .base import Samples

_URI = "@fiftyone-refvos/refvos/show_view"


class ShowView(foo.Operator):
    """Shows a view in the grid; what the buttons of reports call."""

    @property
    def config(self) -> foo.OperatorConfig:
        return foo.OperatorConfig(
            name="show_view", label="Show a view in the grid", unlisted=True, risk_level=types.RiskLevel.LOW
        )

    def execute(self, ctx: foo.ExecutionContext) -> None:
        """Shows the saved view `name`, or the view of these serialized `stages`.

        The App is sent stages: by name it finds only views that were there when it last loaded the dataset.
        """
        name = ctx.params.get("name")
        if name is None:
            view = fo.DatasetView._build(ctx.dataset, ctx.params["stages"])
        else:
            view = ctx.dataset.load_saved_view(name)
        ctx.ops.set_view(view=view)


def keep_view(samples: Samples, name: str, view: fo.DatasetView | None) -> str | None:
    """Saves a view with the dataset, where schedules and later days find it, and returns its name.

    Without a view there is nothing to show: an earlier one of that name goes.
    """
    dataset = samples._root_dataset
    if view is not None:
        dataset.save_view(name, view, overwrite=True)
        return name
    if dataset.has_saved_view(name):
        dataset.delete_saved_view(name)
    return None


def add_view_button(outputs: types.Object, result: Mapping[str, Any], label: str) -> None:
    """A button to the view that a result has kept, and how to come to it otherwise."""
    name = result["saved_view"]
    if name is None:
        return
    outputs.view("show_view", types.Button(label=label, operator=_URI, params={"name": name}, variant="contained"))
    outputs.view("saved_view_notice", types.Notice(label=f"It stays as the saved view **{name}**"))


def add_back_button(outputs: types.Object, stages: list[dict[str, Any]]) -> None:
    """A button to what the grid showed before."""
    back = types.Button(label="Back to the former view", operator=_URI, params={"stages": stages}, variant="outlined")
    outputs.view("back", back)
