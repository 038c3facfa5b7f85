"""Masks of the key frame carried on by SAM2's own memory: equal to SAM2's video predictor, both ways."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from sam2.sam2_video_predictor import SAM2VideoPredictor

from fiftyone_refvos.masklet import FrameResult
from fiftyone_refvos.models.glus.propagation import Sam2PropagationSegmenter
from fiftyone_refvos.models.loading import load_segmenter
from fiftyone_refvos.models.sam2 import masks_at_size
from fiftyone_refvos.models.sam2_propagation import masks_for_sam2
from tests.small import BIRD, CAT, DOG, ArrayFrames, noise_video

KEY = 3


@pytest.fixture(scope="module")
def segmenter() -> Sam2PropagationSegmenter:
    loaded = load_segmenter("glus-tiny", device="cpu", settings={"propagation": "sam2"})
    assert isinstance(loaded, Sam2PropagationSegmenter)
    head = torch.nn.Linear(loaded.network.lm_head.in_features, loaded.network.lm_head.out_features)
    head.requires_grad_(False).weight.zero_()
    head.bias.copy_(torch.arange(head.out_features) == loaded.prompts.seg_id)
    loaded.network.lm_head = head  # finds everything everywhere
    # these two heads of glus-tiny were never trained: its objects would all be gone, or be parts of the background
    there = loaded.network.sam.sam2.sam_mask_decoder.pred_obj_score_head.layers[-1]
    there.bias.fill_(10.0)
    return loaded


def smooth_video(num_frames: int) -> ArrayFrames:
    """A bright square that moves to the right."""
    frames = np.full((num_frames, 48, 64, 3), 40, dtype=np.uint8)
    for t in range(num_frames):
        frames[t, 16:32, 4 + 3 * t : 20 + 3 * t] = (220, 60, 40)
    return ArrayFrames(frames)


def predictor_state(images: torch.Tensor, size: tuple[int, int]) -> dict[str, Any]:
    """The state of SAM2's video predictor for a video that is in memory."""
    state: dict[str, Any] = {
        "images": images,
        "num_frames": len(images),
        "offload_video_to_cpu": False,
        "offload_state_to_cpu": False,
        "video_height": size[0],
        "video_width": size[1],
        "device": torch.device("cpu"),
        "storage_device": torch.device("cpu"),
        "constants": {},
        "obj_id_to_idx": {},
        "obj_idx_to_id": {},
        "obj_ids": [],
        "cached_features": {},
    }
    per_object = ("point_inputs", "mask_inputs", "output_dict", "temp_output_dict", "frames_tracked")
    return state | {f"{name}_per_obj": {} for name in per_object}


def predictor_logits(
    segmenter: Sam2PropagationSegmenter, video: ArrayFrames, mask: torch.Tensor
) -> dict[int, torch.Tensor]:
    """The mask logits of every frame as SAM2's video predictor gives them, from `mask` in the key frame."""
    sam2 = segmenter.network.sam.sam2
    former = sam2.__class__
    sam2.__class__ = SAM2VideoPredictor  # the same network and weights, with the predictor's methods
    settings = {
        "fill_hole_area": 0,
        "non_overlap_masks": False,
        "clear_non_cond_mem_around_input": False,
        "add_all_frames_to_correct_as_cond": False,
    }
    try:
        vars(sam2).update(settings)
        images = torch.cat([segmenter.network.sam_pixels(frame) for frame in video.frames])
        found = {}
        with torch.inference_mode():
            for reverse in (False, True):
                state = predictor_state(images, video.size)  # each direction remembers only its own way
                sam2.add_new_mask(state, KEY, 1, mask)
                for frame, _, logits in sam2.propagate_in_video(state, KEY, reverse=reverse):
                    found[frame] = logits[0, 0]
        return found
    finally:
        sam2.__class__ = former
        for name in settings:
            delattr(sam2, name)


def _rounded(output: dict[str, Any]) -> dict[str, Any]:
    return {**output, "vision_features": output["vision_features"].bfloat16().float()}


def by_frame(results: list[FrameResult], expression_id: str) -> dict[int, FrameResult]:
    return {result.frame: result for result in results if result.expression_id == expression_id}


def test_every_frame_is_that_of_sam2s_video_predictor(segmenter) -> None:
    video = smooth_video(9)
    encoder = segmenter.network.sam.sam2.memory_encoder
    # the predictor keeps its memories in bfloat16, in which the wrong ones would not be told from rounded ones
    rounding = encoder.register_forward_hook(lambda module, inputs, output: _rounded(output))
    ours = by_frame(list(segmenter.segment(video, [DOG], key_frames={"0": KEY})), "0")
    (step,) = [s for s in segmenter.steps(video, [DOG], key_frames={"0": KEY}) if s.frame == KEY]
    mask = masks_for_sam2(step.masks.low_res, segmenter.network.sam.image_size)[0, 0] > 0
    assert mask.any()
    theirs = predictor_logits(segmenter, video, mask)
    rounding.remove()
    assert sorted(ours) == sorted(theirs) == list(range(9))
    for frame, logits in theirs.items():
        if frame != KEY:
            assert np.array_equal(ours[frame].masks[0], (logits > 0).numpy())
    assert all(result.masks.any() for result in ours.values())


def test_the_key_frame_is_that_of_glus_without_memory(segmenter) -> None:
    video = noise_video(5)
    results = by_frame(list(segmenter.segment(video, [DOG, CAT], key_frames={"0": 2})), "0")
    (step,) = [s for s in segmenter.steps(video, [DOG], key_frames={"0": 2}) if s.frame == 2]
    assert np.array_equal(results[2].masks[0], (masks_at_size(step.masks.low_res, video.size)[0] > 0).numpy())
    assert step.memory_positions == []


def test_expressions_with_several_key_frames_are_each_as_alone(segmenter) -> None:
    video, keys = smooth_video(6), {"0": 0, "1": 4, "2": 4}
    together = list(segmenter.segment(video, [DOG, CAT, BIRD], key_frames=keys))
    assert Counter(r.expression_id for r in together) == {"0": 6, "1": 6, "2": 6}
    for expression in (DOG, CAT):
        alone = by_frame(
            list(segmenter.segment(video, [expression], key_frames={expression.id: keys[expression.id]})),
            expression.id,
        )
        for frame, result in by_frame(together, expression.id).items():
            assert np.mean(result.masks != alone[frame].masks) < 1e-3


def test_what_is_not_found_in_the_key_frame_is_found_nowhere(segmenter, monkeypatch) -> None:
    monkeypatch.setattr(segmenter.prompts, "seg_id", -1)
    results = list(segmenter.segment(noise_video(3), [DOG], key_frames={"0": 1}))
    assert sorted(result.frame for result in results) == [0, 1, 2]
    assert not any(result.found or result.masks.any() for result in results)


def test_the_way_of_propagation_is_part_of_the_identity(segmenter) -> None:
    assert segmenter.identity["propagation"] == "sam2"
    # the identity that earlier runs have recorded is that of the default
    assert "propagation" not in load_segmenter("glus-tiny", device="cpu").identity
    with pytest.raises(ValueError, match="propagation is 'xmem'; choose one of"):
        load_segmenter("glus-tiny", device="cpu", settings={"propagation": "xmem"})
