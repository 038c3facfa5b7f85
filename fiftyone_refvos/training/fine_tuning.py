"""One call of `fiftyone_refvos.train`: loads a model, runs the loop on views, and saves what was trained."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fiftyone as fo
import torch
from accelerate import PartialState

from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.glus.adapter import save_adapter
from fiftyone_refvos.models.glus.config import GlusConfig
from fiftyone_refvos.models.glus.saving import CLIP, save_checkpoint
from fiftyone_refvos.models.glus.weights import load_network
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.models.sources import find_checkpoint, find_clip
from fiftyone_refvos.segment import Progress
from fiftyone_refvos.training.best import run_to_best, told
from fiftyone_refvos.training.config import TrainingConfig
from fiftyone_refvos.training.glus_learner import GlusLearner
from fiftyone_refvos.training.loop import TrainingOutcome
from fiftyone_refvos.training.lora import merged_state
from fiftyone_refvos.training.mixture import rates_by_name
from fiftyone_refvos.training.sources import TrainingSource
from fiftyone_refvos.training.train import TrainedModel
from fiftyone_refvos.training.validation import Validation
from fiftyone_refvos.training.views import ViewSource

DATA = "data.json"  # what a training was begun with, besides its configuration


class FineTuning:
    """A model that is trained in a folder; `load`, `read`, perhaps `validate_on`, and `run`, in this order."""

    def __init__(self, model: str, folder: Path, config: TrainingConfig) -> None:
        self._model, self._folder, self._config = model, folder, config
        self._sources: dict[str, TrainingSource] = {}
        self._validation: Validation | None = None

    def load(
        self, *, checkpoint: Path | str | None, clip_path: Path | str | None, sam_config: Path | str | None
    ) -> None:
        """Loads the network as it was trained before: with the memory scale of its checkpoint."""
        self._base = find_checkpoint(self._model, checkpoint)
        sizes = GlusConfig.read(self._base, sam2_config=Path(sam_config) if sam_config is not None else None)
        self._clip = find_clip(self._base, clip_path)
        self._network = load_network(
            self._base,
            self._clip,
            sizes,
            memory_gamma="checkpoint",
            device=torch.device("cpu"),
            dtype=None,
        )
        self._tokenizer = LlamaTokenizer(self._base)

    def read(
        self,
        views: fo.Dataset | fo.DatasetView | Mapping[str, Any],
        rates: Mapping[str, float] | None,
        *,
        masklets_field: str,
        expressions_field: str,
        min_iou: float | None,
    ) -> None:
        """Reads what there is to train on."""
        named = views if isinstance(views, Mapping) else {views._root_dataset.name: views}
        sampling = self._config.sampling
        self._sources = {
            name: ViewSource(
                each,
                name=name,
                masklets_field=masklets_field,
                expressions_field=expressions_field,
                min_iou=min_iou,
                no_target=sampling.no_target,
                query_frames=sampling.query_frames,
            )
            if isinstance(each, fo.Dataset | fo.DatasetView)
            else each
            for name, each in named.items()
        }
        self._read_from = {"masklets": masklets_field, "expressions": expressions_field, "min_iou": min_iou}
        self._rates = rates_by_name(rates, {name: len(source) for name, source in self._sources.items()})
        self._learner = GlusLearner(
            self._network, self._tokenizer, self._config, list(self._sources.values()), self._rates
        )

    def validate_on(self, view: fo.Dataset | fo.DatasetView, *, masklets_field: str, expressions_field: str) -> None:
        """Makes the run measure J&F on a view."""
        self._validation = Validation(
            view,
            self._network,
            self._tokenizer,
            masklets_field=masklets_field,
            expressions_field=expressions_field,
        )

    def run(
        self, progress: Callable[[Progress], None] | None, should_stop: Callable[[], bool] | None
    ) -> TrainedModel:
        """Trains, and saves the best parameters, or the last ones where nothing was validated."""
        reports = {name: self._report(source) for name, source in self._sources.items()}
        check_same_data(
            self._folder,
            {
                "model": self._model,
                "checkpoint": str(self._base.resolve()),
                "sources": reports,
                "rates": self._rates,
                "fields": self._read_from,
            },
        )

        outcome = run_to_best(
            self._learner,
            self._config,
            self._folder,
            validate=self._validation,
            progress=progress,
            should_stop=should_stop,
        )
        if PartialState().is_main_process:
            self._save(outcome)
        return TrainedModel(
            **told(outcome, self._folder, reports),
            model=self._model,
            adapter=self._folder / "adapter",
            checkpoint=self._folder / "merged",
        )

    def _save(self, outcome: TrainingOutcome) -> None:
        best = outcome.best
        facts = {
            "steps": best.step if best else outcome.steps,
            "validation": best.value if best else None,
            "trained_on": list(self._sources),
        }
        save_adapter(self._network, self._folder / "adapter", base=self._model, facts=facts)
        state = merged_state(self._network)
        if self._config.trainable != "all" and self._clip.parent != self._base:
            state = {name: tensor for name, tensor in state.items() if not name.startswith(CLIP)}
        settings = self._network.config.recorded
        save_checkpoint(state, self._folder / "merged", base=self._base, clip=self._clip, run_settings=settings)

    def _report(self, source: TrainingSource) -> str:
        return str(source.report) if isinstance(source, ViewSource) else f"{len(source)} videos"


def check_same_data(folder: Path, data: Mapping[str, Any]) -> None:
    """Refuses to go on with a training that was begun with another model, or on other videos.

    Every process does this, and none waits for another: each either finds the whole file or writes the same one.

    Args:
        folder: of the training
        data: what it is begun with, besides its configuration, as plain values

    Raises:
        CheckpointError: if the folder was begun with something else
    """
    path = folder / DATA
    if path.is_file():
        former = json.loads(path.read_text(encoding="utf-8"))
        if changed := [name for name in data if former.get(name) != data[name]]:
            was = ", ".join(f"{name} was {former.get(name)!r} and is {data[name]!r}" for name in changed)
            raise CheckpointError(f"{folder} holds another training ({was}): choose another folder")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{DATA}.{os.getpid()}.part")
        part.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
        os.replace(part, path)
