"""How GLUS is run because it was trained so: what config.json records, what it changes, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.glus.config import GlusConfig, GlusInference, RunSettings
from fiftyone_refvos.models.glus.inference import GlusSegmenter, Step
from fiftyone_refvos.models.glus.prompt import conversation
from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID
from fiftyone_refvos.models.loading import load_segmenter
from fiftyone_refvos.models.registry import SHIPPED
from tests.small import CAT, DOG, ArrayFrames, finding_tiny, glus_tiny, noise_video

OTHER: dict[str, Any] = {
    "memory_gamma": "checkpoint",
    "clip_view": "squash",
    "context_frames": 0,
    "window": 1,
    "memory_bank": False,
}


def recording(folder: Path, **entries: Any) -> Path:
    """A copy of the shipped checkpoint whose config.json has other entries."""
    copy = Path(shutil.copytree(SHIPPED / "glus-tiny", folder / "glus"))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | entries))
    return copy


def wide_frame() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)


def steps(video: ArrayFrames, **settings: Any) -> list[Step]:
    return list(finding_tiny(**settings).steps(video, [DOG, CAT]))


def test_published_checkpoints_record_nothing_and_run_as_published() -> None:
    config = json.loads((SHIPPED / "glus-tiny" / "config.json").read_text())
    bare = {name: value for name, value in config.items() if name not in OTHER}
    read = GlusConfig.from_dict(bare, where=Path("x"))
    assert asdict(read.run_settings(GlusInference())) == {
        "memory_gamma": "published",
        "clip_view": "center_crop",
        "context_frames": 4,
        "window": 4,
        "memory_bank": True,
    }


def test_recorded_settings_are_run_and_part_of_the_identity_unless_others_are_asked_for(tmp_path: Path) -> None:
    folder = recording(tmp_path, **OTHER)
    assert OTHER.items() <= load_segmenter("glus", checkpoint=folder, device="cpu").identity.items()
    asked = asdict(RunSettings())
    other = load_segmenter("glus", checkpoint=folder, device="cpu", settings=asked)
    assert asked.items() <= other.identity.items()
    assert finding_tiny().identity != finding_tiny(clip_view="center_crop").identity


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("memory_gamma", "own"),
        ("clip_view", "pad"),
        ("clip_view", ["squash"]),
        ("context_frames", -1),
        ("context_frames", True),
        ("window", 0),
        ("window", 2.0),
        ("memory_bank", 1),
        ("memory_bank", "yes"),
    ],
)
def test_unknown_values_are_refused_from_the_file_and_from_the_user(tmp_path: Path, entry: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=f"config.json has a wrong entry: {entry} is "):
        GlusConfig.read(recording(tmp_path, **{entry: value}))
    with pytest.raises(ValueError, match=f"^{entry} is "):
        load_segmenter("glus-tiny", settings={entry: value})


def test_nothing_in_the_file_is_no_setting(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="window is None; it must be a whole number of at least 1"):
        GlusConfig.read(recording(tmp_path, window=None))


def test_centre_crop_never_sees_the_sides_and_squash_is_the_whole_frame() -> None:
    network, frame = finding_tiny().network, wide_frame()
    sides = frame.copy()
    sides[:, :34] = sides[:, -34:] = 0  # 90 of 160 columns remain, and bicubic resizing reaches a little further
    crop, squash = (network.clip_pixels([frame, sides], view) for view in ("center_crop", "squash"))
    assert crop.shape == squash.shape == (2, 3, 160, 160)
    assert torch.equal(crop[0, :, :, 4:-4], crop[1, :, :, 4:-4])
    assert not torch.equal(squash[0], squash[1])
    whole = np.asarray(Image.fromarray(frame).resize((160, 160), Image.Resampling.BICUBIC)) / 255
    expected = (whole - OPENAI_CLIP_MEAN) / OPENAI_CLIP_STD
    np.testing.assert_allclose(squash[0].permute(1, 2, 0), expected, atol=1e-6)


def test_views_of_a_square_frame_are_equal() -> None:
    square = [wide_frame()[:, :90]]
    views = [finding_tiny().network.clip_pixels(square, view) for view in ("center_crop", "squash")]
    assert torch.equal(*views)


def test_language_model_sees_the_sides_of_context_and_query_frames_only_when_they_are_squashed() -> None:
    frame = wide_frame()
    sides = frame.copy()
    sides[:, :30] = sides[:, -30:] = 0
    video, other = ArrayFrames([frame, frame]), ArrayFrames([sides, sides])

    def difference(**settings: Any) -> float:
        pairs = zip(steps(video, **settings), steps(other, **settings), strict=True)
        return max(float((a.embeds - b.embeds).abs().max()) for a, b in pairs)

    assert difference(clip_view="center_crop") == 0
    assert difference(clip_view="squash") > 1e-3
    assert difference(clip_view="squash", context_frames=0) > 1e-3


@pytest.mark.parametrize("count", [0, 1, 4])
def test_prompts_have_as_many_context_images_as_asked_for(count: int) -> None:
    made = steps(noise_video(5), context_frames=count)
    window = [min(step.position + 1, 4) for step in made]
    assert [step.prompt.ids.count(IMAGE_ID) for step in made] == [count + queries for queries in window]
    whole = finding_tiny().prompts.tokenizer.encode(conversation(DOG.text, 1, count))
    assert made[0].prompt.ids == whole
    assert ("the context frames above" in conversation(DOG.text, 1, count)) == (count > 0)


def test_without_context_only_the_window_of_frames_matters() -> None:
    video = noise_video(6)
    changed = ArrayFrames(video.frames)
    changed.frames[5] = noise_video(1, seed=9).frames[0]
    alone = {"context_frames": 0, "memory_bank": False}
    pairs = list(zip(steps(video, **alone), steps(changed, **alone), strict=True))
    same = [torch.equal(a.logits, b.logits) for a, b in pairs]
    assert same == [step.frame < 5 for step, _ in pairs]
    assert not torch.equal(steps(video)[0].logits, steps(changed)[0].logits)  # frame 5 is a context frame


def test_window_of_one_frame_asks_about_it_alone() -> None:
    assert {step.prompt.ids.count(IMAGE_ID) for step in steps(noise_video(2), window=1)} == {8 + 1}


def test_without_a_memory_bank_each_frame_is_decoded_on_its_own() -> None:
    video = noise_video(4)
    segmenter = finding_tiny(memory_bank=False, window=1)
    sam = segmenter.network.sam
    calls: list[Any] = []
    hooks = [
        part.register_forward_pre_hook(lambda *_: calls.append(1))
        for part in (sam.sam2.memory_encoder, sam.sam2.memory_attention)
    ]
    made = list(segmenter.steps(video, [DOG], key_frames={DOG.id: 1}))
    for hook in hooks:
        hook.remove()
    assert calls == []
    for step in made:
        assert (step.memory_positions, step.missing_positions, step.memory) == ([], [], None)
        assert step.features is not None
        assert step.conditioned is not None
        no_memory = sam.sam2.no_mem_embed.view(1, -1, 1, 1)
        assert torch.equal(step.conditioned, step.features.top + no_memory)
    # nothing is left from a frame to the next: from another key frame the masks are the same
    other = list(segmenter.steps(video, [DOG], key_frames={DOG.id: 3}))
    masks = [{step.frame: step.masks for step in run} for run in (made, other)]
    for frame in range(4):
        first, second = (each[frame] for each in masks)
        assert first is not None
        assert second is not None
        torch.testing.assert_close(first.low_res, second.low_res, atol=1e-4, rtol=1e-4)


def test_recorded_settings_run_as_those_that_are_asked_for(tmp_path: Path) -> None:
    segmenter = load_segmenter("glus", checkpoint=recording(tmp_path, **OTHER), device="cpu")
    assert isinstance(segmenter, GlusSegmenter)
    video = noise_video(3)
    for ours, asked in zip(
        segmenter.steps(video, [DOG, CAT]), glus_tiny(**OTHER).steps(video, [DOG, CAT]), strict=True
    ):
        assert ours.prompt == asked.prompt
        assert torch.equal(ours.logits, asked.logits)
        assert ours.memory_positions == asked.memory_positions == []


def test_settings_of_one_network_do_not_change_another_segmenter_on_it() -> None:
    tiny = finding_tiny()
    squashed = GlusSegmenter(tiny.network, tiny.prompts.tokenizer, replace(tiny.settings, clip_view="squash"))
    before = steps(noise_video(2))
    list(squashed.steps(noise_video(2), [DOG]))
    for a, b in zip(before, steps(noise_video(2)), strict=True):
        assert torch.equal(a.logits, b.logits)
