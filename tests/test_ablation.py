"""The ablation goes on where it was stopped, and never mixes cells of different lengths."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ablation
from benchmarks.ablation import Variant
from fiftyone_refvos.demo.rendered import render
from fiftyone_refvos.models.registry import SHIPPED
from scripts.glus_tiny.network import SIDE

CELLS = (Variant("GLU", 2), Variant("GLU + KFS", 1, key_frames=True))


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One step of each kind, measured on one video."""
    monkeypatch.setattr(ablation, "VARIANTS", CELLS)
    monkeypatch.setattr(ablation, "FRAME_STEPS", 1)
    render(tmp_path / "videos", 2, side=SIDE)
    folders = [str(tmp_path / "cells"), "--videos", str(tmp_path / "videos"), "--results", str(tmp_path / "results")]
    return [*folders, "--parts", str(SHIPPED / "glus-tiny"), "--steps", "1", "--tests", "1", "--threads", "1"]


def test_a_stopped_ablation_goes_on_with_the_cells_that_are_missing(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = ablation.train_and_measure
    trained: list[tuple[str, bool]] = []

    def measure(variant: Variant, seed: int, **options: Any) -> dict[str, Any]:
        log = options["folder"] / "metrics.jsonl"
        before = log.read_text() if log.exists() else None
        trained.append((f"{variant.name}, {seed}", before is None))
        if len(trained) == 3:
            raise KeyboardInterrupt
        cell = measured(variant, seed, **options)
        assert before in (None, log.read_text())
        return cell

    monkeypatch.setattr(ablation, "train_and_measure", measure)
    with pytest.raises(KeyboardInterrupt):
        ablation.main(arguments)
    assert "1 cells are missing." in (tmp_path / "results" / "ablation.md").read_text()
    first = json.loads((tmp_path / "results" / "ablation.json").read_text())["cells"]
    ablation.main(arguments)
    # key frames are chosen for the network of the row before, of which nothing is trained again
    assert trained == [("GLU, 0", True), ("GLU + KFS, 0", False), ("GLU, 1", True), ("GLU, 1", True)]
    cells = json.loads((tmp_path / "results" / "ablation.json").read_text())["cells"]
    assert cells[:2] == first
    assert [(cell["variant"], cell["seed"], cell["steps"], cell["videos"]) for cell in cells] == [
        ("GLU", 0, 1, 1),
        ("GLU + KFS", 0, 1, 1),
        ("GLU", 1, 1, 1),
    ]
    assert "No cell is missing." in (tmp_path / "results" / "ablation.md").read_text()

    with pytest.raises(SystemExit, match=r"glu-0\.json: steps was 1, and is 2: choose another folder"):
        ablation.main([*arguments, "--steps", "2"])
    monkeypatch.setattr(ablation, "SELECTOR", SHIPPED / "glus-tiny")
    with pytest.raises(SystemExit, match=r"glu-kfs-0\.json: selector was '\w+', and is '\w+': choose another folder"):
        ablation.main(arguments)
