"""Operators run as FiftyOne runs them: through its registry, executor, queue, and the messages to the App."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import yaml
from fiftyone.operators.delegated import DelegatedOperationService
from fiftyone.operators.executor import execute_or_delegate_operator

PLUGIN = yaml.safe_load((Path(__file__).parents[1] / "fiftyone.yml").read_text())


def uri(name: str) -> str:
    """The URI of an operator of the plugin."""
    return f"{PLUGIN['name']}/{name}"


def execute(name: str, samples: fo.Dataset | fo.DatasetView, /, **params: Any) -> Any:
    """Runs an operator at once."""
    ctx = {"view" if isinstance(samples, fo.DatasetView) else "dataset": samples}
    return foo.execute_operator(uri(name), ctx, params=params)


def form(name: str, samples: fo.Dataset | fo.DatasetView, /, **params: Any) -> dict[str, Any]:
    """The inputs by name, as JSON, that an operator shows for what was chosen."""
    view = samples if isinstance(samples, fo.DatasetView) else samples.view()
    request = {"dataset_name": view._root_dataset.name, "view": view._serialize(), "params": params}
    inputs = foo.get_operator(uri(name)).resolve_input(foo.ExecutionContext(request))
    return inputs.to_json()["type"]["properties"]


def outputs(name: str, result: dict[str, Any]) -> dict[str, Any]:
    """The JSON of what is shown of a result."""
    ctx = foo.ExecutionContext({"params": {}, "results": result})
    return foo.get_operator(uri(name)).resolve_output(ctx).to_json()


def texts(node: Any) -> str:
    """All that a form or an output says, as one text."""
    if isinstance(node, dict):
        return " ".join(texts(value) for value in node.values())
    if isinstance(node, list):
        return " ".join(map(texts, node))
    return node if isinstance(node, str) else ""


def reason(name: str) -> str:
    """A pattern for FiftyOne's message about an invalid input."""
    return rf"Path: {name}\. Reason: "


def messages(
    name: str, dataset: fo.Dataset, /, *, view: fo.DatasetView | None = None, **params: Any
) -> list[tuple[str, dict[str, Any]]]:
    """Operators and parameters that a run from the App's form sends to it, while it shows a view."""
    stages = [] if view is None else view._serialize()
    request = {"operator_uri": uri(name), "dataset_name": dataset.name, "view": stages, "params": params}
    request["active_fields"] = ["frames.ground_truth"]
    generator = asyncio.run(execute_or_delegate_operator(uri(name), request)).result
    return [(message.body.operator_uri, message.body.params) for message in generator]


def run_queued(name: str, dataset: fo.Dataset) -> tuple[Any, Any]:
    """Runs what is queued of an operator and a dataset, which is one run, and returns it before and after."""
    service = DelegatedOperationService()
    try:
        (queued,) = service.list_operations(operator=uri(name), dataset_name=dataset.name)
        service.execute_queued_operations(operator=uri(name), dataset_name=dataset.name)
        done = service.get(queued.id)
    finally:
        service.delete_for_dataset(dataset._doc.id)
    dataset.reload()
    return queued, done
