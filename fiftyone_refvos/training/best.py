"""A training that ends with its best parameters: the same for segmenters and selectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fiftyone_refvos.segment import Progress
from fiftyone_refvos.training.config import TrainingConfig
from fiftyone_refvos.training.learner import Learner
from fiftyone_refvos.training.loop import TrainingOutcome, run
from fiftyone_refvos.training.state import load_parameters, trained_tensors


def run_to_best(
    learner: Learner[Any],
    config: TrainingConfig,
    folder: Path,
    *,
    validate: Callable[[], float] | None,
    progress: Callable[[Progress], None] | None,
    should_stop: Callable[[], bool] | None,
) -> TrainingOutcome:
    """Trains as `loop.run`; the network then holds the best parameters, or the last where nothing was validated."""

    def tell(step: int, steps: int, losses: Mapping[str, float]) -> None:
        if progress is not None:
            progress(Progress(step, steps, step / steps))

    outcome = run(learner, config, folder, validate=validate, on_progress=tell, should_stop=should_stop)
    if outcome.best is not None:
        load_parameters(outcome.best.path, trained_tensors(learner.network))
    return outcome


def told(outcome: TrainingOutcome, folder: Path, reports: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a `TrainedRun`, see `training.trained`."""
    best = outcome.best
    return {
        "folder": folder,
        "plot": outcome.plot,
        "steps": outcome.steps,
        "losses": outcome.losses,
        "validation": best.value if best else None,
        "validated_step": best.step if best else None,
        "stopped_because": outcome.stopped_because,
        "reports": reports,
    }
