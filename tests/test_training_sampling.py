"""Which sources, videos, expressions and frames are drawn."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID
from fiftyone_refvos.training.config import SamplingConfig, TrainingConfig
from fiftyone_refvos.training.glus_learner import GlusLearner
from fiftyone_refvos.training.network import TrainingNetwork
from fiftyone_refvos.training.sampling import Mixture, draw_frames
from fiftyone_refvos.training.sources import TrainingExpression
from tests.training_data import BOTH, DOG, NOTHING, SAME_DOG, MemorySource, MemoryVideo, glus, tokenizer, writer


def mixture(*videos: MemoryVideo, sampling: SamplingConfig | None = None) -> Mixture:
    return Mixture([MemorySource(videos)], [1.0], writer(sampling or SamplingConfig()))


def test_sources_are_drawn_by_their_rates_and_videos_uniformly() -> None:
    sources = [
        MemorySource([MemoryVideo("a")], name="often"),
        MemorySource([MemoryVideo("b"), MemoryVideo("c")], name="seldom"),
        MemorySource([MemoryVideo("d")], name="never"),
    ]
    drawn = Mixture(sources, [30, 10, 0], writer(SamplingConfig(query_frames=1, context_frames=0)))
    rng = np.random.default_rng(0)
    counts = Counter(clip.video for clip in (drawn.draw(rng) for _ in range(800)))
    assert counts["d"] == 0
    assert counts["a"] == pytest.approx(600, abs=60)
    assert counts["b"] == pytest.approx(100, abs=35)
    assert counts["c"] == pytest.approx(100, abs=35)


def test_same_generator_draws_the_same_clips() -> None:
    drawn = mixture(MemoryVideo("a"), MemoryVideo("b", num_frames=9))
    first, second = (
        [
            (c.video, c.frame_names, c.context, [e.id for e in c.expressions], [t.text for t in c.conversations])
            for c in (drawn.draw(rng) for _ in range(10))
        ]
        for rng in (np.random.default_rng(3), np.random.default_rng(3))
    )
    assert first == second
    assert len(set(map(str, first))) > 5


def test_expressions_are_drawn_without_replacement_and_few_are_taken_in_order() -> None:
    expressions = tuple(TrainingExpression(str(n), f"dog {n}", ("1",)) for n in range(5))
    many, few = mixture(MemoryVideo("a", expressions=expressions)), mixture(MemoryVideo("a", expressions=(BOTH, DOG)))
    rng = np.random.default_rng(0)
    seen: set[str] = set()
    for _ in range(20):
        ids = [expression.id for expression in many.draw(rng).expressions]
        assert len(set(ids)) == 3
        seen.update(ids)
        assert few.draw(rng).expressions == (BOTH, DOG)
    assert seen == set("01234")


def test_expressions_without_target_are_drawn_only_where_they_are_asked_for() -> None:
    video = MemoryVideo("a", expressions=(NOTHING, DOG))
    rng = np.random.default_rng(0)
    assert mixture(video).draw(rng).expressions == (DOG,)
    clip = mixture(video, sampling=SamplingConfig(no_target=True)).draw(rng)
    assert clip.expressions == (NOTHING, DOG)
    assert clip.targets.shape == (2, 4, 48, 64)


def test_videos_that_cannot_be_sampled_are_passed_over() -> None:
    short, silent = MemoryVideo("short", num_frames=3), MemoryVideo("silent", expressions=(NOTHING,))
    rng = np.random.default_rng(0)
    drawn = mixture(short, silent, MemoryVideo("fine"))
    assert {drawn.draw(rng).video for _ in range(20)} == {"fine"}
    single = SamplingConfig(query_frames=1, context_frames=0)
    assert mixture(short, sampling=single).draw(rng).video == "short"
    with pytest.raises(ValueError, match="no video of the source 'memory' .* 4 frames .* that means an object"):
        mixture(short, silent).draw(rng)


@pytest.mark.parametrize(("asked", "given"), [(None, 3), (2, 2)])
def test_a_checkpoint_is_trained_on_with_as_many_context_frames_as_it_records(asked: int | None, given: int) -> None:
    config = TrainingConfig(sampling=SamplingConfig(context_frames=asked))
    learner = GlusLearner(glus(context_frames=3), tokenizer(), config, [MemorySource([MemoryVideo("a")])], [1.0])
    assert isinstance(learner.network, TrainingNetwork)
    assert learner.network.glus.config.context_frames == given  # and so the trained checkpoint records it
    ids = learner.draw(np.random.default_rng(0)).input_ids
    assert (ids[0] == IMAGE_ID).sum() == given + 4


def test_query_frames_are_consecutive_and_context_frames_come_from_all_segments() -> None:
    rng = np.random.default_rng(0)
    starts, contexts = set(), set()
    for _ in range(300):
        query, context = draw_frames(10, SamplingConfig(), rng)
        assert query == list(range(query[0], query[0] + 4))
        starts.add(query[0])
        contexts.add(tuple(context))
    assert starts == set(range(7))
    bounds = [(0, 2), (2, 5), (5, 7), (7, 10)]
    for column, (first, end) in zip(zip(*contexts, strict=True), bounds, strict=True):
        assert set(column) == set(range(first, end))
    assert draw_frames(4, SamplingConfig(), rng) == ([0, 1, 2, 3], [0, 1, 2, 3])
    with pytest.raises(ValueError, match="the video has 3 frames, a sample needs 4"):
        draw_frames(3, SamplingConfig(), rng)


def test_frame_that_is_context_and_query_is_read_once() -> None:
    clip = mixture(MemoryVideo("a", num_frames=4)).draw(np.random.default_rng(0))
    assert clip.context == clip.query == (0, 1, 2, 3)
    assert len(clip.frames) == 4
    assert clip.frame_names == ("00000", "00001", "00002", "00003")


def test_targets_count_the_objects_of_an_expression() -> None:
    clip = mixture(MemoryVideo("a", expressions=(SAME_DOG, BOTH))).draw(np.random.default_rng(0))
    assert clip.targets[0, 0, 0].tolist() == [0] * 8 + [1] * 12 + [0] * 44
    assert clip.targets[1, 3, 5].tolist() == [0] * 8 + [1] * 8 + [2] * 4 + [1] * 8 + [0] * 36


def test_text_that_cannot_be_asked_is_named() -> None:
    video = MemoryVideo("clip7", expressions=(TrainingExpression("4", "a [SEG] dog", ("1",)),))
    with pytest.raises(ValueError, match="expression '4' of video 'clip7' in 'memory' holds '\\[SEG\\]'"):
        mixture(video).draw(np.random.default_rng(0))


@pytest.mark.parametrize(
    ("videos", "rates", "message"),
    [
        ([1], [1.0, 2.0], "1 sources and 2 rates"),
        ([], [], "0 sources"),
        ([1], [-1.0], "must not be negative"),
        ([1, 1], [0.0, 0.0], "one above 0"),
        ([1], [float("nan")], "must not be negative"),
        ([0], [1.0], "'memory' has no videos"),
    ],
)
def test_mixture_that_cannot_be_drawn_from_is_refused(videos, rates, message) -> None:
    sources = [MemorySource([MemoryVideo("a")] * count) for count in videos]
    with pytest.raises(ValueError, match=message):
        Mixture(sources, rates, writer(SamplingConfig()))
