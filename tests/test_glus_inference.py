"""GLUS over a video: what is computed how often, directions, missing answers, and what it refuses."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from fiftyone_refvos.masklet import Expression, FrameResult
from fiftyone_refvos.models.devices import DeviceError, resolve_device
from fiftyone_refvos.models.glus.frames import FrameEncoder
from fiftyone_refvos.models.glus.inference import GlusSegmenter, Step
from fiftyone_refvos.models.glus.prompt import conversation, normalise
from fiftyone_refvos.models.loading import load_segmenter
from tests.small import BIRD, CAT, DOG, finding_tiny, noise_video


def by_place(results: list[FrameResult]) -> dict[tuple[str, int], FrameResult]:
    return {(result.expression_id, result.frame): result for result in results}


def count_encodes(monkeypatch: pytest.MonkeyPatch) -> list[FrameEncoder]:
    """The frame encoders that are made from now on, which count what they encode."""
    made: list[FrameEncoder] = []
    original = FrameEncoder.__init__

    def remember(self, *args, **kwargs):
        original(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(FrameEncoder, "__init__", remember)
    return made


def test_every_frame_of_every_expression_is_given_exactly_once() -> None:
    keys = {DOG.id: 3, CAT.id: 0, BIRD.id: 6}
    results = list(finding_tiny().segment(noise_video(7), [DOG, CAT, BIRD], key_frames=keys))
    places = Counter((result.expression_id, result.frame) for result in results)
    assert places == Counter((e.id, t) for e in (DOG, CAT, BIRD) for t in range(7))
    assert all(r.masks.shape == (1, 48, 64) and r.masks.dtype == bool for r in results)
    assert all(r.scores.shape == (1,) and 0 <= r.scores[0] <= 1 for r in results)


def test_expressions_together_give_the_masks_of_each_alone() -> None:
    video, keys = noise_video(9), {DOG.id: 4, CAT.id: 0, BIRD.id: 8}
    together = by_place(list(finding_tiny().segment(video, [DOG, CAT, BIRD], key_frames=keys)))
    for expression in (DOG, CAT, BIRD):
        alone = finding_tiny().segment(video, [expression], key_frames={expression.id: keys[expression.id]})
        for result in alone:
            other = together[result.expression_id, result.frame]
            assert (result.masks != other.masks).mean() <= 5e-4
            np.testing.assert_allclose(result.scores, other.scores, atol=1e-4)


def test_batches_of_expressions_do_not_change_the_masks() -> None:
    video = noise_video(4)
    one = by_place(list(finding_tiny(expression_batch=1).segment(video, [DOG, CAT, BIRD])))
    many = by_place(list(finding_tiny().segment(video, [DOG, CAT, BIRD])))
    assert all((one[place].masks != many[place].masks).mean() <= 5e-4 for place in one)


def test_backward_pass_starts_from_the_key_frame_and_mirrors_the_forward_one() -> None:
    video = noise_video(5)
    steps = list(finding_tiny().steps(video, [DOG], key_frames={DOG.id: 2}))
    places = [(step.direction, step.frame, step.position, step.memory_positions) for step in steps]
    assert places == [
        ("fwd", 2, 0, []),
        ("fwd", 3, 1, [0]),
        ("fwd", 4, 2, [0, 1]),
        ("bwd", 1, 1, [0]),
        ("bwd", 0, 2, [0, 1]),
    ]


def test_clip_runs_once_per_frame_and_sam2_once_while_its_features_fit(monkeypatch) -> None:
    made = count_encodes(monkeypatch)
    video, keys = noise_video(10), {DOG.id: 7, CAT.id: 2, BIRD.id: 9}
    list(finding_tiny().segment(video, [DOG, CAT, BIRD], key_frames=keys))
    assert (made[0].clip_encodes, made[0].sam_encodes) == (10, 10)


def test_sam2_runs_once_per_direction_beyond_the_byte_budget(monkeypatch) -> None:
    made = count_encodes(monkeypatch)
    video, keys = noise_video(10), {DOG.id: 7, CAT.id: 2}
    roomy = by_place(list(finding_tiny().segment(video, [DOG, CAT], key_frames=keys)))
    tight = by_place(list(finding_tiny(feature_cache_bytes=0).segment(video, [DOG, CAT], key_frames=keys)))
    # forward from frame 2: 8 frames; backward from frame 6: 7 frames
    assert (made[1].clip_encodes, made[1].sam_encodes) == (10, 15)
    assert all((roomy[place].masks == tight[place].masks).all() for place in roomy)


def test_what_is_not_read_again_is_forgotten() -> None:
    encoder = FrameEncoder(
        finding_tiny().network,
        noise_video(12),
        context=[0, 3],
        clip_view="center_crop",
        last_key=5,
        cache_bytes=1 << 30,
    )
    with torch.inference_mode():
        for _ in encoder.walk(range(2, 12)):
            encoder.features()
        assert sorted(encoder._features) == [2, 3, 4]
        assert sorted(encoder._tokens) == [0, 2, 3, 4]  # the context frames, and what the way back reads
        for _ in encoder.walk(range(4, -1, -1)):
            encoder.features()
    assert (sorted(encoder._features), sorted(encoder._tokens)) == ([], [0, 3])


def test_memory_bank_stays_bounded_and_never_lacks_what_it_had() -> None:
    banks = []
    original = GlusSegmenter._new_track

    class Spy(GlusSegmenter):
        def _new_track(self, expression, key_frame):
            track = original(self, expression, key_frame)
            banks.append(track.bank)
            return track

    tiny = finding_tiny()
    spy = Spy(tiny.network, tiny.prompts.tokenizer, tiny.settings)
    for step in spy.steps(noise_video(40), [DOG]):
        assert step.missing_positions == []
        assert len(banks[0].entries) <= 8
    assert step.memory_positions == [21, 24, 27, 30, 33, 36, 38]


def test_no_seg_token_gives_an_empty_mask_and_leaves_no_memory(monkeypatch) -> None:
    tiny = finding_tiny()
    segmenter = GlusSegmenter(tiny.network, tiny.prompts.tokenizer, tiny.settings)
    real = segmenter._ask

    def silent_in_frame_1(tracks, frame, prefix) -> list[Step]:
        steps = real(tracks, frame, prefix)
        for step in steps:
            step.found = step.found and frame != 1
        return steps

    monkeypatch.setattr(segmenter, "_ask", silent_in_frame_1)
    steps = list(segmenter.steps(noise_video(4), [DOG]))
    assert [step.found for step in steps] == [True, False, True, True]
    assert [step.memory_positions for step in steps] == [[], [], [0], [0, 2]]
    assert steps[2].missing_positions == [1]
    results = list(segmenter.segment(noise_video(4), [DOG]))
    assert not results[1].masks.any()
    assert (results[1].scores.tolist(), results[1].found) == ([0.0], False)


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_short_videos_are_segmented(num_frames: int) -> None:
    results = list(finding_tiny().segment(noise_video(num_frames), [DOG], key_frames={DOG.id: num_frames - 1}))
    assert sorted(result.frame for result in results) == list(range(num_frames))


@pytest.mark.parametrize("size", [(1, 1), (33, 17), (16, 301)])
def test_masks_have_the_size_of_odd_frames(size: tuple[int, int]) -> None:
    assert next(iter(finding_tiny().segment(noise_video(1, size), [DOG]))).masks.shape == (1, *size)


@pytest.mark.parametrize("text", ["le café à droite", "猫", "🐼 eating 🎋", "THE DOG.", "a" * 200])
def test_any_language_is_a_text(text: str) -> None:
    assert len(list(finding_tiny().segment(noise_video(2), [Expression("x", text)]))) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expression 'x' is empty"),
        (" \n", "expression 'x' is empty"),
        (".", "expression 'x' is empty"),
        ("the <image> on the left", "'<image>', which stands for a special token"),
        ("a [SEG] token", r"'\[SEG\]', which stands for a special token"),
        ("a [seg] token", r"'\[SEG\]', which stands for a special token"),
        ("the end</s>", "'</s>', which stands for a special token"),
        ("word " * 400, "expression 'x' is too long: 2000 characters"),
    ],
)
def test_expressions_that_cannot_be_asked_are_refused_before_anything_runs(text: str, message: str) -> None:
    video = noise_video(2)
    with pytest.raises(ValueError, match=message):
        finding_tiny().segment(video, [DOG, Expression("x", text)])
    assert video.reads == []


def test_impossible_calls_name_what_is_wrong() -> None:
    tiny, video = finding_tiny(), noise_video(3)
    with pytest.raises(ValueError, match="no expressions for a video in memory"):
        tiny.segment(video, [])
    with pytest.raises(ValueError, match="not unique"):
        tiny.segment(video, [DOG, DOG])
    with pytest.raises(ValueError, match="key frame 3 of expression '0' is outside .* 0 to 2"):
        tiny.segment(video, [DOG], key_frames={"0": 3})
    with pytest.raises(ValueError, match="unknown expression ids: \\['9'\\]"):
        tiny.segment(video, [DOG], key_frames={"9": 0})


def test_expression_is_lowered_and_loses_one_full_stop() -> None:
    assert normalise("The Dog..") == "the dog."
    text = conversation("The Dog.", 2)
    assert text.count("<image>") == 4 + 2
    assert text.count("Can you segment the the dog in this frame?") == 2
    assert text.endswith("ASSISTANT: Sure, the segmentation result is ")


def test_bfloat16_gives_nearly_the_masks_of_float32() -> None:
    video = noise_video(3)
    half = load_segmenter("glus-tiny", device="cpu", dtype="bfloat16")
    for a, b in zip(half.segment(video, [DOG]), finding_tiny().segment(video, [DOG]), strict=True):
        assert (a.masks != b.masks).mean() < 0.1


def test_settings_are_checked_by_name_and_value() -> None:
    with pytest.raises(ValueError, match="unknown settings treshold; GLUS has memory_gamma"):
        load_segmenter("glus-tiny", settings={"treshold": 0.5})
    with pytest.raises(ValueError, match="context_mode is 'middle'"):
        load_segmenter("glus-tiny", settings={"context_mode": "middle"})
    with pytest.raises(ValueError, match="unknown model 'glus-xl'; the models are glus, "):
        load_segmenter("glus-xl")
    with pytest.raises(ValueError, match="dtype is 'int8'"):
        load_segmenter("glus-tiny", dtype="int8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_absent_gpu_is_named() -> None:
    with pytest.raises(DeviceError, match="'cuda' was asked for, but PyTorch sees no GPU; pass device='cpu'"):
        resolve_device("cuda")
    with pytest.raises(DeviceError, match="'gpu' is no device"):
        resolve_device("gpu")
