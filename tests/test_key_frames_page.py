"""docs/key_frames.md: its Python runs as it stands, and its commands are those that there are."""

from __future__ import annotations

import re
import shlex
from typing import Any

import fiftyone.zoo as foz
import pytest

import fiftyone_refvos as rv
from fiftyone_refvos.cli import _parser, main
from fiftyone_refvos.demo import DemoConfig
from tests.conftest import REPOSITORY

PAGE = (REPOSITORY / "docs" / "key_frames.md").read_text(encoding="utf-8")
DEMO = DemoConfig(height=96, width=160, num_frames=8, max_per_kind=1)


def test_the_page_runs_as_it_stands(fiftyone_home, tmp_path, capsys):
    dataset = rv.demo.load(num_videos=1, config=DEMO, folder=tmp_path / "clips", name="key-frames-page")
    names: dict[str, Any] = {"rv": rv, "foz": foz, "dataset": dataset}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(block.replace("/tmp/", f"{tmp_path}/"), names)
    assert "'conf' against the true IoU of 'plain'" in capsys.readouterr().out
    assert (tmp_path / "key-frame-plots" / "calibration.png").is_file()
    plots = len(list((tmp_path / "key-frame-plots").iterdir()))
    assert plots == 1 + dataset.count("expressions.detections")
    # the commands do the same
    assert main(["key-frame-quality", dataset.name, "conf", "plain", "--plots", str(tmp_path / "plots")]) == 0
    assert f"{plots} plots written" in capsys.readouterr().out
    files = ["--export", str(tmp_path / "kf.json"), "--export-scores", str(tmp_path / "scores")]
    assert main(["select-key-frames", dataset.name, "middle", "--field", "again", *files]) == 0
    assert main(["import-key-frames", dataset.name, str(tmp_path / "kf.json"), "--field", "back"]) == 0
    dataset.reload()
    path = "expressions.detections.{}_key_frame"
    assert dataset.values(path.format("back")) == dataset.values(path.format("again"))
    assert main(["pseudo-labels", dataset.name, "--pred-field", "plain", "--export", str(tmp_path / "labels")]) == 0
    assert main(["import-pseudo-labels", dataset.name, str(tmp_path / "labels"), "--field", "back"]) == 0
    dataset.reload()
    path = "expressions.detections.{}_ious"
    assert dataset.values(path.format("back")) == dataset.values(path.format("plain"))
    dataset.delete()


@pytest.mark.parametrize("line", re.findall(r"^refvos .*$", PAGE, flags=re.MULTILINE))
def test_commands_of_the_page_are_there(line):
    parsed = _parser().parse_args(shlex.split(line)[1:])
    assert parsed.verb == shlex.split(line)[1]
