"""What several reports show: counts, and what failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fiftyone.operators import types


def add_counts(outputs: types.Object, labels: Mapping[str, str]) -> None:
    """A line for each value of a result, with these labels."""
    for name, label in labels.items():
        outputs.str(name, label=label, view=types.LabelValueView())


def add_table(outputs: types.Object, name: str, columns: Mapping[str, str], *, label: str | None = None) -> None:
    """A table of a list of rows of a result, with the labels of its columns."""
    view = types.TableView()
    for key, shown in columns.items():
        view.add_column(key, label=shown)
    outputs.list(name, types.Object(), label=label, view=view)


def failure_rows(failures: Iterable[tuple[str, str]]) -> list[dict[str, str]]:
    """Files, each with the reason why there is no result of it, as `add_failures` shows them."""
    return [{"file": file, "reason": reason} for file, reason in failures]


def add_failures(outputs: types.Object, result: Mapping[str, Any]) -> None:
    """The table of what failed, if anything did."""
    if result["failures"]:
        add_table(outputs, "failures", {"file": "File", "reason": "Reason"}, label="Failures")
