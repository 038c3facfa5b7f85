"""Training a key frame selector on the pseudo-labels of a FiftyOne view: one call, which can be resumed.

view -> expressions with pseudo-labels -> steps, checkpoints, validations -> a checkpoint in the published layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fiftyone_refvos.segment import Progress
from fiftyone_refvos.training.selector.config import SelectorTrainingConfig
from fiftyone_refvos.training.train import check_packages
from fiftyone_refvos.training.trained import TrainedRun

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `import fiftyone_refvos` should not
    import fiftyone as fo

    from fiftyone_refvos.training.selector.sources import LabelSource


@dataclass(frozen=True, kw_only=True)
class TrainedSelector(TrainedRun):
    """What `train_selector` made; the validation is the mean rank correlation.

    Attributes:
        checkpoint: the selector, for `rv.select_key_frames(…, "glus-kfs", checkpoint=…)`
    """

    checkpoint: Path

    def __str__(self) -> str:
        return "\n".join([*self.lines("selector", "rank correlation"), f"  checkpoint: {self.checkpoint}"])


def train_selector(
    views: fo.Dataset | fo.DatasetView | Mapping[str, fo.Dataset | fo.DatasetView | LabelSource],
    base: Path | str,
    *,
    field: str,
    folder: Path | str,
    config: SelectorTrainingConfig | None = None,
    validation_view: fo.Dataset | fo.DatasetView | None = None,
    expressions_field: str = "expressions",
    rates: Mapping[str, float] | None = None,
    clip_path: Path | str | None = None,
    progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TrainedSelector:
    """Trains a key frame selector as GLUS' was: it learns the IoU that a model's masks have in each frame.

    Resumable: called again with the same folder and settings it goes on where it stopped. Datasets stay as they are.

    Args:
        views: a video dataset or a view of its samples, whose expressions have pseudo-labels; or several by name,
            which may be other sources
        base: a folder with a selector to be trained further, or with the base of one (published: Chat-UniVi-7B)
        field: what the pseudo-labels are named after: the field of masklets, or the name they were imported under
        folder: gets all that is written: `selector`, `training.png`, logs, checkpoints
        config: by default the published recipe: 2000 steps of 16 videos
        validation_view: videos to measure the rank correlation on; the best parameters are the ones that are saved
        expressions_field: the sample field with the expressions
        rates: by name how often each of several views is drawn from; by default every video is equally likely
        clip_path: a CLIP folder to load instead of the base's own, or of the published one
        progress: called after every step, with the step as `video`
        should_stop: asked before each step; True saves what there is, and ends the training

    Raises:
        MissingExtraError: without the packages of the extra `training`
        FieldError: for views without pseudo-labels, or with some of another number of frames
        CheckpointError: for weights that cannot be read, and a folder that holds another training
        NonFiniteError: if a loss becomes infinite or not a number, with the samples
        ValueError: for wrong rates, and expressions that cannot be asked
    """
    check_packages()
    from fiftyone_refvos.training.selector.fine_tuning import SelectorFineTuning

    tuning = SelectorFineTuning(Path(base), Path(folder), config or SelectorTrainingConfig())
    tuning.load(clip_path=clip_path)
    tuning.read(views, rates, field=field, expressions_field=expressions_field)
    if validation_view is not None:
        tuning.validate_on(validation_view, field=field, expressions_field=expressions_field)
    return tuning.run(progress, should_stop)
