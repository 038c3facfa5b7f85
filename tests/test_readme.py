"""The README does what it says: its Python runs, its files exist, its model table is that of the registry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from fiftyone_refvos.cli import main
from fiftyone_refvos.models.registry import MODELS
from tests.conftest import REPOSITORY

README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]


def test_python_blocks_run_as_they_stand(fiftyone_home, capsys) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    # one video instead of eight, that is the only change
    exec(blocks[0].replace("rv.demo.load()", "rv.demo.load(num_videos=1, name='readme')"), names)
    assert "1 videos written to 'frames.tiny'" in capsys.readouterr().out
    exec(blocks[1], names)
    dataset, view = names["dataset"], names["view"]
    clips = dataset.first().expressions.detections
    assert len(view) == len(clips) > 1
    for clip in view:
        ids = {d.expression_id for frame in clip.frames.values() for d in frame.tiny.detections}
        assert ids <= {clip.expressions.expression_id}
    assert sum(len(f.tiny.detections) for c in view for f in c.frames.values()) == dataset.count(
        "frames.tiny.detections"
    )
    exec(blocks[2], names)
    assert "J&F" in capsys.readouterr().out
    assert dataset.list_evaluations() == ["tiny_eval"]
    dataset.delete()


def test_links_to_files_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_table_names_every_model() -> None:
    table = README.split("## Models")[1].split("## ")[0]
    assert set(re.findall(r"`([a-z0-9_-]+)`[,\s|]", table)) >= set(MODELS)


def test_every_verb_of_the_command_line_is_one_that_exists(capsys) -> None:
    verbs = set(re.findall(r"(?<!\w)refvos ([a-z-]+)", README))
    assert verbs >= {"segment", "segment-video", "verify", "install"}
    for verb in verbs:
        with pytest.raises(SystemExit, match="0"):
            main([verb, "--help"])
    capsys.readouterr()


def test_licence_and_plugin_carry_the_version_of_the_package() -> None:
    version = re.search(r'^version = "(.+?)"', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert f"version: {version[1]}" in (REPOSITORY / "fiftyone.yml").read_text()
    assert "Apache License" in Path(REPOSITORY / "LICENSE").read_text()
