"""The operator that segments with a trained adapter: the form of segmenting, and which adapter."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from fiftyone_refvos.fields import EXPRESSIONS
from fiftyone_refvos.models.adapters import Adapter, list_adapters, read_adapter

from . import forms, paths, segment_form
from .base import Samples
from .segment_expressions import SegmentingOperator
from .segment_form import Choice


@dataclass(frozen=True)
class AdapterChoice(Choice):
    """What is chosen of segmenting, and where adapters are looked for.

    Attributes:
        params: as they came
        adapters_folder: with the adapters, or the trainings that hold them
    """

    params: Mapping[str, Any]
    adapters_folder: Path | None


class LoadAdapter(SegmentingOperator):
    """Segments videos with a trained adapter, so that its masklets stand beside those of the model it began with.

    From Python, after `import fiftyone.operators as foo`:

        load = foo.get_operator("@fiftyone-refvos/refvos/load_adapter")
        load(dataset, "/trainings/dogs/adapter", label_field="dogs")
    """

    NAME = "load_adapter"
    LABEL = "Load adapter"
    DESCRIPTION = "Segment videos with a fine-tuned model, to compare it"

    def __call__(
        self,
        sample_collection: Samples,
        adapter: str | os.PathLike[str],
        *,
        label_field: str | None = None,
        prompts: str | Sequence[str] | None = None,
        prompt_field: str = EXPRESSIONS,
        overwrite: bool = False,
        checkpoint: str | None = None,
        clip_path: str | None = None,
        device: str | None = None,
        delegate: bool = False,
    ) -> Any:
        """Runs or schedules the operator. In notebooks prefer `fiftyone_refvos.segment`.

        Args:
            sample_collection: a video dataset, a view or a clips view
            adapter: its folder, which says which model it changes
            label_field: frame field for the masklets; by default the name of the training
            prompts, prompt_field, overwrite, checkpoint, clip_path, device, delegate: as of `SegmentExpressions`

        Returns:
            as `LibraryOperator.launch`

        Raises:
            AdapterError: if it is no adapter folder
        """
        found = read_adapter(Path(os.path.abspath(adapter)))
        params = {
            "model": found.base,
            "adapters_folder": str(found.folder),
            "adapter": str(found.folder),
            "label_field": label_field,
            "prompts": prompts if prompts is None or isinstance(prompts, str) else list(prompts),
            "prompt_field": prompt_field,
            "overwrite": overwrite,
            "checkpoint": checkpoint,
            "clip_path": clip_path,
            "device": device,
            "run_now": not delegate,
        }
        return self.launch(sample_collection, params, delegate=delegate)

    def read(self, params: Mapping[str, Any], dataset: fo.Dataset) -> AdapterChoice:
        folder = paths.given(params, "adapters_folder")
        known = [] if folder is None else _adapters(folder, params.get("model"))
        adapter = params.get("adapter") or (str(known[0].folder) if len(known) == 1 else None)
        model = params.get("model") or next((each.base for each in known if str(each.folder) == adapter), None)
        given = {name: value for name, value in params.items() if value is not None}
        name = params.get("label_field") or _name_of(Path(adapter) if adapter else None)
        chosen = Choice.of({**given, "adapter": adapter, "model": model, "label_field": name})
        values = {each.name: getattr(chosen, each.name) for each in fields(Choice)}
        return AdapterChoice(**values, params=params, adapters_folder=folder)

    def build_form(self, inputs: types.Object, samples: Samples, choice: Choice) -> None:
        assert isinstance(choice, AdapterChoice)  # as `read` makes it
        if not forms.are_videos(inputs, samples, "segmented"):
            return
        folder = choice.adapters_folder
        problem = paths.missing(folder, folder=True) if folder is not None else None
        paths.add(
            inputs,
            "adapters_folder",
            choice.params,
            label="Folder with adapters, or with trainings",
            error=problem,
            folder=True,
            required=True,
        )
        if folder is None or problem is not None:
            return
        known = _adapters(folder, None)
        if not known:
            forms.error(inputs, "adapter", f"There is no adapter in {folder}: Train model makes one")
            return
        chosen = [each for each in known if str(each.folder) == choice.adapter]
        wrong = next((each.base for each in chosen if each.base != choice.model), None)
        forms.dropdown(
            inputs,
            "adapter",
            {str(each.folder): _label(each, folder) for each in known},
            default=choice.adapter,
            required=choice.adapter is None,
            label="Adapter",
            invalid=wrong is not None,
            error_message=f"It was trained on {wrong}: choose that model below",
        )
        segment_form.build(inputs, samples, choice)

    def run_name(self, choice: Choice) -> str:
        return f"{choice.adapter} → {choice.label_field}"


def _adapters(folder: Path, model: str | None) -> list[Adapter]:
    return [each for each in list_adapters(folder) if model is None or each.base == model]


def _name_of(adapter: Path | None) -> str | None:
    """A label field after the training that an adapter is of, if that can be one."""
    if adapter is None:
        return None
    name = (adapter.parent if adapter.name == "adapter" else adapter).name.replace("-", "_")
    return None if forms.name_problem(name, "field") else name


def _label(adapter: Adapter, folder: Path) -> str:
    """What the list shows of an adapter."""
    name = adapter.folder.relative_to(folder)
    score = adapter.facts.get("validation")
    measured = "" if score is None else f", J&F {score:.4f}"
    return (
        f"{name if name.parts else adapter.folder.name}: {adapter.base}, {adapter.facts.get('steps')} steps{measured}"
    )
