"""What the operator that segments reports: values that fit into a run record, and how they are shown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fiftyone.operators import types

from fiftyone_refvos.segment import SegmentReport

from . import reports


def to_result(report: SegmentReport) -> dict[str, Any]:
    """The result of the operator."""
    return {
        "label_field": report.label_field,
        "num_expressions": report.num_expressions,
        "num_videos": report.num_videos,
        "num_skipped": report.num_skipped,
        "num_failed": len(report.failures),
        "seconds": round(report.seconds, 1),
        "failures": reports.failure_rows((failure.filepath, failure.error) for failure in report.failures),
    }


def build(outputs: types.Object, result: Mapping[str, Any]) -> None:
    """Adds to an output what is to be shown of a result."""
    _add_title(outputs, result)
    labels = {
        "num_videos": "Videos segmented",
        "num_skipped": "Videos that were complete before",
        "num_failed": "Videos that failed",
        "seconds": "Seconds",
    }
    reports.add_counts(outputs, labels)
    reports.add_failures(outputs, result)


def _add_title(outputs: types.Object, result: Mapping[str, Any]) -> None:
    field = f"'frames.{result['label_field']}'"
    written = f"{result['num_expressions']} masklets written into {field}"
    if result["failures"]:
        view = types.Warning(label=f"{written}; some videos failed and were left as they are")
    elif result["num_expressions"]:
        view = types.Success(label=written)
    else:
        view = types.Notice(label=f"There was nothing to do: {field} is complete")
    outputs.view("title", view)
