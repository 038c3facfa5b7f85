"""The outcome of a golden case: one line per stage, with the largest error and its tolerance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

FRAME_PIXELS = 5e-4  # share of a frame's pixels that may differ
VIDEO_PIXELS = 1e-4  # share of a video's pixels that may differ


@dataclass(frozen=True)
class Stage:
    """One compared quantity; `error` is infinite where it could not be computed or has another shape."""

    name: str
    error: float
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the error is within the tolerance; NaN is not."""
        return self.error <= self.tolerance


@dataclass
class CaseReport:
    """All stages of one golden case.

    Attributes:
        path: the case
        kind: what it was recognised as
        stages: what was compared
        not_compared: name and reason of what was not
        error: why the case could not be run at all
    """

    path: Path
    kind: str
    stages: list[Stage] = field(default_factory=list)
    not_compared: dict[str, str] = field(default_factory=dict)
    error: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the case ran, something was compared, and all of it is within its tolerance."""
        return self.error is None and bool(self.stages) and all(stage.passed for stage in self.stages)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage that cannot be computed fails, and does not hide the others."""
        try:
            yield
        except Exception as error:
            self.stages.append(Stage(name, float("inf"), 0, f"{type(error).__name__}: {error}"))

    def add_values(self, name: str, ours: Tensor, golden: Tensor, tolerance: float) -> None:
        """Compares two arrays value by value; rows of NaN must be NaN in both."""
        self.stages.append(Stage(name, largest_error(ours, golden), tolerance))

    def add_equal(self, name: str, ours: Sequence[object], golden: Sequence[object]) -> None:
        """Compares two lists item by item; none may differ."""
        if len(ours) != len(golden):
            self.stages.append(Stage(name, float("inf"), 0, f"{len(ours)} items, golden has {len(golden)}"))
            return
        wrong = [n for n, (a, b) in enumerate(zip(ours, golden, strict=True)) if a != b]
        note = f"differs first at {wrong[0]}" if wrong else f"{len(ours)} equal"
        self.stages.append(Stage(name, len(wrong), 0, note))

    def add_masks(
        self,
        name: str,
        ours: NDArray[np.bool_],
        golden: NDArray[np.bool_],
        *,
        frame: float = FRAME_PIXELS,
        video: float = VIDEO_PIXELS,
    ) -> None:
        """Compares masks `(T, H, W) bool` by the share of differing pixels, per frame and over the video."""
        if ours.shape != golden.shape:
            self.stages.append(Stage(name, float("inf"), 0, f"shape {ours.shape}, golden has {golden.shape}"))
            return
        wrong = (ours != golden).sum(axis=(1, 2))
        pixels = golden.shape[1] * golden.shape[2]
        note = f"{int(wrong.sum())} pixels in {len(golden)} frames"
        self.stages.append(Stage(f"{name}, worst frame", float(wrong.max() / pixels), frame, note))
        self.stages.append(Stage(f"{name}, video", float(wrong.sum() / golden.size), video, note))

    def lines(self) -> list[str]:
        """The report as text."""
        lines = [f"{self.path}  ({self.kind})"]
        lines += [
            f"  {'ok  ' if stage.passed else 'FAIL'} {stage.name:<44} {stage.error:>10.3g}  <= {stage.tolerance:<8g}"
            f"{stage.note}".rstrip()
            for stage in self.stages
        ]
        lines += [f"  not compared: {name} ({reason})" for name, reason in sorted(self.not_compared.items())]
        if self.error is not None:
            lines.append(f"  FAIL {self.error}")
        return lines


def largest_error(ours: Tensor, golden: Tensor) -> float:
    """The largest absolute difference; infinite for another shape, or where only one side is NaN."""
    if ours.shape != golden.shape:
        return float("inf")
    ours, golden = ours.double(), golden.double()
    if not torch.equal(ours.isnan(), golden.isnan()):
        return float("inf")
    difference = (ours - golden).abs().nan_to_num(0.0)
    return float(difference.max()) if difference.numel() else 0.0
