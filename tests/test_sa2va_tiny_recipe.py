"""The recipe of sa2va-tiny, in miniature; how good its result is, benchmarks/demo_quality.py measures."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fiftyone_refvos.demo.rendered import RenderedVideos, render
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.clip_tower import clip_processor
from fiftyone_refvos.models.glus.config import GlusConfig
from fiftyone_refvos.models.glus.weights import load_network as load_glus
from fiftyone_refvos.models.sa2va.families import InternVl
from fiftyone_refvos.models.sa2va.inference import Sa2vaSegmenter
from fiftyone_refvos.models.sa2va.loading import load_sa2va
from fiftyone_refvos.models.sa2va.pixels import internvl_frames
from scripts.glus_tiny.network import SIDE
from scripts.sa2va_tiny.recipe import train
from scripts.sa2va_tiny.segment import TalkLearner
from scripts.sa2va_tiny.stages import LANGUAGE, MASKS, TOGETHER
from scripts.sa2va_tiny.start import GLUS_TINY, write_start
from scripts.sa2va_tiny.talk import caption, look_around, refer, region, visible
from tests.small import noise_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    render(folder / "videos", 2, side=SIDE)
    write_start(folder / "start", folder / "videos", seed=0)
    return folder


@pytest.fixture(scope="module")
def videos(folder: Path) -> RenderedVideos:
    return RenderedVideos(folder / "videos")


@pytest.fixture(scope="module")
def segmenter(folder: Path) -> Sa2vaSegmenter:
    return load_sa2va(folder / "start", device="cpu")


def test_the_vision_tower_begins_close_to_what_clip_sees(segmenter: Sa2vaSegmenter, videos: RenderedVideos) -> None:
    glus = load_glus(
        GLUS_TINY, GLUS_TINY / "clip", GlusConfig.read(GLUS_TINY), device=torch.device("cpu"), dtype=torch.float32
    )
    frames = list(videos.video(0).read([0, 9]))
    assert isinstance(segmenter.family, InternVl)
    with torch.no_grad():
        pixels = clip_processor(SIDE, "squash")(images=frames, return_tensors="pt")["pixel_values"]
        theirs = glus.clip_features(pixels)
        ours = segmenter.family.tile_states(internvl_frames(frames, SIDE))[:, 1:]
    assert torch.cosine_similarity(ours, theirs, dim=-1).mean() > 0.9


def test_turns_of_one_row_do_not_see_each_other(
    segmenter: Sa2vaSegmenter, folder: Path, videos: RenderedVideos
) -> None:
    """Each [SEG] has the state that it has in a conversation of its own, as it is run in inference."""
    learner, video, seen = TalkLearner(segmenter.network, folder / "start", videos), videos.video(0), [1, 7]
    turns = [turn for turn in refer(video.expressions, 6, np.random.default_rng(0)) if turn.objects]
    assert len(turns) >= 2
    batch = learner.batch([learner.write(video, seen, turns, [1], None)])
    with torch.no_grad():
        states = learner.states(batch)[0][batch.segs[:, 1]]
        visual = segmenter.family.see_video(list(video.read(seen)))
        for turn, state in zip(turns, states, strict=True):
            asker, family = segmenter.asker, segmenter.family
            prompt = family.encode(turn.question, visual)
            said = family.tokenizer.encode(turn.answer)
            upto = said[: said.index(family.tokenizer.token_id("[SEG]")) + 1]
            alone = asker.language.read(asker.prefill(prompt, visual), asker.suffix([*prompt, *upto]))[-1]
            torch.testing.assert_close(state, alone, rtol=1e-4, atol=1e-4)


def test_rows_of_masks_are_the_objects_that_are_named(videos: RenderedVideos, folder: Path) -> None:
    segmenter = load_sa2va(folder / "start", device="cpu")
    learner, video = TalkLearner(segmenter.network, folder / "start", videos), videos.video(1)
    turn = caption(video, 3)
    assert turn.answer.count("[SEG]") == len(turn.objects) == min(4, len(visible(video, 3)))
    clip = learner.write(video, [3], [turn], [3], None)
    for phrase, numbers, targets in zip(
        re.findall(r"<p>(.*?)</p>", turn.answer), turn.objects, clip.targets, strict=True
    ):
        (number,) = numbers
        assert phrase == " ".join(video.objects[number])
        assert np.array_equal(targets[0], video.labels[3] == number + 1)


def test_questions_about_a_region_mark_the_visual_tokens_of_the_object(videos: RenderedVideos) -> None:
    video = videos.video(0)
    turn, cells = region(video, 5, 4, np.random.default_rng(0))
    corners = video.labels[5][:: SIDE // 4, :: SIDE // 4].flatten()
    assert len({int(corners[cell]) for cell in cells}) <= 1
    if len(cells):
        assert turn.answer == f"{' '.join(video.objects[int(corners[cells[0]]) - 1])}."
    assert look_around(video, [5]).answer.count(",") == len(visible(video, 5)) - 1


def test_every_stage_runs_and_the_result_loads_and_answers(folder: Path) -> None:
    language, masks, together = (
        [replace(stage, config=replace(stage.config, steps=1, warmup_steps=0)) for stage in stages]
        for stages in (LANGUAGE, MASKS, TOGETHER)
    )
    packed = train(folder, num_videos=2, language=language, masks=masks, together=together)
    assert sum(path.stat().st_size for path in packed.iterdir()) < 15e6
    made = load_sa2va(packed, device="cpu", settings={"max_new_tokens": 8})
    places = (folder / "start", folder / "talk" / "network")
    start, end = (load_sa2va(each, device="cpu").network.state_dict() for each in places)
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert {name.split(".")[0] for name in changed} == {"mllm", "seg_projection", "sam"}
    assert not any(name.startswith("sam.sam2.image_encoder.") for name in changed)
    results = list(made.segment(noise_video(3), [Expression("0", "the red star")]))
    assert sorted(result.frame for result in results) == [0, 1, 2]
