"""What is told of a training, of a segmenter or a selector; it needs no package that only training needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """How a training went.

    Attributes:
        folder: of the training, with checkpoints to resume from and logs
        plot: a picture of the losses and validations
        steps: that were done
        losses: of the last step, by name
        validation: of the parameters that were saved, the best ones; None without a validation
        validated_step: after which step they were validated
        stopped_because: "finished", "patience", "should_stop" or "interrupted"; call again to go on after the latter
        reports: by name of each source what it had to train on, and what was left out
    """

    folder: Path
    plot: Path
    steps: int
    losses: Mapping[str, float]
    validation: float | None
    validated_step: int | None
    stopped_because: str
    reports: Mapping[str, str]

    def lines(self, what: str, measure: str) -> list[str]:
        """What is told of it; `measure` is what the validation measured."""
        losses = ", ".join(f"{name} {value:.4f}" for name, value in self.losses.items())
        lines = [f"{what} trained for {self.steps} steps ({self.stopped_because}); losses: {losses}"]
        lines += [f"  on {name}: {report}" for name, report in self.reports.items()]
        if self.validation is not None:
            lines.append(f"  best validation: {measure} {self.validation:.4f} after step {self.validated_step}")
        return lines
