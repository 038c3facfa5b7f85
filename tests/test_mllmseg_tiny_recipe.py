"""The recipe of mllmseg-tiny, in miniature; how good its result is, benchmarks/mllmseg_quality.py measures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fiftyone_refvos.demo.facts import PLACES
from fiftyone_refvos.demo.rendered import LOOK, RenderedVideos, render
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.checkpoint import iterate_tensors
from fiftyone_refvos.models.internlm2_tokenizer import InternLM2Tokenizer
from fiftyone_refvos.models.mllmseg.loading import load_mllmseg
from fiftyone_refvos.models.mllmseg.prompt import SYSTEM
from fiftyone_refvos.training.mllmseg.start import is_plain_internvl
from scripts.glus_tiny.network import SIDE
from scripts.mllmseg_tiny.base import SA2VA_TINY, write_base
from scripts.mllmseg_tiny.frames import COUNTS, DemoFrames, clear_expressions
from scripts.mllmseg_tiny.recipe import train
from scripts.mllmseg_tiny.stages import STAGES
from tests.small_mllmseg import noise_image


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    render(folder / "videos", 3, side=SIDE)
    return folder


@pytest.fixture(scope="module")
def videos(folder: Path) -> RenderedVideos:
    return RenderedVideos(folder / "videos")


def test_a_frame_is_asked_about_what_it_shows(videos: RenderedVideos) -> None:
    kinds = set()
    for number in range(len(videos)):
        video = videos.video(number)
        for frame in (0, 12, 23):
            for expression, has_target in clear_expressions(video, frame):
                assert expression.topic in (LOOK, *PLACES)
                wanted = [int(each) + 1 for each in expression.object_ids]
                assert has_target == np.isin(video.labels[frame], wanted).any()
                kinds.add((expression.kind, has_target))
    assert {("attribute", True), ("relation", True), ("multi", True), ("no_target", False)} <= kinds


def test_images_of_a_frame_have_several_numbers_of_its_expressions(videos: RenderedVideos) -> None:
    frames = DemoFrames(videos)
    assert len(frames) == len(videos) * 24 * len(COUNTS)
    images = [frames.image(len(COUNTS) * 30 + n) for n in range(len(COUNTS))]
    assert {image.name for image in images} == {f"{videos.video(1).name}/00006"}
    assert [len(image.expressions) for image in images] == list(COUNTS)
    again = frames.image(len(COUNTS) * 30)
    assert again.expressions == images[0].expressions
    masks = images[0].masks(images[0].expressions)
    assert [mask.any() for mask in masks] == [each.has_target for each in images[0].expressions]
    assert images[0].read().shape == (SIDE, SIDE, 3)


def test_the_base_is_the_internvl_of_sa2va_tiny_as_internvl_is_published(tmp_path: Path) -> None:
    write_base(tmp_path / "base")
    assert is_plain_internvl(tmp_path / "base")
    tokenizer = InternLM2Tokenizer(tmp_path / "base")
    assert tokenizer.encode(SYSTEM) == [645]
    assert "[SEG]" not in tokenizer.reserved
    made, taken = (dict(iterate_tensors(each)) for each in (tmp_path / "base", SA2VA_TINY))
    assert set(made) == {n for n in taken if n.startswith(("vision_model.", "language_model.", "mlp1."))}
    embeddings = "language_model.model.tok_embeddings.weight"
    (colon,) = tokenizer.encode(":")[-1:]
    assert torch.equal(made[embeddings][colon], taken[embeddings][645].float())  # that of Sa2VA's [SEG]
    changed = {name for name in made if name != embeddings and not torch.equal(made[name], taken[name][:646].float())}
    assert not changed


def test_every_stage_runs_once_and_the_result_loads_and_answers(folder: Path) -> None:
    stages = [replace(each, config=replace(each.config, steps=1, warmup_steps=0)) for each in STAGES]
    packed = train(folder, num_videos=3, stages=stages)
    assert sum(path.stat().st_size for path in packed.iterdir()) < 15e6
    networks = ("start", *(f"{each.name}/network" for each in (STAGES[0], STAGES[-1])))
    start, drawn, end = (dict(iterate_tensors(folder / each)) for each in networks)
    changed = {name.split(".")[0] for name in start if not torch.equal(start[name], drawn[name])}
    assert changed == {"res_decoder", "language_model"}
    assert [n for n in start if n.startswith("language_model.") and not torch.equal(start[n], drawn[n])] == [
        "language_model.output.weight"
    ]
    changed = {name.split(".")[0] for name in start if not torch.equal(drawn[name], end[name])}
    assert changed == {"res_decoder", "language_model", "vision_model", "mlp1"}
    made = load_mllmseg(packed, device="cpu", dtype="float32")
    (result,) = made.segment_image(noise_image(30, 40), [Expression("0", "the red star")])
    assert result.unrejected.shape == (30, 40)
    written = (packed / "model.safetensors").stat().st_mtime_ns
    assert train(folder, num_videos=3, stages=stages) == packed  # nothing is done twice
    assert (packed / "model.safetensors").stat().st_mtime_ns == written
