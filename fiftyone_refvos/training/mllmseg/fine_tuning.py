"""One call of `fiftyone_refvos.train_mllmseg`: loads a model, runs the loop on views, and saves what was trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fiftyone as fo
import torch
from accelerate import PartialState

from fiftyone_refvos.models.internvl_tokenizer import load_tokenizer
from fiftyone_refvos.models.mllmseg.config import MllmsegConfig
from fiftyone_refvos.models.mllmseg.saving import save_checkpoint
from fiftyone_refvos.models.mllmseg.weights import load_network
from fiftyone_refvos.models.registry import MODELS
from fiftyone_refvos.models.sources import find_checkpoint
from fiftyone_refvos.segment import Progress
from fiftyone_refvos.training.best import run_to_best, told
from fiftyone_refvos.training.fine_tuning import DATA, check_same_data
from fiftyone_refvos.training.lora import merged_state
from fiftyone_refvos.training.mixture import rates_by_name
from fiftyone_refvos.training.mllmseg.config import MllmsegTrainingConfig
from fiftyone_refvos.training.mllmseg.learner import MllmsegLearner
from fiftyone_refvos.training.mllmseg.sources import ImageSource
from fiftyone_refvos.training.mllmseg.start import is_plain_internvl, start_from_internvl
from fiftyone_refvos.training.mllmseg.train import TrainedMllmseg
from fiftyone_refvos.training.mllmseg.validation import ImageValidation
from fiftyone_refvos.training.mllmseg.views import ImageViewSource
from fiftyone_refvos.training.optimization import GROUP_TIMEOUT


class MllmsegFineTuning:
    """MLLMSeg in training in a folder; `read`, `load`, perhaps `validate_on`, and `run`, in this order."""

    def __init__(self, base: Path | str, folder: Path, config: MllmsegTrainingConfig) -> None:
        self._folder, self._config = folder, config
        self._base = base
        self._validation: ImageValidation | None = None

    def read(
        self,
        views: fo.Dataset | fo.DatasetView | Mapping[str, Any],
        rates: Mapping[str, float] | None,
        *,
        masks_field: str,
        expressions_field: str,
    ) -> None:
        """Reads what there is to train on."""
        named = views if isinstance(views, Mapping) else {views._root_dataset.name: views}
        self._rates = rates_by_name(rates, dict.fromkeys(named, 1.0))
        self._sources: dict[str, ImageSource] = {
            name: ImageViewSource(
                each,
                name=name,
                masks_field=masks_field,
                expressions_field=expressions_field,
                all_absent=self._config.all_absent,
            )
            if isinstance(each, fo.Dataset | fo.DatasetView)
            else each
            for name, each in named.items()
        }
        self._read_from = {"masks": masks_field, "expressions": expressions_field}

    def load(self) -> None:
        """Loads the network that is trained; a plain InternVL becomes an MLLMSeg in the folder first."""
        known = str(self._base) in MODELS and MODELS[str(self._base)].system == "mllmseg"
        self._given = find_checkpoint(str(self._base)) if known else Path(self._base)
        self._checkpoint = self._start() if is_plain_internvl(self._given) else self._given
        config = MllmsegConfig.read(self._checkpoint)
        self._network = load_network(self._checkpoint, config, device=torch.device("cpu"), dtype=None)
        self._tokenizer = load_tokenizer(self._checkpoint, config.family)
        sources = list(self._sources.values())
        self._learner = MllmsegLearner(self._network, self._tokenizer, self._config, sources, self._rates)

    def _start(self) -> Path:
        start = self._folder / "start"
        resumed = start.is_dir() and (self._folder / DATA).is_file()  # which says what the start was made of
        processes = PartialState(timeout=GROUP_TIMEOUT)  # the first of a process sets up the group, for the loop, too
        with processes.main_process_first():
            if processes.is_main_process and not resumed:
                start_from_internvl(self._given, start, seed=self._config.seed)
        return start

    def validate_on(self, view: fo.Dataset | fo.DatasetView, *, masks_field: str, expressions_field: str) -> None:
        """Makes the run measure the masks of a view."""
        self._validation = ImageValidation(
            view,
            self._network,
            self._tokenizer,
            measure=self._config.measure,
            masks_field=masks_field,
            expressions_field=expressions_field,
        )

    def run(
        self, progress: Callable[[Progress], None] | None, should_stop: Callable[[], bool] | None
    ) -> TrainedMllmseg:
        """Trains, and saves the best parameters, or the last ones where nothing was validated."""
        reports = {name: _report(source) for name, source in self._sources.items()}
        check_same_data(
            self._folder,
            {
                "model": "mllmseg",
                "checkpoint": str(self._given.resolve()),
                "sources": reports,
                "images": {
                    name: each.digest for name, each in self._sources.items() if isinstance(each, ImageViewSource)
                },
                "rates": self._rates,
                "fields": self._read_from,
                "validation": self._validation.identity if self._validation else None,
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
        checkpoint = self._folder / "merged"
        if PartialState().is_main_process:
            save_checkpoint(merged_state(self._network), checkpoint, base=self._checkpoint)
        told_of_run = told(outcome, self._folder, reports)
        return TrainedMllmseg(**told_of_run, measure=self._config.measure, checkpoint=checkpoint)


def _report(source: ImageSource) -> str:
    return str(source.report) if isinstance(source, ImageViewSource) else f"{len(source)} images"
