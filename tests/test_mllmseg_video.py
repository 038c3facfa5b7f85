"""MLLMSeg over videos: frame by frame, and from a key frame with the memory of SAM2, in both directions."""

from __future__ import annotations

import copy
from collections import Counter
from functools import cache
from pathlib import Path

import fiftyone.zoo as foz
import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate
from PIL import Image

import fiftyone_refvos as rv
from fiftyone_refvos.masklet import BoolArray, Expression, FloatArray, FrameResult, Masklet
from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.mllmseg.config import MllmsegVideoInference
from fiftyone_refvos.models.mllmseg.loading import load_mllmseg_over_time
from fiftyone_refvos.models.mllmseg.per_frame import PerFrameSegmenter
from fiftyone_refvos.models.mllmseg.tracking import KeyFrameSegmenter
from fiftyone_refvos.models.sam2_config import Sam2Sizes
from fiftyone_refvos.models.sam2_tracking import TrackingSam2
from fiftyone_refvos.models.segmenter import Segmenter
from fiftyone_refvos.video import open_frames
from tests.small import ArrayFrames, noise_video
from tests.small_mllmseg import checkpoint_of, golden_image, golden_segmenter
from tests.videos import write_clip

SIZES = Sam2Sizes(
    image_size=128,
    embed_dim=16,
    num_heads=1,
    stages=(1, 2, 3, 1),
    global_att_blocks=(4,),
    d_model=32,
    mem_dim=8,
    memory_layers=1,
    memory_ffn=32,
)
CARS = Expression("a", "all the red cars")
MAN = Expression("b", "man near blue box")
DOGS = Expression("c", "two dogs on right")
ALL = [CARS, MAN, DOGS]


@cache
def tracker(seed: int = 0) -> TrackingSam2:
    """SAM2 in miniature with random weights; with those of seed 1 it sees nothing in any other frame."""
    torch.manual_seed(seed)
    return TrackingSam2(SIZES.to_yaml()).requires_grad_(False).eval()


def key_frame_segmenter(candidates: int = 8, seed: int = 0) -> KeyFrameSegmenter:
    return KeyFrameSegmenter(golden_segmenter(), tracker(seed), candidates=candidates)


def per_frame_segmenter() -> PerFrameSegmenter:
    return PerFrameSegmenter(golden_segmenter())


def by_place(results: list[FrameResult]) -> dict[tuple[str, int], FrameResult]:
    return {(result.expression_id, result.frame): result for result in results}


@pytest.mark.parametrize("make", [per_frame_segmenter, key_frame_segmenter])
def test_every_frame_of_every_expression_is_given_exactly_once(make) -> None:
    segmenter: Segmenter = make()
    results = list(segmenter.segment(noise_video(5), ALL, key_frames={MAN.id: 3}))
    assert Counter((r.expression_id, r.frame) for r in results) == Counter((e.id, t) for e in ALL for t in range(5))
    assert all(r.masks.shape == (1, 48, 64) and r.masks.dtype == bool for r in results)
    assert all(r.scores.shape == (1,) and 0 <= r.scores[0] <= 1 for r in results)
    assert not any(r.masks.any() for r in results if not r.found)
    assert len(Masklet.collect(results, ALL)) == 3


def test_frames_on_their_own_are_those_of_images() -> None:
    video = ArrayFrames([golden_image(number=0), golden_image(number=0)[::-1].copy()])
    results = by_place(list(per_frame_segmenter().segment(video, ALL)))
    for index, frame in enumerate(video.frames):
        for expected in golden_segmenter().segment_image(frame, ALL):
            ours = results[expected.expression.id, index]
            assert (ours.found, ours.scores[0]) == (expected.found, pytest.approx(expected.score))
            assert np.array_equal(ours.masks[0], expected.mask)


def test_key_frame_is_where_the_model_is_surest_and_keeps_its_mask() -> None:
    video, segmenter = noise_video(6), key_frame_segmenter(candidates=6)
    answers = [list(golden_segmenter().segment_image(frame, ALL)) for frame in video.frames]
    keys = segmenter.choose(video, ALL, {})
    for number, expression in enumerate(ALL):
        margins = [row[number].margin if row[number].mask.any() else -np.inf for row in answers]
        if max(margins) == -np.inf:
            assert expression.id not in keys
        else:
            assert keys[expression.id].frame == int(np.argmax(margins))
    assert keys
    results = by_place(list(segmenter.segment(video, ALL)))
    for identity, key in keys.items():
        assert np.array_equal(results[identity, key.frame].masks[0], key.result.mask)


