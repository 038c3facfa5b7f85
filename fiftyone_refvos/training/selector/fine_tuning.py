"""One call of `fiftyone_refvos.train_selector`: loads the base, runs the loop on views, and saves the selector."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fiftyone as fo
from accelerate import PartialState

from fiftyone_refvos.models.glus.saving import CLIP
from fiftyone_refvos.models.selector.base import SCORE_DIM, load_trainee
from fiftyone_refvos.models.selector.saving import save_selector
from fiftyone_refvos.models.sources import find_clip
from fiftyone_refvos.segment import Progress
from fiftyone_refvos.training.best import run_to_best, told
from fiftyone_refvos.training.fine_tuning import check_same_data
from fiftyone_refvos.training.lora import merged_state
from fiftyone_refvos.training.mixture import rates_by_name
from fiftyone_refvos.training.selector.config import SelectorTrainingConfig
from fiftyone_refvos.training.selector.learner import SelectorLearner
from fiftyone_refvos.training.selector.sources import LabelSource
from fiftyone_refvos.training.selector.train import TrainedSelector
from fiftyone_refvos.training.selector.validation import RankValidation
from fiftyone_refvos.training.selector.views import LabelViewSource


class SelectorFineTuning:
    """A selector that is trained in a folder; `load`, `read`, perhaps `validate_on`, and `run`, in this order."""

    def __init__(self, base: Path, folder: Path, config: SelectorTrainingConfig) -> None:
        self._base, self._folder, self._config = base, folder, config
        self._validation: RankValidation | None = None

    def load(self, *, clip_path: Path | str | None) -> None:
        """Loads what is trained."""
        self._clip = find_clip(self._base, clip_path)
        self._trainee = load_trainee(self._base, self._clip, score_dim=SCORE_DIM, seed=self._config.seed)

    def read(
        self,
        views: fo.Dataset | fo.DatasetView | Mapping[str, Any],
        rates: Mapping[str, float] | None,
        *,
        field: str,
        expressions_field: str,
    ) -> None:
        """Reads what there is to train on."""
        named = views if isinstance(views, Mapping) else {views._root_dataset.name: views}
        self._sources: dict[str, LabelSource] = {
            name: LabelViewSource(each, field, name=name, expressions_field=expressions_field)
            if isinstance(each, fo.Dataset | fo.DatasetView)
            else each
            for name, each in named.items()
        }
        self._read_from = {"labels": field, "expressions": expressions_field}
        self._rates = rates_by_name(rates, {name: len(source) for name, source in self._sources.items()})
        trainee = self._trainee
        self._learner = SelectorLearner(
            trainee.network, trainee.tokenizer, self._config, list(self._sources.values()), self._rates
        )

    def validate_on(self, view: fo.Dataset | fo.DatasetView, *, field: str, expressions_field: str) -> None:
        """Makes the run measure the rank correlation on a view."""
        source = LabelViewSource(view, field, expressions_field=expressions_field)
        self._validation = RankValidation(self._trainee.network, self._trainee.tokenizer, source)

    def run(
        self, progress: Callable[[Progress], None] | None, should_stop: Callable[[], bool] | None
    ) -> TrainedSelector:
        """Trains, and saves the best parameters, or the last ones where nothing was validated."""
        reports = {name: _report(source) for name, source in self._sources.items()}
        check_same_data(
            self._folder,
            {
                "model": "selector",
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
        checkpoint = self._folder / "selector"
        if PartialState().is_main_process:
            self._save(checkpoint)
        return TrainedSelector(**told(outcome, self._folder, reports), checkpoint=checkpoint)

    def _save(self, folder: Path) -> None:
        """Published selectors do not hold CLIP: it is written where the base has it, too, or where it was trained."""
        state = merged_state(self._trainee.network)
        if self._config.trainable != "all" and self._clip.parent != self._base:
            state = {name: tensor for name, tensor in state.items() if not name.startswith(CLIP)}
        trainee = self._trainee
        save_selector(
            state, folder, entries=trainee.entries, tokenizer=trainee.tokenizer, base=self._base, clip=self._clip
        )


def _report(source: LabelSource) -> str:
    return str(source.report) if isinstance(source, LabelViewSource) else f"{len(source)} videos"
