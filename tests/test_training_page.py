"""docs/training.md: its Python runs as it stands, and its commands are those that there are."""

from __future__ import annotations

import re
from typing import Any

import fiftyone as fo
import fiftyone.zoo as foz
import pytest

import fiftyone_refvos as rv
from fiftyone_refvos.cli import main
from fiftyone_refvos.demo import DemoConfig
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "training.md").read_text(encoding="utf-8")
DEMO = DemoConfig(height=96, width=160, num_frames=8, max_per_kind=1)


def test_the_recipe_runs_as_it_stands(fiftyone_home, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    dataset = rv.demo.load(num_videos=4, config=DEMO, folder=tmp_path / "clips", name="training-page")
    names: dict[str, Any] = {"rv": rv, "fo": fo, "foz": foz, "dataset": dataset}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(block.replace("/trainings", str(tmp_path / "trainings")), names)
    out = capsys.readouterr().out
    assert "glus-tiny trained for 5 steps (finished)" in out
    assert dataset.list_evaluations() == ["after_eval", "before_eval"]
    rows = re.findall(r"^\| (`.*?`) \|", PAGE.split("The folder gets")[1].split("Called again")[0], re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([\w.]+)/?`", row)}
    assert {path.name for path in (tmp_path / "trainings" / "gated").iterdir()} == named
    dataset.delete()


@pytest.mark.parametrize("verb", ["train", "train-mllmseg"])
def test_options_of_the_commands_are_there(verb, capsys):
    options = re.findall(r"--[a-z-]+", "".join(re.findall(rf"^refvos {verb} .*$", PAGE, flags=re.MULTILINE)))
    assert options
    with pytest.raises(SystemExit, match="0"):
        main([verb, "--help"])
    shown = capsys.readouterr().out
    assert all(option in shown for option in options)
