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
        "path": report.path,
        "media": "images" if report.images else "videos",
        "num_expressions": report.num_expressions,
        "num_samples": report.num_samples,
        "num_skipped": report.num_skipped,
        "num_failed": len(report.failures),
        "seconds": round(report.seconds, 1),
        "failures": reports.failure_rows((failure.filepath, failure.error) for failure in report.failures),
    }


def build(outputs: types.Object, result: Mapping[str, Any]) -> None:
    """Adds to an output what is to be shown of a result."""
    _add_title(outputs, result)
    things = result["media"].capitalize()
    labels = {
        "num_samples": f"{things} segmented",
        "num_skipped": f"{things} that were complete before",
        "num_failed": f"{things} that failed",
        "seconds": "Seconds",
    }
    reports.add_counts(outputs, labels)
    reports.add_failures(outputs, result)


def _add_title(outputs: types.Object, result: Mapping[str, Any]) -> None:
    field = f"{result['path']!r}"
    written = f"{result['num_expressions']} masklets written into {field}"
    if result["failures"]:
        view = types.Warning(label=f"{written}; some {result['media']} failed and were left as they are")
    elif result["num_expressions"]:
        view = types.Success(label=written)
    else:
        view = types.Notice(label=f"There was nothing to do: {field} is complete")
    outputs.view("title", view)
