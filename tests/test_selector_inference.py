"""The language key frame selector over a video: the same scores with far less work, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.selector.config import SelectorInference
from fiftyone_refvos.models.selector.inference import LanguageFrameSelector, VideoScorer
from fiftyone_refvos.models.selector.loading import load_selector
from fiftyone_refvos.models.selector.protocol import SelectionError
from fiftyone_refvos.sampling import residue_classes
from tests.small import BIRD, CAT, DOG, noise_video
from tests.small_selector import TINY, NoFrames, one_prompt_at_a_time, small_selector, write_selector

QUESTION = Expression("3", "Which dog is the  fastest?")
ALL = [DOG, CAT, BIRD, QUESTION]
IMAGE = 28  # visual tokens of one image of the small selector


@pytest.mark.parametrize("num_frames", [1, 2, 3, 11, 12, 25])
def test_scores_are_those_of_one_whole_prompt_at_a_time(num_frames: int) -> None:
    video = noise_video(num_frames)
    ours = small_selector().scores(video, ALL)
    alone = one_prompt_at_a_time(small_selector(), video, ALL)
    for expression in ALL:
        assert ours[expression.id].shape == (num_frames,)
        assert ours[expression.id].dtype == np.float32
        np.testing.assert_allclose(ours[expression.id], alone[expression.id], atol=1e-5)


def test_every_frame_is_in_one_context_with_every_step_th_other() -> None:
    assert residue_classes(3, 11) == [[0, 1, 2]]
    assert residue_classes(11, 11) == [list(range(11))]
    assert residue_classes(12, 11) == [[0, 2, 4, 6, 8, 10], [1, 3, 5, 7, 9, 11]]
    assert [len(c) for c in residue_classes(25, 11)] == [9, 8, 8]
    assert residue_classes(3, 1) == [[0], [1], [2]]


def test_expressions_and_batches_do_not_change_the_scores() -> None:
    video = noise_video(13)
    together = small_selector().scores(video, ALL)
    for settings in ({"token_batch": 1}, {"token_batch": 300, "frame_batch": 3}):
        other = small_selector(**settings).scores(video, ALL)
        for expression in ALL:
            np.testing.assert_allclose(other[expression.id], together[expression.id], atol=1e-5)
    np.testing.assert_allclose(small_selector().score(video, CAT), together[CAT.id], atol=1e-5)


def test_frames_beginnings_and_targets_are_computed_once() -> None:
    video = noise_video(25)
    scorer = small_selector().open(video)
    answers = list(scorer.answers(ALL))
    assert video.reads == list(range(25))
    assert len(answers) == 25 * 4
    prompts = {(len(a.context), a.expression.id): a.prompt for a in answers}
    beginnings = sum(
        len(prompts[size, DOG.id].prefix) + size * (IMAGE - 1) for size in (9, 8, 8)
    )  # three contexts, of 25 = 9 + 8 + 8 frames
    reads = [prompts[8, expression.id].read for expression in ALL]
    alike = next(n for n, ids in enumerate(zip(*reads, strict=False)) if len(set(ids)) > 1)
    tree = IMAGE - 1 + alike + sum(len(ids) - alike for ids in reads)
    assert scorer.work.clip_encodes == 25
    assert scorer.work.prefills == 3
    assert scorer.work.positions == beginnings + 25 * tree
    published = sum(small_selector().prompts.length(answer.prompt) for answer in answers)
    assert scorer.work.positions < published / 4


def test_more_expressions_need_no_frame_again() -> None:
    scorer = small_selector().open(noise_video(5))
    first = {a.frame: a.score for a in scorer.answers([DOG])}
    list(scorer.answers([CAT]))
    again = {a.frame: a.score for a in scorer.answers([DOG])}
    assert scorer.work.clip_encodes == 5
    assert first == again


def test_key_frames_are_the_best_frames_as_the_segmenter_takes_them() -> None:
    video = noise_video(9)
    scores = small_selector().scores(video, ALL)
    assert small_selector().select(video, ALL) == {e.id: int(scores[e.id].argmax()) for e in ALL}


def test_frames_that_look_alike_score_alike() -> None:
    video = noise_video(2)
    video.frames[1] = video.frames[0]
    scores = small_selector().score(video, DOG)
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-6)


def test_seeded_noise_is_reproducible_whatever_the_batches(monkeypatch) -> None:
    drawn: list[torch.Tensor] = []
    network = small_selector(noise_seed=5).network
    merge = type(network).merge

    def remember(self, features, noise=None):
        drawn.append(noise)
        return merge(self, features, noise)

    monkeypatch.setattr(type(network), "merge", remember)
    video = noise_video(5)
    first = small_selector(noise_seed=5).score(video, DOG)
    small_selector(noise_seed=5, frame_batch=2).score(video, DOG)
    assert torch.equal(drawn[0], torch.cat(drawn[1:]))
    assert drawn[0].shape == (5, 64 + 16 + 8)
    assert 0 <= drawn[0].min() < drawn[0].max() < 1
    np.testing.assert_array_equal(first, small_selector(noise_seed=5).score(video, DOG))
    drawn.clear()
    small_selector().score(video, DOG)
    assert drawn == [None]


def test_identity_names_what_scores_depend_on() -> None:
    assert small_selector(token_batch=7).identity == {"max_images": 12, "noise_seed": None}
    assert small_selector(smoothing=0).identity == small_selector().identity
    assert small_selector(smoothing=2).identity == {"max_images": 12, "noise_seed": None, "smoothing": 2}


def test_smoothed_scores_are_averages_over_neighbouring_frames(monkeypatch) -> None:
    raw = np.array([4, 0, 1, 7, 2, 2, 5], dtype=np.float32)
    score_frames(monkeypatch, raw)
    weights = np.exp(-(np.arange(-4, 5) ** 2) / 2)  # a Gaussian of one frame ends four frames away
    padded = np.concatenate([[4] * 4, raw, [5] * 4])
    expected = [padded[t : t + 9] @ weights / weights.sum() for t in range(7)]
    smooth = small_selector(smoothing=1).score(noise_video(7), DOG)
    np.testing.assert_allclose(smooth, expected, rtol=1e-5)
    assert smooth.dtype == np.float32
    np.testing.assert_array_equal(small_selector(smoothing=0).score(noise_video(7), DOG), raw)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_no_number_stays_alone(monkeypatch, value: float) -> None:
    raw = np.array([4, 0, value, 7, 2], dtype=np.float32)
    score_frames(monkeypatch, raw)
    np.testing.assert_array_equal(small_selector(smoothing=1).score(noise_video(5), DOG), raw)


def score_frames(monkeypatch: pytest.MonkeyPatch, scores: np.ndarray) -> None:
    """Lets every selector give the frames of a video these scores."""
    answers = [SimpleNamespace(expression=DOG, frame=t, score=float(each)) for t, each in enumerate(scores)]
    monkeypatch.setattr(VideoScorer, "answers", lambda self, expressions: answers)


def test_smoothing_is_as_the_checkpoint_wants_unless_told_otherwise(tmp_path) -> None:
    folder = write_selector(tmp_path / "selector", smoothing=0.5)
    video, wanted = noise_video(5), small_selector(smoothing=0.5)
    loaded = load_selector(folder, clip_path=TINY / "clip", device="cpu")
    assert loaded.identity == wanted.identity
    np.testing.assert_allclose(loaded.score(video, DOG), wanted.score(video, DOG), atol=1e-6)
    told = load_selector(folder, clip_path=TINY / "clip", device="cpu", settings={"smoothing": 0})
    np.testing.assert_allclose(told.score(video, DOG), small_selector().score(video, DOG), atol=1e-6)


def test_nan_scores_name_the_expression(tmp_path) -> None:
    tiny = load_selector(write_selector(tmp_path / "selector"), clip_path=TINY / "clip", device="cpu")
    tiny.network.state_dict()["score_head.4.bias"].fill_(float("nan"))
    with pytest.raises(SelectionError, match=r"3 of 3 scores of expression '0' \('the dog'\) of a video in memory"):
        tiny.select(noise_video(3), [DOG])


def test_what_cannot_be_asked_is_refused_before_any_work() -> None:
    video, selector = noise_video(2), small_selector()
    with pytest.raises(ValueError, match="an empty video has no frames"):
        selector.scores(NoFrames(), [DOG])
    with pytest.raises(ValueError, match="no expressions for a video in memory"):
        selector.scores(video, [])
    with pytest.raises(ValueError, match="ids of a video in memory are not unique"):
        selector.scores(video, [DOG, DOG])
    with pytest.raises(ValueError, match="expression '9' is empty"):
        selector.scores(video, [DOG, Expression("9", "  ")])
    with pytest.raises(ValueError, match=r"expression '9' holds '\[SCORE\]'"):
        selector.scores(video, [Expression("9", "the [score] dog")])
    with pytest.raises(ValueError, match=r"expression '9' is too long: 2000 characters .* the model knows 1024"):
        selector.scores(video, [Expression("9", "dog " * 500)])
    assert video.reads == []


@pytest.mark.parametrize(
    "settings",
    [{"max_images": 1}, {"noise_seed": -1}, {"frame_batch": 0}, {"token_batch": True}]
    + [{"smoothing": value} for value in (-1, float("nan"), float("inf"), True, "1")],
)
def test_settings_out_of_range_are_named(settings: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(settings))} is"):
        SelectorInference(**settings)


def test_scores_stay_in_float32_where_the_network_is_in_bfloat16(tmp_path) -> None:
    folder = write_selector(tmp_path / "selector")
    half = load_selector(folder, clip_path=TINY / "clip", device="cpu", dtype="bfloat16")
    assert isinstance(half, LanguageFrameSelector)
    assert half.network.score_head[4].weight.dtype == torch.float32
    assert half.network.llama.norm.weight.dtype == torch.bfloat16
    torch.testing.assert_close(half.network.score_head[4].weight, small_selector().network.score_head[4].weight)
    scores = half.score(noise_video(3), DOG)
    np.testing.assert_allclose(scores, small_selector().score(noise_video(3), DOG), atol=0.1)
    assert len(set(scores)) == 3
