"""The recipe of kfs-tiny, in miniature; how good its result is, benchmarks/key_frames.py measures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fiftyone_refvos.demo.rendered import RenderedExpression, RenderedVideo, RenderedVideos, render
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.loading import load_segmenter
from fiftyone_refvos.models.selector.base import load_trainee
from fiftyone_refvos.models.selector.config import SelectorInference
from fiftyone_refvos.models.selector.inference import LanguageFrameSelector
from fiftyone_refvos.models.selector.loading import load_selector
from fiftyone_refvos.models.selector.network import SelectorNetwork
from scripts.glus_tiny.network import SIDE
from scripts.kfs_tiny import stages as recipe_stages
from scripts.kfs_tiny.labels import ORDER, choose, true_ious
from scripts.kfs_tiny.learner import ScoresLearner, draw_expressions
from scripts.kfs_tiny.recipe import GLUS_TINY, pack, save, train
from scripts.kfs_tiny.sources import LabelledRenderings, Seen, Sight, label_files, pixel_counts
from scripts.kfs_tiny.tokens import TokenLearner
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
    source = LabelledRenderings(videos, range(len(videos)), Seen())
    video, context = source.video(0), [0, 3, 6, 9, 12, 15, 18, 21]  # of the first frame at inference
    asked = [video.expressions[0], video.expressions[-1], video.expressions[4]]
    learner = ScoresLearner(trainee.network, trainee.tokenizer, source, clips=1, targets=2)
    batch = learner.batch(list(video.read(context)), [([1, 6], [3, 18], asked)], len(context))
    selector = LanguageFrameSelector(trainee.network, trainee.tokenizer, SelectorInference(smoothing=0))
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
    source = LabelledRenderings(videos, range(len(videos)), Seen())
    learner = ScoresLearner(trainee.network, trainee.tokenizer, source, clips=1, targets=3, expressions=2)
    batch = learner.draw(np.random.default_rng(0))
    with torch.no_grad():
        off = (learner.scores(batch) - batch.labels).numpy()
        losses = learner.losses(batch, np.random.default_rng(0))
    assert off.shape == (3, 2)
    assert float(losses["value"]) == pytest.approx((off**2).mean(), rel=1e-4)
    assert float(losses["order"]) == pytest.approx(3 * ((off - off.mean(0)) ** 2).mean(), rel=1e-3)
    assert float(losses["total"]) == pytest.approx(float(losses["value"] + losses["order"]))


def two_squares(*columns: int) -> RenderedVideo:
    """A 4x4 square at the left edge, and another one at a column of each frame, which lies behind it, or nowhere."""
    labels = np.zeros((len(columns), 40, 40), np.uint8)
    for frame, column in enumerate(columns):
        if column >= 0:
            labels[frame, 10:14, column : column + 4] = 2
        labels[frame, 10:14, :4] = 1
    said = (("0", ("0",)), ("1", ("1",)), ("2", ("0", "1")), ("3", ()))
    return RenderedVideo(
        name="0",
        pixels=np.zeros((*labels.shape, 3), np.uint8),
        labels=labels,
        objects=(("small", "red", "square"), ("small", "blue", "square")),
        expressions=tuple(RenderedExpression(id=id_, text="squares", object_ids=ids) for id_, ids in said),
        actions={},
    )


def test_sight_knows_pixels_and_gaps_of_objects() -> None:
    sight = Sight.of(two_squares(20, 9, 4, 2, -1))
    assert sight.areas.tolist() == [[16, 16], [16, 16], [16, 16], [16, 8], [16, 0]]
    np.testing.assert_array_equal(sight.gaps[:, 0, 1], [17, 6, 1, 1, np.inf])
    np.testing.assert_array_equal(sight.gaps[:, 1, 0], [17, 6, 1, 1, np.inf])
    assert np.isinf(sight.gaps[:, [0, 1], [0, 1]]).all()
    np.testing.assert_allclose(sight.room([0])[:, 0], [0.85, 0.3, 0.05, 0.05, 1])
    np.testing.assert_array_equal(sight.room([0, 1]), np.ones((5, 2)))  # what is meant does not stand in its own way
    np.testing.assert_allclose(sight.clearness[:, 1, 0], [1, 1, 1, 0.5, np.nan])
    np.testing.assert_allclose(sight.clearness[:, 1, 1], [0.85, 0.3, 0.05, 0.05, np.nan])


def test_what_is_seen_falls_with_pixels_that_are_covered_and_with_objects_that_are_near() -> None:
    labels = Seen()(two_squares(20, 9, 4, 2, -1))
    assert set(labels) == {"0", "1", "2"}  # nothing can be seen where there is no object
    alone = 0.9 * 16 / 56
    near = alone * (1 - 0.35 * 0.95)
    half = 0.9 * 8 / 48 * (1 - 0.35 * 0.95)
    expected = [alone * (1 - 0.35 * 0.15), alone * (1 - 0.35 * 0.7), near, half, 0]
    np.testing.assert_allclose(labels["1"], expected, rtol=1e-5)
    np.testing.assert_allclose(labels["0"], [*expected[:3], near, alone], rtol=1e-5)
    np.testing.assert_allclose(labels["2"], [0.9 * area / (area + 40) for area in (32, 32, 32, 24, 16)], rtol=1e-5)


def test_labels_of_what_is_seen_are_of_every_expression_with_objects_and_the_same_in_a_mirror(
    videos: RenderedVideos,
) -> None:
    seen = Seen()
    for number in range(0, len(videos), 2):
        video, mirrored = videos.video(number), videos.video(number + 1)
        labels = seen(video)
        assert set(labels) == {each.id for each in video.expressions if each.object_ids}
        assert seen(mirrored) == labels == Seen()(mirrored)
        for expression in video.expressions:
            if expression.object_ids:
                areas = pixel_counts(video)[:, [int(each) + 1 for each in expression.object_ids]].sum(1)
                assert areas.tolist() == [int((video.targets([expression], t) > 0).sum()) for t in range(len(video))]
                assert min(labels[expression.id]) >= 0
                assert max(labels[expression.id]) < 0.9


def token_learner(folder: Path, videos: RenderedVideos, *, batch_size: int) -> tuple[SelectorNetwork, TokenLearner]:
    """The base of kfs-tiny, and what trains its CLIP."""
    write_base(folder / "base", GLUS_TINY)
    network = load_trainee(folder / "base", folder / "base" / "clip").network
    return network, TokenLearner(network, videos, batch_size=batch_size)


def test_tokens_are_taught_what_the_mean_of_four_patches_said_and_how_clearly_objects_are_seen(
    tmp_path: Path, videos: RenderedVideos
) -> None:
    network, learner = token_learner(tmp_path, videos, batch_size=6)
    batch = learner.draw(np.random.default_rng(3))
    assert batch.clear.shape == (6, 16, 2, 2)
    known = batch.clear[~batch.clear.isnan()]
    assert len(known) >= 12
    assert known.min() >= 0
    assert known.max() <= 1
    with torch.no_grad():
        before = learner.losses(batch, np.random.default_rng(0))
        groups = network.clip_features(batch.pixels).unflatten(1, (16, 4))
        means = groups.mean(2, keepdim=True)
        assert float(before["same"]) == pytest.approx(float((groups - means).square().mean() / means.var()), rel=1e-4)
    teacher = {name: t.clone() for name, t in learner.network.state_dict().items() if name.startswith("teacher.")}
    optimizer = torch.optim.AdamW(learner.network.parameters(), lr=2e-4)
    for _ in range(15):
        optimizer.zero_grad()
        learner.losses(batch, np.random.default_rng(0))["total"].backward()
        optimizer.step()
    with torch.no_grad():
        after = learner.losses(batch, np.random.default_rng(0))
    assert after["same"] < 0.8 * before["same"]
    assert after["clear"] < 0.8 * before["clear"]
    assert teacher
    assert all(torch.equal(learner.network.state_dict()[name], t) for name, t in teacher.items())


def test_tokens_know_the_objects_whose_middle_is_theirs_also_in_a_mirror(
    tmp_path: Path, videos: RenderedVideos
) -> None:
    _, learner = token_learner(tmp_path, videos, batch_size=1)
    video, mirrored = videos.video(0), videos.video(1)
    sight, frame = Sight.of(video), 5
    clear = learner.clearness(video, frame)
    there = {tuple(row) for row in clear.reshape(-1, 2).tolist() if not np.isnan(row[0])}
    assert there == {tuple(row) for row in sight.clearness[frame].tolist() if not np.isnan(row[0])}
    for number in np.flatnonzero(sight.areas[frame]):
        y, x = (int(each.mean()) for each in np.nonzero(video.labels[frame] == number + 1))
        token = y * 8 // SIDE * 2 + x * 2 // SIDE  # 8 rows of 2
        assert sight.clearness[frame, number].tolist() in clear[token].tolist()
    swapped = np.sort(learner.clearness(mirrored, frame).reshape(8, 2, -1)[:, ::-1], axis=2)
    np.testing.assert_array_equal(swapped, np.sort(clear.reshape(8, 2, -1), axis=2))


def test_expressions_with_an_order_to_find_are_drawn_more_often(videos: RenderedVideos) -> None:
    video = LabelledRenderings(videos, range(len(videos)), Seen()).video(0)
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


def test_the_packed_weights_are_the_mean_in_half_precision(tmp_path: Path) -> None:
    write_base(tmp_path / "base", GLUS_TINY)
    networks = []
    for shift in (0.25, 0.75):
        trainee = load_trainee(tmp_path / "base", tmp_path / "base" / "clip")
        begun = {name: t.clone() for name, t in trainee.network.state_dict().items()}
        with torch.no_grad():
            for parameter in trainee.network.parameters():
                parameter.add_(shift)
        networks.append(tmp_path / str(shift))
        save(trainee, networks[-1], tmp_path / "base")
    packed = load_selector(pack(networks, tmp_path / "packed"), device="cpu", dtype="float32").network.state_dict()
    assert packed.keys() == begun.keys()
    for name, weights in packed.items():
        torch.testing.assert_close(weights, begun[name] + 0.5, atol=2e-3, rtol=1e-3)


def test_labels_for_held_out_videos_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="24 labelled videos are too few: 24 of them are held out"):
        train(tmp_path, num_fresh=24)
    assert list(tmp_path.iterdir()) == []


def test_every_stage_runs_and_the_result_loads_and_scores(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_stages, "HELD_OUT", 1)

    def short(seed: int) -> list[recipe_stages.Stage]:
        return [
            replace(stage, config=replace(stage.config, steps=1, warmup_steps=0))
            for stage in recipe_stages.stages(seed)
        ]

    packed = train(folder, num_videos=2, num_fresh=2, seeds=(0, 1), chain=short)
    labels = sorted((folder / "labels").rglob("*.json"))
    assert {path.parent.name for path in labels} == {"12000", "12003"}
    assert len(labels) <= 2 * len(ORDER)
    assert all(len(json.loads(path.read_text())) == 24 for path in labels)
    assert label_files(folder / "labels")(RenderedVideos(folder / "fresh").video(1))  # mirrored: those of the video
    assert sum(path.stat().st_size for path in packed.rglob("*") if path.is_file()) < 15e6
    folders = [folder / name / "network" for name in ("seen-0", "ious-0", "ious-1")]
    before, after, other, mean = (
        load_selector(each, device="cpu", dtype="float32").network.state_dict() for each in (*folders, packed)
    )
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name].half(), after[name].half())}
    assert changed == {"projector", "llama", "score_head"}
    packed_clip = {name for name in mean if name.startswith("clip.")}
    assert all(torch.equal(after[name], other[name]) for name in packed_clip)  # it is trained once for all seeds
    one, two = (state["score_head.0.weight"] for state in (after, other))
    assert (mean["score_head.0.weight"] - (one + two) / 2).abs().max() < (one - two).abs().max() / 8
    base = load_trainee(folder / "base", folder / "base" / "clip").network.state_dict()
    assert any(not torch.equal(base[name].half(), after[name].half()) for name in after if name.startswith("clip."))
    scores = load_selector(packed, device="cpu").score(noise_video(3), Expression("0", "the red star"))
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()
