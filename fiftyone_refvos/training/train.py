"""Fine-tuning a model on the videos of a FiftyOne view: one call, which can be resumed.

view -> expressions and masks that can be trained on -> steps, checkpoints, validations -> an adapter, a checkpoint
with it merged in, and a plot.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fiftyone_refvos.models.registry import DEFAULT_MODEL, TRAINABLE
from fiftyone_refvos.segment import Progress
from fiftyone_refvos.training.config import TrainingConfig
from fiftyone_refvos.training.trained import TrainedRun

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `import fiftyone_refvos` should not
    import fiftyone as fo

    from fiftyone_refvos.training.sources import TrainingSource

_NEEDED = ("accelerate", "peft", "tensorboard")


class MissingExtraError(RuntimeError):
    """A Python package that training needs is not installed; the message says how to get it."""


@dataclass(frozen=True, kw_only=True)
class TrainedModel(TrainedRun):
    """What `train` made; the validation is J&F.

    Attributes:
        model: the name of the model that was trained
        adapter: what changed of the model, for `foz.load_zoo_model(model, adapter=…)`
        checkpoint: the model with it merged in, for `foz.load_zoo_model(model, checkpoint=…)`
    """

    model: str
    adapter: Path
    checkpoint: Path

    def __str__(self) -> str:
        lines = self.lines(self.model, "J&F")
        return "\n".join([*lines, f"  adapter: {self.adapter}", f"  merged checkpoint: {self.checkpoint}"])


def train(
    views: fo.Dataset | fo.DatasetView | Mapping[str, fo.Dataset | fo.DatasetView | TrainingSource],
    model: str = DEFAULT_MODEL,
    *,
    folder: Path | str,
    config: TrainingConfig | None = None,
    validation_view: fo.Dataset | fo.DatasetView | None = None,
    masklets_field: str = "ground_truth",
    validation_field: str = "ground_truth",
    expressions_field: str = "expressions",
    min_iou: float | None = None,
    rates: Mapping[str, float] | None = None,
    checkpoint: Path | str | None = None,
    clip_path: Path | str | None = None,
    sam_config: Path | str | None = None,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainedModel:
    """Fine-tunes a model on the expressions and masklets of a view, as GLUS was trained.

    Resumable: called again with the same folder and settings it goes on where it stopped. Datasets stay as they are;
    validations keep their masks in memory. Under `accelerate launch` every process calls it alike.

    Args:
        views: a video dataset or a view of its samples; or several by name, which may be `ViewSource`s with settings
            of their own, or other sources
        model: a name of the registry
        folder: gets all that is written: `adapter`, `merged`, `training.png`, logs, checkpoints
        config: by default the published recipe: 3000 steps of 20 videos
        validation_view: videos to measure J&F on, every `config.validate_every` steps and after the last one; the
            best parameters are the ones that are saved. None saves the last ones
        masklets_field: the frame field with the masks to learn, without `frames.`
        validation_field: the one with the true masks of the validation view
        expressions_field: the sample field with the expressions
        min_iou: learn only from frames whose pseudo-label reaches it, see `ViewSource`
        rates: by name how often each of several views is drawn from; by default every video is equally likely
        checkpoint, clip_path, sam_config: what to load, as for `foz.load_zoo_model`
        progress: called after every step, with the step as `video`
        should_stop: asked before each step; True saves what there is, and ends the training

    Raises:
        MissingExtraError: without the packages of the extra `training`
        FieldError: for views that cannot be trained or validated on, with sample and field
        CheckpointError: for weights that cannot be read, and a folder that holds another training or cannot be
            written to
        NonFiniteError: if a loss becomes infinite or not a number, with the samples
        ValueError: for an unknown model, wrong rates, and expressions that the model cannot take
    """
    check_packages()
    if model not in TRAINABLE:
        raise ValueError(f"{model!r} cannot be trained here; the models that can be are {', '.join(TRAINABLE)}")
    from fiftyone_refvos.training.fine_tuning import FineTuning

    tuning = FineTuning(model, Path(folder), config or TrainingConfig())
    tuning.load(checkpoint=checkpoint, clip_path=clip_path, sam_config=sam_config)
    tuning.read(views, rates, masklets_field=masklets_field, expressions_field=expressions_field, min_iou=min_iou)
    if validation_view is not None:
        tuning.validate_on(validation_view, masklets_field=validation_field, expressions_field=expressions_field)
    return tuning.run(progress, should_stop)


def check_packages() -> None:
    """Raises a MissingExtraError without the packages of the extra `training`."""
    if missing := [name for name in _NEEDED if importlib.util.find_spec(name) is None]:
        raise MissingExtraError(
            f"training needs the Python packages {', '.join(missing)}: run `pip install 'fiftyone-refvos[training]'`"
        )


def hold_out(
    view: fo.Dataset | fo.DatasetView, share: float, *, seed: int = 0
) -> tuple[fo.DatasetView, fo.DatasetView]:
    """Splits a view by chance into videos to train on and videos to validate on, always the same ones for a seed.

    Args:
        view: a video dataset, or a view of its samples
        share: of the videos to validate on, above 0 and below 1; at least one video is on either side
        seed: of the choice

    Raises:
        ValueError: for another share, or fewer than two videos
    """
    import numpy as np

    ids: list[Any] = view.values("id")
    if not 0 < share < 1 or len(ids) < 2:
        raise ValueError(f"a share of {share} of {len(ids)} videos cannot be held out: both sides need a video")
    count = min(max(1, round(share * len(ids))), len(ids) - 1)
    chosen = [ids[n] for n in np.random.default_rng(seed).permutation(len(ids))[:count]]
    return view.exclude(chosen), view.select(chosen)
