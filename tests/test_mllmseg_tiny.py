"""mllmseg-tiny as it ships: small, as good as is stated, by its name on images and on videos."""

from __future__ import annotations

import json
from pathlib import Path

import fiftyone as fo
import fiftyone.zoo as foz
import numpy as np
import pytest
from PIL import Image

import fiftyone_refvos as rv
from benchmarks.mllmseg_quality import RESULTS, figures, measure
from fiftyone_refvos import fields
from fiftyone_refvos.demo.quality_card import weights_digest
from fiftyone_refvos.demo.video import generate
from fiftyone_refvos.demo.world import video_seed
from fiftyone_refvos.models.mllmseg.loading import load_mllmseg
from fiftyone_refvos.models.registry import SHIPPED
from tests.videos import write_clip

FOLDER = SHIPPED / "mllmseg-tiny"


def test_the_committed_figures_are_those_of_the_shipped_weights() -> None:
    stated = json.loads((RESULTS / "mllmseg_quality.json").read_text())
    assert stated["weights"] == weights_digest(FOLDER)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 15e6
    segmenter = load_mllmseg(FOLDER, device="cpu", dtype="float32")
    measured = figures(list(measure(segmenter, stated["first"]["videos"])))
    for kind, values in stated["first"]["figures"].items():
        assert measured[kind] == pytest.approx(values, abs=0.5, nan_ok=True)
    card = (FOLDER / "README.md").read_text()
    assert all(f"{stated['figures'][kind]['mIoU']:.1f}" in card for kind in ("attribute", "relation", "multi"))


def test_it_loads_by_its_name_and_segments_images_and_videos(dataset, tmp_path: Path) -> None:
    video = generate(video_seed("test", 0))
    path = tmp_path / "frame.png"
    Image.fromarray(video.frame(6)).save(path)
    dataset.add_sample(fo.Sample(filepath=str(path)))
    model = foz.load_zoo_model("mllmseg-tiny", device="cpu")
    report = rv.segment(dataset, model, label_field="tiny", prompts=[video.expressions[0].text])
    assert (report.num_samples, report.num_expressions, report.failures) == (1, 1, [])
    (masklet,) = fields.read_masklets(dataset.first(), "tiny", exact=True)
    assert masklet.union(0).shape == video.size
    clips = fo.Dataset(f"{dataset.name}-clips")
    try:
        clips.add_sample(fo.Sample(filepath=str(write_clip(tmp_path / "clip.mp4"))))
        report = rv.segment(clips, model, label_field="tiny", prompts=["the red circle"])
        assert (report.num_samples, report.failures) == (1, [])
        (masklet,) = fields.read_masklets(clips.first(), "tiny")
        assert np.array_equal(masklet.frames, range(6))
    finally:
        clips.delete()
