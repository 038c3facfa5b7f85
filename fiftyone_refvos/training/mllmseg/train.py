"""Training MLLMSeg on the images of a FiftyOne view: one call, which can be resumed.

view -> expressions and masks -> steps, checkpoints, validations -> a merged checkpoint in the published layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fiftyone_refvos.segment import Progress
from fiftyone_refvos.training.mllmseg.config import MllmsegTrainingConfig
from fiftyone_refvos.training.train import check_packages
from fiftyone_refvos.training.trained import TrainedRun

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `import fiftyone_refvos` should not
    import fiftyone as fo

    from fiftyone_refvos.training.mllmseg.sources import ImageSource


@dataclass(frozen=True, kw_only=True)
class TrainedMllmseg(TrainedRun):
    """What `train_mllmseg` made; the validation is gIoU or cIoU.

    Attributes:
        measure: which of them
        checkpoint: the model with what changed merged in, for `foz.load_zoo_model("mllmseg-…", checkpoint=…)`
    """

    measure: str
    checkpoint: Path

    def __str__(self) -> str:
        return "\n".join([*self.lines("MLLMSeg", self.measure), f"  merged checkpoint: {self.checkpoint}"])


def train_mllmseg(
    views: fo.Dataset | fo.DatasetView | Mapping[str, fo.Dataset | fo.DatasetView | ImageSource],
    base: Path | str,
    *,
    folder: Path | str,
    config: MllmsegTrainingConfig | None = None,
    validation_view: fo.Dataset | fo.DatasetView | None = None,
    masks_field: str = "ground_truth",
    validation_field: str = "ground_truth",
    expressions_field: str = "expressions",
    rates: Mapping[str, float] | None = None,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainedMllmseg:
    """Trains MLLMSeg further on the expressions and masks of image views, as it was trained.

    Resumable: called again with the same folder and settings it goes on where it stopped. Datasets stay as they are;
    validations keep their masks in memory. Under `accelerate launch` every process calls it alike.

    Args:
        views: an image dataset or a view of its samples; or several by name, which may be other sources
        base: a name of the registry, such as "mllmseg-8b-res", or a checkpoint folder, whose LoRA is merged first;
            one of a plain InternVL2.5 gets the tokens and a fresh mask decoder first
        folder: gets all that is written: `merged`, `training.png`, logs, checkpoints; `start` if the base is a plain
            InternVL
        config: by default the published recipe of RES: 50,000 steps of 32 images
        validation_view: images to measure `config.measure` on, every `config.validate_every` steps and after the
            last one; the best parameters are the ones that are saved. None saves the last ones
        masks_field: the field with the masks to learn
        validation_field: the one with the true masks of the validation view
        expressions_field: the sample field with the expressions
        rates: by name how often each of several views is drawn from; by default, as published, equally often
        progress: called after every step, with the step as `video`
        should_stop: asked before each step; True saves what there is, and ends the training

    Raises:
        MissingExtraError: without the packages of the extra `training`
        FieldError: for views that cannot be trained or validated on, with sample and field
        CheckpointError: for weights that cannot be read, and a folder that holds another training or cannot be
            written to
        NonFiniteError: if a loss becomes infinite or not a number, with the samples
        ValueError: for wrong rates, and expressions that the model cannot take
    """
    check_packages()
    from fiftyone_refvos.training.mllmseg.fine_tuning import MllmsegFineTuning

    tuning = MllmsegFineTuning(base, Path(folder), config or MllmsegTrainingConfig())
    tuning.read(views, rates, masks_field=masks_field, expressions_field=expressions_field)
    tuning.load()
    if validation_view is not None:
        tuning.validate_on(validation_view, masks_field=validation_field, expressions_field=expressions_field)
    return tuning.run(progress, should_stop)
