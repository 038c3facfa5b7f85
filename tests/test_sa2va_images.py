"""Expressions of images with Sa2VA: the published question, what is shared, and fields of datasets."""

from __future__ import annotations

import json
from pathlib import Path

import fiftyone as fo
import fiftyone.zoo as foz
import numpy as np
import pytest
from PIL import Image

import fiftyone_refvos as rv
from fiftyone_refvos.fields import read_masklets
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.sa2va.images import ask_about_image
from tests.scripted_sa2va import scripted_sa2va, small_checkpoint
from tests.shared import shared_path
from tests.small import ArrayFrames, noise_video

BALL, DOG = Expression("0", "the ball"), Expression("7", "the large dog")
PICTURES = noise_video(2, (48, 80)).frames
SEGMENTED, NOTHING = "Sure, [SEG].<|im_end|>", "Nothing.<|im_end|>"


def published_task(case: str) -> tuple[str, str]:
    """An expression, and the published question about it; of Sa2VA-i only videos are published."""
    meta = json.loads(shared_path("golden", "sa2va", case, "inputs", "meta.json").read_text())
    return meta["res_expression"], meta["tasks"]["image_res"]["text"]


@pytest.mark.parametrize("case", ["internvl_qwen2_a", "qwen3_vl_a", "sa2va_i_a"])
def test_each_expression_is_asked_about_as_published_and_the_image_is_seen_once(case: str) -> None:
    text, question = published_task("internvl_qwen2_a" if case == "sa2va_i_a" else case)
    sa2va = scripted_sa2va(SEGMENTED, case=case, expression_batch=1)
    frames = ArrayFrames(PICTURES)
    found = list(sa2va.for_images().segment(frames, [BALL, Expression("7", text)]))
    assert [(each.frame, each.expression_id) for each in found] == [(0, "0"), (0, "7"), (1, "0"), (1, "7")]
    assert frames.reads == [0, 1]
    asked = ask_about_image(sa2va.asker, PICTURES[1], question)
    assert found[3].found
    assert asked.masks.any()
    assert (found[3].masks != asked.masks).mean() <= 5e-4
    assert found[3].scores == pytest.approx(asked.scores, abs=1e-3)


def test_an_image_without_the_object_has_no_mask() -> None:
    sa2va = scripted_sa2va(SEGMENTED, NOTHING, expression_batch=1)
    ball, dog = sa2va.for_images().segment(ArrayFrames(PICTURES[:1]), [BALL, DOG])
    assert (ball.found, dog.found) == (True, False)
    assert not dog.masks.any()
    assert dog.masks.shape == (1, 48, 80)


def test_what_cannot_be_asked_about_an_image_is_refused() -> None:
    images = scripted_sa2va(SEGMENTED).for_images()
    with pytest.raises(ValueError, match="expression '3' holds"):
        images.segment(ArrayFrames(PICTURES), [Expression("3", "a [SEG] thing")])
    with pytest.raises(ValueError, match="an image has none"):
        images.segment(ArrayFrames(PICTURES), [BALL], key_frames={"0": 0})
    with pytest.raises(ValueError, match="expression '3' is too long"):
        list(images.segment(ArrayFrames(PICTURES), [Expression("3", "word " * 40_000)]))


def test_datasets_of_images_get_masks_of_their_expressions(dataset: fo.Dataset, tmp_path: Path) -> None:
    model = foz.load_zoo_model("sa2va-1b", checkpoint=small_checkpoint(tmp_path / "checkpoint"), device="cpu")
    for number, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        labels = [fo.Classification(label=each.text) for each in (BALL, DOG)]
        sample = fo.Sample(str(tmp_path / f"{number}.png"), expressions=fo.Classifications(classifications=labels))
        dataset.add_sample(sample)
    report = rv.segment(dataset, model, label_field="found")
    assert (report.num_samples, report.num_expressions, report.failures) == (2, 4, [])
    expected = [each.masks[0] for each in model.segmenter.for_images().segment(ArrayFrames(PICTURES), [BALL, DOG])]
    stored = [each.union(0) for sample in dataset for each in read_masklets(sample, "found", exact=True)]
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(stored, expected, strict=True))
    dataset.apply_model(model.for_images(), label_field="applied")
    ours, applied = (dataset.values(f"{field}.detections.bounding_box") for field in ("found", "applied"))
    assert ours == applied
    record = dataset.get_run_info("segment_found").config.model
    assert record["name"] == "sa2va-1b"
    assert "mode" not in record
    assert model.media_type == "video"  # for apply_model
