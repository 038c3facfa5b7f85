"""The recipe of kfs-tiny, in miniature; how good its result is, benchmarks/key_frames.py measures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fiftyone_refvos.demo.rendered import RenderedVideos, render
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.loading import load_segmenter
from fiftyone_refvos.models.selector.base import load_trainee
from fiftyone_refvos.models.selector.config import SelectorInference
from fiftyone_refvos.models.selector.inference import LanguageFrameSelector
from fiftyone_refvos.models.selector.loading import load_selector
from scripts.glus_tiny.network import SIDE
from scripts.kfs_tiny import stages as recipe_stages
from scripts.kfs_tiny.labels import ORDER, choose, true_ious
from scripts.kfs_tiny.learner import ScoresLearner, draw_expressions
from scripts.kfs_tiny.recipe import GLUS_TINY, train
from scripts.kfs_tiny.sources import LabelledRenderings, label_files, pixel_counts, seen
from scripts.make_kfs_base import main as write_base
from tests.small import noise_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recipe")
    render(folder / "videos", 2, side=SIDE)
    return folder


@pytest.fixture(scope="module")
def videos(folder: Path) -> RenderedVideos:
    return RenderedVideos(folder / "videos")


def test_scores_in_training_are_those_of_inference(tmp_path: Path, videos: RenderedVideos) -> None:
    """Targets and requests that go through together do not see each other."""
    write_base(tmp_path / "base", GLUS_TINY)
    trainee = load_trainee(tmp_path / "base", tmp_path / "base" / "clip")
    source = LabelledRenderings(videos, range(len(videos)), seen)
    video, context = source.video(0), [0, 3, 6, 9, 12, 15, 18, 21]  # of the first frame at inference
    asked = [video.expressions[0], video.expressions[-1], video.expressions[4]]
    learner = ScoresLearner(trainee.network, trainee.tokenizer, source, clips=1, targets=2)
    batch = learner.batch(list(video.read(context)), [([1, 6], [3, 18], asked)], len(context))
    selector = LanguageFrameSelector(trainee.network, trainee.tokenizer, SelectorInference())
    with torch.no_grad():
        ours = learner.scores(batch)
    expected = selector.scores(video, [Expression(each.id, each.text) for each in asked])
    theirs = np.stack([expected[each.id][[3, 18]] for each in asked], axis=1)
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-5)
    wanted = np.array([[each.labels[t] for each in asked] for t in (3, 18)], dtype=float)
    np.testing.assert_allclose(batch.labels.numpy(), wanted, atol=1e-6)


def test_losses_are_of_values_and_of_their_order(tmp_path: Path, videos: RenderedVideos) -> None:
    write_base(tmp_path / "base", GLUS_TINY)
    trainee = load_trainee(tmp_path / "base", tmp_path / "base" / "clip")
    source = LabelledRenderings(videos, range(len(videos)), seen)
    learner = ScoresLearner(trainee.network, trainee.tokenizer, source, clips=1, targets=3, expressions=2)
    batch = learner.draw(np.random.default_rng(0))
    with torch.no_grad():
        off = (learner.scores(batch) - batch.labels).numpy()
        losses = learner.losses(batch, np.random.default_rng(0))
    assert off.shape == (3, 2)
    assert float(losses["value"]) == pytest.approx((off**2).mean(), rel=1e-4)
    assert float(losses["order"]) == pytest.approx(3 * ((off - off.mean(0)) ** 2).mean(), rel=1e-3)
    assert float(losses["total"]) == pytest.approx(float(losses["value"] + losses["order"]))


def test_what_is_seen_falls_with_the_pixels_that_show_the_objects(videos: RenderedVideos) -> None:
    for number in range(len(videos)):
        video = videos.video(number)
        labels = seen(video)
        assert set(labels) == {each.id for each in video.expressions if each.object_ids}
        for expression in video.expressions:
            if expression.object_ids:
                areas = pixel_counts(video)[:, [int(each) + 1 for each in expression.object_ids]].sum(1)
                assert areas.tolist() == [int((video.targets([expression], t) > 0).sum()) for t in range(len(video))]
                assert np.argmax(labels[expression.id]) == np.argmax(areas)
                assert min(labels[expression.id]) >= 0
                assert max(labels[expression.id]) < 0.9


def test_expressions_with_an_order_to_find_are_drawn_more_often(videos: RenderedVideos) -> None:
    video = LabelledRenderings(videos, range(len(videos)), seen).video(0)
    flat = [replace(each, labels=(0.5,) * 24) for each in video.expressions[:8]]
    varying = replace(video.expressions[8], labels=(0.0, 1.0) * 12)
    rng = np.random.default_rng(0)
    times = sum(varying in draw_expressions([*flat, varying], 1, rng) for _ in range(300))
    assert 80 < times < 150  # 5 of 13


def test_labels_are_the_iou_of_the_masks_and_zero_where_there_is_nothing(videos: RenderedVideos) -> None:
    video = videos.video(0)
    (asked, *_) = choose(video)
    ious = true_ious(video, [asked], load_segmenter("glus-tiny", device="cpu"))[asked.id]
    assert len(ious) == 24
    assert all(0 <= value <= 1 for value in ious)
    results = load_segmenter("glus-tiny", device="cpu").segment(video, [Expression(asked.id, asked.text)])
    for result in results:
        truth, mask = video.targets([asked], result.frame)[0] > 0, result.masks[0]
        either = (truth | mask).sum()
        assert ious[result.frame] == pytest.approx((truth & mask).sum() / either if either else 0.0)


def test_every_stage_runs_and_the_result_loads_and_scores(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_stages, "HELD_OUT", 1)
    short = [
        replace(stage, config=replace(stage.config, steps=1, warmup_steps=0))
        for stage in recipe_stages.stages(seed=0)
    ]
    packed = train(folder, num_videos=2, num_fresh=2, chain=short)
    labels = sorted((folder / "labels").rglob("*.json"))
    assert {path.parent.name for path in labels} == {"12000", "12003"}
    assert len(labels) <= 2 * len(ORDER)
    assert all(len(json.loads(path.read_text())) == 24 for path in labels)
    assert label_files(folder / "labels")(RenderedVideos(folder / "fresh").video(1))  # mirrored: those of the video
    assert sum(path.stat().st_size for path in packed.rglob("*") if path.is_file()) < 15e6
    before, after = (
        load_selector(each, device="cpu").network.state_dict() for each in (folder / "seen-0" / "network", packed)
    )
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name].half(), after[name].half())}
    assert changed == {"projector", "llama", "score_head"}
    scores = load_selector(packed, device="cpu").score(noise_video(3), Expression("0", "the red star"))
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()
