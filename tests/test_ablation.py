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
    trained: list[str] = []

    def measure(variant: Variant, seed: int, **options: Any) -> dict[str, Any]:
        trained.append(f"{variant.name}, {seed}")
        if len(trained) == 3:
            raise KeyboardInterrupt
        return measured(variant, seed, **options)

    monkeypatch.setattr(ablation, "train_and_measure", measure)
    with pytest.raises(KeyboardInterrupt):
        ablation.main(arguments)
    assert "1 cells are missing." in (tmp_path / "results" / "ablation.md").read_text()
    first = json.loads((tmp_path / "results" / "ablation.json").read_text())["cells"]
    ablation.main(arguments)
    assert trained == ["GLU, 0", "GLU + KFS, 0", "GLU, 1", "GLU, 1"]
    cells = json.loads((tmp_path / "results" / "ablation.json").read_text())["cells"]
    assert cells[:2] == first
    assert [(cell["variant"], cell["seed"], cell["steps"], cell["videos"]) for cell in cells] == [
        ("GLU", 0, 1, 1),
        ("GLU + KFS", 0, 1, 1),
        ("GLU", 1, 1, 1),
    ]
    assert "No cell is missing." in (tmp_path / "results" / "ablation.md").read_text()
    # key frames are chosen for the network of the row before, of which nothing is trained again
    assert sorted(path.name for path in (tmp_path / "cells").iterdir() if path.is_dir()) == [
        "frames",
        "glu-0",
        "glu-1",
    ]

    with pytest.raises(
        SystemExit, match=r"glu-0\.json is of 1 steps and 1 test videos, not of 2 and 1: take another"
    ):
        ablation.main([*arguments, "--steps", "2"])
