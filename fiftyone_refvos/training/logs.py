"""What a training run leaves to look at: JSON lines, TensorBoard's event files and a picture of the curves.

metrics.jsonl                          one line per step, the record that the others are made of
tensorboard/events.out.tfevents.*      the same for TensorBoard
training.png                           losses, and validations below them
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

METRICS = "metrics.jsonl"
EVENTS = "tensorboard"
PLOT = "training.png"

_SMOOTHED = 50  # a curve is the mean over this part of all steps


@dataclass(frozen=True)
class Row:
    """What is logged of a step.

    Attributes:
        step: from 1
        losses: by name
        learning_rate: that the step used
        gradient_norm: before clipping; None where float16 overflowed
        seconds: that the step took
        time: when it ended, in seconds since 1970
        validation: of the network after the step, if there was one and it is a number
    """

    step: int
    losses: Mapping[str, float]
    learning_rate: float
    gradient_norm: float | None
    seconds: float
    time: float
    validation: float | None = None


class TrainingLog:
    """The logs of a run, in its folder; a context manager.

    Attributes:
        rows: all so far
        plot_path: where `plot` draws
    """

    def __init__(self, folder: Path, step: int) -> None:
        """Begins, or goes on after a step: what a killed run logged after it is cut, as it will happen again."""
        folder.mkdir(parents=True, exist_ok=True)
        self._path, self.plot_path = folder / METRICS, folder / PLOT
        self.rows = [row for row in read_rows(self._path) if row.step <= step]
        _replace(self._path, "".join(map(_line, self.rows)).encode())
        for events in (folder / EVENTS).glob("events.out.tfevents.*"):
            events.unlink()  # nothing can be cut from them: they are written anew
        self._writer = SummaryWriter(str(folder / EVENTS))
        for row in self.rows:
            self._write_events(row)

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def add(self, row: Row) -> None:
        """Logs a step."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(row))
        self.rows.append(row)
        self._write_events(row)

    def plot(self) -> Path:
        """Draws the curves so far and brings TensorBoard's up to date."""
        self._writer.flush()
        part = self.plot_path.with_name(f".{self.plot_path.name}.part")
        FigureCanvasAgg(curves(self.rows)).print_figure(part, format="png", dpi=100)
        os.replace(part, self.plot_path)
        return self.plot_path

    def _write_events(self, row: Row) -> None:
        scalars = {f"loss/{name}": value for name, value in row.losses.items()}
        scalars |= {"learning_rate": row.learning_rate, "seconds": row.seconds}
        if row.gradient_norm is not None:
            scalars["gradient_norm"] = row.gradient_norm
        if row.validation is not None:
            scalars["validation"] = row.validation
        for tag, value in scalars.items():
            self._writer.add_scalar(tag, value, row.step, walltime=row.time)


def read_rows(path: Path) -> list[Row]:
    """Reads `metrics.jsonl`; the last line is left out if a killed run did not finish it.

    Raises:
        ValueError: if another line is not one of ours
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            break
        try:
            rows.append(Row(**json.loads(line)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {number}: {error}; repair the line, or remove it") from error
    return rows


def curves(rows: Sequence[Row]) -> Figure:
    """Losses over steps, each with a running mean, and validations in a panel of their own if there are any."""
    validations = [(row.step, row.validation) for row in rows if row.validation is not None]
    figure = Figure(figsize=(8, 8 if validations else 5), layout="constrained")
    panels = figure.subplots(2 if validations else 1, sharex=True, squeeze=False)[:, 0]
    for number, name in enumerate(sorted({name for row in rows for name in row.losses})):
        points = [(row.step, row.losses[name]) for row in rows if name in row.losses]
        steps, values = np.array(points).T
        panels[0].plot(steps, values, color=f"C{number}", alpha=0.25, linewidth=0.8)
        panels[0].plot(steps, _smooth(values, len(rows)), color=f"C{number}", label=name)
    panels[0].set_ylabel("loss")
    if rows:
        panels[0].legend()
    if validations:
        panels[1].plot(*zip(*validations, strict=True), color="black", marker="o")
        panels[1].set_ylabel("validation")
    panels[-1].set_xlabel("step")
    return figure


def _smooth(values: np.ndarray, num_steps: int) -> np.ndarray:
    """The mean of each value and those before it, over a fixed part of the run."""
    window = max(1, num_steps // _SMOOTHED)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _line(row: Row) -> str:
    return json.dumps(asdict(row), allow_nan=False) + "\n"


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)
