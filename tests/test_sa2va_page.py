"""docs/sa2va.md: its Python runs as it stands with a tiny network, and its commands and names exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.zoo as foz
import pytest
from PIL import Image

import fiftyone_refvos as rv
from fiftyone_refvos.cli import _parser
from fiftyone_refvos.demo import DemoConfig
from fiftyone_refvos.models.registry import ANSWERING
from tests.conftest import REPOSITORY
from tests.scripted_sa2va import small_checkpoint
from tests.small import noise_video

PAGE = (REPOSITORY / "docs" / "sa2va.md").read_text(encoding="utf-8")
DEMO = DemoConfig(height=96, width=160, num_frames=8, max_per_kind=1)


def test_the_page_runs_as_it_stands(dataset: fo.Dataset, tmp_path: Path) -> None:
    folder = small_checkpoint(tmp_path / "checkpoint")
    videos = rv.demo.load(num_videos=1, config=DEMO, folder=tmp_path / "clips", name="sa2va-page")
    (image,) = noise_video(1).frames
    Image.fromarray(image).save(tmp_path / "0.png")
    boxes = fo.Detections(detections=[fo.Detection(label="box", bounding_box=[0.25, 0.25, 0.5, 0.5])])
    ball = fo.Classifications(classifications=[fo.Classification(label="the ball")])
    dataset.add_sample(fo.Sample(str(tmp_path / "0.png"), boxes=boxes, expressions=ball))
    names: dict[str, Any] = {"images": dataset, "videos": videos, "image": image, "frames": noise_video(6)}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        block = block.replace('"sa2va-4b"', f'"sa2va-4b", checkpoint={str(folder)!r}, device="cpu"')
        exec(block.replace("/weights/Sa2VA-4B", str(folder)), names)
    videos.reload()
    recorded = [videos.get_run_info(f"segment_{field}").config.model for field in ("sa2va", "sa2va_20")]
    assert [(each["mode"], each["key_frames"]) for each in recorded] == [("first", 5), ("uniform", 20)]
    with pytest.raises(rv.FieldExistsError, match="mode was 'first' and is 'uniform'"):
        rv.segment(videos, names["spread"], label_field="sa2va")
    assert dataset.values("sa2va.detections.label") == [["the ball"]]
    assert dataset.values("shown") == dataset.values("caption") == ["Sure, ."]
    assert dataset.values("boxes.detections.words") == [["Sure, ."]]
    assert videos.has_frame_field("where")
    assert names["happens"].key_frames == (0, 1, 2, 3, 4)
    assert names["words"] == ["Sure, ."] * 2
    assert foz.load_zoo_model("sa2va-4b", checkpoint=str(folder), device="cpu").identity["mode"] == "first"
    videos.delete()


def test_the_commands_and_names_of_the_page_exist() -> None:
    commands = re.findall(r"^refvos (.+)$", PAGE, flags=re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        _parser().parse_args(shlex.split(command))
    patterns = [name.replace("*", ".+") for name in re.findall(r"`(sa2va-[a-z0-9_*-]+)`", PAGE)]
    assert all(any(re.fullmatch(pattern, name) for name in ANSWERING) for pattern in patterns)
    assert all(any(re.fullmatch(pattern, name) for pattern in patterns) for name in ANSWERING)