def test_given_key_frames_are_taken_and_only_they_are_looked_at() -> None:
    video = noise_video(6)
    keys = key_frame_segmenter().choose(video, ALL, {CARS.id: 4, MAN.id: 2, DOGS.id: 2})
    assert video.reads == [2, 4]
    assert {identity: key.frame for identity, key in keys.items()}.items() <= {"a": 4, "b": 2, "c": 2}.items()


def test_what_is_in_no_candidate_is_in_no_frame_and_nothing_is_tracked(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = key_frame_segmenter(candidates=2)
    monkeypatch.setattr(segmenter, "choose", lambda *args: {})
    video = noise_video(4)
    results = list(segmenter.segment(video, [CARS]))
    assert [(r.frame, r.found, r.masks.any()) for r in results] == [(t, False, False) for t in range(4)]
    assert video.reads == []


def test_expressions_together_give_the_masks_of_each_alone() -> None:
    video, keys = noise_video(6), {CARS.id: 4, MAN.id: 0, DOGS.id: 4}
    together = by_place(list(key_frame_segmenter().segment(video, ALL, key_frames=keys)))
    for expression in ALL:
        alone = key_frame_segmenter().segment(video, [expression], key_frames={expression.id: keys[expression.id]})
        for result in alone:
            other = together[result.expression_id, result.frame]
            assert (result.masks != other.masks).mean() <= 1e-3
            np.testing.assert_allclose(result.scores, other.scores, atol=1e-3)


def stock_logits(
    folder: Path, video: ArrayFrames, tracker: TrackingSam2, key: int, mask: BoolArray, *, reverse: bool
) -> dict[int, FloatArray]:
    """Mask logits by frame of SAM2's own predictor, which starts anew."""
    model = SIZES.to_yaml()["model"] | {"_target_": "sam2.sam2_video_predictor.SAM2VideoPredictor"}
    predictor = instantiate(model, _recursive_=True).eval()
    predictor.load_state_dict(tracker.sam2.state_dict())
    state = predictor.init_state(str(folder))
    state["images"] = tracker.preprocess(torch.from_numpy(np.stack(video.frames)))
    predictor.add_new_mask(state, key, 1, torch.from_numpy(mask))
    frames = predictor.propagate_in_video(state, start_frame_idx=key, reverse=reverse)
    return {index: logits[0, 0].numpy() for index, _, logits in frames if index != key}


@pytest.mark.parametrize(
    ("seed", "bias", "there"),
    [(0, 0.0, [0, 1, 2, 4, 5, 6]), (1, 0.0, []), (0, -0.08, [0, 1, 5])],
)
def test_tracked_masks_are_those_of_the_stock_predictor(
    tmp_path: Path, seed: int, bias: float, there: list[int]
) -> None:
    video, key, sam2 = noise_video(7, size=(64, 64)), 3, copy.deepcopy(tracker(seed))
    with torch.no_grad():
        sam2.sam2.sam_mask_decoder.pred_obj_score_head.layers[-1].bias += bias
    segmenter = KeyFrameSegmenter(golden_segmenter(), sam2, candidates=8)
    mask = segmenter.choose(video, [CARS], {CARS.id: key})[CARS.id].result.mask
    results = by_place(list(segmenter.segment(video, [CARS], key_frames={CARS.id: key})))
    for number, frame in enumerate(video.frames):
        Image.fromarray(frame).save(tmp_path / f"{number}.jpg")
    stock: dict[int, FloatArray] = {}
    for reverse in (False, True):
        stock |= stock_logits(tmp_path, video, sam2, key, mask, reverse=reverse)
    assert sorted(stock) == [0, 1, 2, 4, 5, 6]
    assert [index for index in sorted(stock) if results[CARS.id, index].found] == there
    for index, logits in stock.items():
        ours = results[CARS.id, index].masks[0]
        # random weights give small logits, which rounding may take across 0
        assert not ((ours != (logits > 0)) & (np.abs(logits) > 1e-6)).any()


def test_a_video_without_frames_and_key_frames_outside_are_refused() -> None:
    for segmenter in (per_frame_segmenter(), key_frame_segmenter()):
        with pytest.raises(ValueError, match="key frame 4 of expression 'a' is outside of a video in memory"):
            segmenter.segment(noise_video(4), [CARS], key_frames={CARS.id: 4})
        with pytest.raises(ValueError, match=r"key frames for unknown expression ids: \['x'\]"):
            segmenter.segment(noise_video(4), [CARS], key_frames={"x": 0})
        with pytest.raises(ValueError, match="no expressions"):
            segmenter.segment(noise_video(4), [])
        with pytest.raises(ValueError, match="is empty"):
            segmenter.segment(noise_video(4), [Expression("a", ".")])


def test_settings_that_masks_depend_on_are_told_apart() -> None:
    of_images = {"prompting": "single", "rejected": "empty"}
    assert per_frame_segmenter().identity == of_images | {"over_time": "per_frame"}
    assert key_frame_segmenter(3).identity == of_images | {"over_time": "memory", "candidates": 3}
    with pytest.raises(ValueError, match="candidates is 0"):
        MllmsegVideoInference(candidates=0)
    with pytest.raises(ValueError, match="rejected='kept' has no meaning with over_time='memory'"):
        MllmsegVideoInference(over_time="memory", rejected="kept")
    with pytest.raises(ValueError, match="over_time is 'never'"):
        MllmsegVideoInference(over_time="never")  # type: ignore[arg-type]


def write_tracker(folder: Path) -> dict[str, Path]:
    """Writes the miniature SAM2 as weights and sizes, and gives the options that load it."""
    weights, sizes = folder / "sam2.pt", folder / "sam2.yaml"
    sizes.write_text(yaml.safe_dump(SIZES.to_yaml()))
    torch.save({"model": tracker().sam2.state_dict()}, weights)
    return {"tracker": weights, "sam_config": sizes}


def test_a_single_video_is_segmented_as_the_model_was_loaded_to(tmp_path: Path) -> None:
    options = {"checkpoint": checkpoint_of("gres_internlm2"), "device": "cpu", **write_tracker(tmp_path)}
    model = foz.load_zoo_model("mllmseg-8b-gres", over_time="memory", candidates=2, **options)
    clip = write_clip(tmp_path / "clip.mp4", num_frames=3)
    (ours,) = rv.segment_video(clip, CARS.text, model=model, output=tmp_path / "o.mp4").masklets
    tracked, single = (
        make().segment(open_frames(clip), [ours.expression])
        for make in (lambda: key_frame_segmenter(2), per_frame_segmenter)
    )
    assert ours == Masklet.collect(tracked, [ours.expression])[0]
    assert ours != Masklet.collect(single, [ours.expression])[0]


def test_tracker_is_loaded_from_published_weights_strictly(tmp_path: Path) -> None:
    folder, (weights, sizes) = checkpoint_of("gres_internlm2"), write_tracker(tmp_path).values()
    assert isinstance(load_mllmseg_over_time(folder, device="cpu"), PerFrameSegmenter)
    memory = {"over_time": "memory", "candidates": 2}
    loaded = load_mllmseg_over_time(folder, tracker=weights, sam_config=sizes, device="cpu", settings=memory)
    assert isinstance(loaded, KeyFrameSegmenter)
    assert loaded.candidates == 2
    video = noise_video(3)
    pairs = zip(loaded.segment(video, [CARS]), key_frame_segmenter(2).segment(video, [CARS]), strict=True)
    assert all(np.array_equal(ours.masks, other.masks) for ours, other in pairs)
    with pytest.raises(CheckpointError, match="missing"):
        load_mllmseg_over_time(folder, tracker=weights, device="cpu", settings=memory)  # is no Hiera-L
    torch.save(tracker().sam2.state_dict(), weights)
    with pytest.raises(CheckpointError, match="should hold tensors under the name 'model'"):
        load_mllmseg_over_time(folder, tracker=weights, sam_config=sizes, device="cpu", settings=memory)
    torch.save({"model": Path("x")}, weights)
    with pytest.raises(CheckpointError, match="would run its code"):
        load_mllmseg_over_time(folder, tracker=weights, sam_config=sizes, device="cpu", settings=memory)
    with pytest.raises(CheckpointError, match="is no file"):
        load_mllmseg_over_time(folder, tracker=tmp_path / "none.pt", sam_config=sizes, device="cpu", settings=memory)
    newer = SIZES.to_yaml()
    newer["model"]["no_obj_embed_spatial"] = True
    sizes.write_text(yaml.safe_dump(newer))
    torch.save({"model": tracker().sam2.state_dict()}, weights)
    with pytest.raises(CheckpointError, match=r"is one of SAM2 2\.1"):
        load_mllmseg_over_time(folder, tracker=weights, sam_config=sizes, device="cpu", settings=memory)
