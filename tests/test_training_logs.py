"""Logs of training runs, read back as their readers do: JSON, TensorBoard, an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib._pylab_helpers import Gcf
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fiftyone_refvos.training.logs import Row, TrainingLog, curves, read_rows


def row(step: int, validation: float | None = None, **losses: float) -> Row:
    return Row(step, losses or {"total": 1 / step}, 1e-4 * step, 0.5, 0.25, 1.7e9 + step, validation)


def scalars(folder: Path, tag: str) -> list[tuple[int, Any]]:
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]


def test_each_step_is_a_line_of_json(tmp_path: Path):
    with TrainingLog(tmp_path, 0) as log:
        log.add(row(1, ce=2.0, total=2.5))
        log.add(row(2, validation=0.5))
    first, second = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first == {
        "step": 1,
        "losses": {"ce": 2.0, "total": 2.5},
        "learning_rate": 1e-4,
        "gradient_norm": 0.5,
        "seconds": 0.25,
        "time": 1.7e9 + 1,
        "validation": None,
    }
    assert second["validation"] == 0.5


def test_tensorboard_reads_the_curves(tmp_path: Path):
    with TrainingLog(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.add(row(step, validation=0.5 if step == 2 else None))
    assert scalars(tmp_path, "loss/total") == [(1, 1), (2, 1 / 2), (3, 1 / 3)]
    assert scalars(tmp_path, "learning_rate") == [(1, 1e-4), (2, 2e-4), (3, 3e-4)]
    assert scalars(tmp_path, "gradient_norm") == [(step, 0.5) for step in (1, 2, 3)]
    assert scalars(tmp_path, "validation") == [(2, 0.5)]


def test_a_resumed_run_logs_no_step_twice(tmp_path: Path):
    with TrainingLog(tmp_path, 0) as log:
        for step in (1, 2, 3, 4):
            log.add(row(step, validation=0.9))
    with TrainingLog(tmp_path, 2) as log:
        assert [each.step for each in log.rows] == [1, 2]
        log.add(row(3, total=9.0))
    assert [(each.step, each.losses["total"]) for each in read_rows(tmp_path / "metrics.jsonl")] == [
        (1, 1.0),
        (2, 0.5),
        (3, 9.0),
    ]
    assert scalars(tmp_path, "loss/total") == [(1, 1), (2, 0.5), (3, 9)]
    assert scalars(tmp_path, "validation") == [(1, 0.9), (2, 0.9)]


def test_a_line_that_a_killed_run_did_not_finish_is_left_out(tmp_path: Path):
    with TrainingLog(tmp_path, 0) as log:
        log.add(row(1))
        log.add(row(2))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    assert [each.step for each in read_rows(path)] == [1]
    with TrainingLog(tmp_path, 2) as log:
        log.add(row(2))
    assert [each.step for each in read_rows(path)] == [1, 2]


def test_a_line_that_is_not_ours_is_named(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl, line 1: .*; repair the line"):
        TrainingLog(tmp_path, 1)


def test_the_picture_shows_smoothed_losses_and_validations_below_them():
    rows = [row(step, 0.1 * step if step % 100 == 0 else None, ce=float(step % 2)) for step in range(1, 201)]
    losses, validations = curves(rows).axes
    raw, smooth = (np.asarray(line.get_ydata()).tolist() for line in losses.get_lines())
    assert raw[:4] == [1, 0, 1, 0]
    assert smooth[:4] == [1, 0.5, pytest.approx(2 / 3), 0.5]  # over 200 / 50 steps, or those that there are
    assert smooth[10:] == pytest.approx([0.5] * 190)
    assert np.asarray(validations.get_lines()[0].get_data()).tolist() == [[100, 200], [10, pytest.approx(20)]]


def test_a_loss_that_is_not_always_defined_is_drawn_where_it_is():
    (losses,) = curves([row(1, ce=1.0), row(2, ce=2.0, contrastive=5.0)]).axes
    drawn = {line.get_label(): np.asarray(line.get_xdata()).tolist() for line in losses.get_lines()[1::2]}
    assert drawn == {"ce": [1, 2], "contrastive": [2]}


def test_drawing_leaves_matplotlib_as_it_was(tmp_path: Path):
    figures = list(Gcf.figs)
    with TrainingLog(tmp_path, 0) as log:
        log.plot()  # nothing yet
        log.add(row(1, validation=0.5))
        path = log.plot()
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (800, 800))
    assert list(Gcf.figs) == figures
    assert [each.name for each in tmp_path.glob(".*")] == []
