"""Sa2VA over a video: which frames are asked about, what is shared between expressions, and plain reference loops."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fiftyone_refvos.masklet import Expression, FrameResult
from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.sa2va.config import Mode, Sa2vaConfig, Sa2vaInference
from fiftyone_refvos.models.sa2va.inference import Sa2vaSegmenter, segmentation_question
from fiftyone_refvos.models.sa2va.loading import load_sa2va
from fiftyone_refvos.models.sa2va.pixels import sam_pixels
from fiftyone_refvos.sampling import uniform_frames
from fiftyone_refvos.verify.sa2va_case import read_sizes
from tests.shared import shared_path
from tests.small import ArrayFrames, noise_video

BALL = Expression("0", "the red ball")
DOG = Expression("7", "the large dog that runs after it")


@cache
def _segmenter(case: str, settings: tuple[tuple[str, object], ...]) -> Sa2vaSegmenter:
    folder = shared_path("golden", "sa2va", case)
    sizes = read_sizes(folder / "sam2_dims.json")
    assert sizes is not None
    small = replace(sizes, image_size=256)  # no weight depends on it, and a frame takes a sixteenth of the time
    return load_sa2va(folder / "checkpoint", sam2=small, device="cpu", settings=dict(settings))


def segmenter(case: str = "internvl_qwen2_a", **settings: object) -> Sa2vaSegmenter:
    return _segmenter(case, tuple(sorted(settings.items())))


def by_frame(results: Iterator[FrameResult], expression: Expression) -> dict[int, FrameResult]:
    return {result.frame: result for result in results if result.expression_id == expression.id}


def reference_masks(sa2va: Sa2vaSegmenter, frames: ArrayFrames, keys: Sequence[int], prompt: Tensor) -> np.ndarray:
    """The published order of operations for one object, frame by frame, without anything that is shared.

    Every key frame is decoded alone, all of them are conditioning memories, and then the video is walked from its
    first frame; memories and pointers are gathered here by hand.
    """
    sam2 = sa2va.network.sam.sam2
    memories: dict[int, tuple[Tensor, Tensor]] = {}
    masks = np.zeros((len(frames), *frames.size), dtype=bool)

    def encode(frame: int) -> tuple[list[Tensor], Tensor, Tensor]:
        fpn = sam2.forward_image(sam_pixels(frames.frames[frame], sam2.image_size))
        position = fpn["vision_pos_enc"][-1].flatten(2).permute(2, 0, 1)
        return fpn["backbone_fpn"][:2], fpn["backbone_fpn"][2], position

    def finish(frame: int, levels: list[Tensor], top: Tensor, conditioned: Tensor, language: list[Tensor]) -> None:
        points = (torch.zeros(1, 1, 2), -torch.ones(1, 1))
        sparse, dense = sam2.sam_prompt_encoder(points=points, boxes=None, masks=None)
        logits, ious, tokens, score = sam2.sam_mask_decoder(
            image_embeddings=conditioned,
            image_pe=sam2.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=torch.cat([sparse, *language], dim=1),
            dense_prompt_embeddings=dense,
            multimask_output=True,
            repeat_image=False,
            high_res_features=levels,
        )
        best = int(ious[0].argmax())
        pointer = sam2.obj_ptr_proj(tokens[:, best]) if score[0, 0] > 0 else sam2.no_obj_ptr
        square = F.interpolate(logits[:, best : best + 1], (sam2.image_size,) * 2, mode="bilinear")
        memory = sam2.memory_encoder(top, square.sigmoid() * 20 - 10, skip_mask_sigmoid=True)["vision_features"]
        memories[frame] = (memory.bfloat16().float(), pointer)
        whole = F.interpolate(square, frames.size, mode="bilinear")[0, 0]
        masks[frame] = (whole.sigmoid() > 0.5).numpy()

    for key in keys:
        levels, top, _ = encode(key)
        finish(key, levels, top, top + sam2.no_mem_embed.view(1, -1, 1, 1), [prompt[None, None]])
    for frame in range(len(frames)):
        if frame in keys:
            continue
        levels, top, position = encode(frame)
        back = [(slot, frame - (7 - slot)) for slot in range(1, 7)]
        chosen = [(0, key) for key in keys] + [(s, past) for s, past in back if past in memories and past not in keys]
        spatial = sam2.memory_encoder.position_encoding(memories[keys[0]][0]).flatten(2).permute(2, 0, 1)
        entries = [memories[past][0].flatten(2).permute(2, 0, 1) for _, past in chosen]
        positions = [spatial + sam2.maskmem_tpos_enc[7 - slot - 1] for slot, _ in chosen]
        reach = range(1, min(len(frames), 16))
        past_keys = [key for key in keys if key <= frame]
        others = [frame - step for step in reach if frame - step in memories and frame - step not in keys]
        pointers = torch.cat([memories[past][1] for past in [*past_keys, *others]])
        split = pointers.view(-1, 1, sam2.mem_dim)  # a pointer is as long as several memory channels
        attended = sam2.memory_attention(
            curr=top.flatten(2).permute(2, 0, 1),
            curr_pos=position,
            memory=torch.cat([*entries, split]),
            memory_pos=torch.cat([*positions, torch.zeros_like(split)]),
            num_obj_ptr_tokens=len(split),
        )
        finish(frame, levels, top, attended.permute(1, 2, 0).view_as(top), [])
    return masks


@pytest.mark.parametrize(
    ("length", "count", "keys"),
    [(6, 3, [0, 2, 5]), (4, 25, [0, 1, 2, 3]), (1, 5, [0]), (9, 1, [0])],  # more frames than memories in the last
)
def test_uniform_frames_are_decoded_alone_remembered_and_walked_from_the_first(
    length: int, count: int, keys: list[int]
) -> None:
    sa2va = segmenter(mode="uniform", key_frames=count)
    frames = noise_video(length)
    assert sa2va.key_frames(length) == keys == sorted({int(index) for index in np.linspace(0, length - 1, count)})
    with torch.inference_mode():
        seen = sa2va.ask(frames, [BALL])
        assert list(seen.key_frames) == keys
        assert seen.answers[0].prompt.count(sa2va.family.image_id) == 256 * len(keys)
        (prompt,) = seen.answers[0].prompt_embeddings
        reference = reference_masks(sa2va, frames, keys, prompt)
    results = by_frame(sa2va.segment(frames, [BALL]), BALL)
    assert sorted(results) == list(range(length))
    ours = np.stack([results[frame].masks[0] for frame in range(length)])
    assert reference.any()
    assert not reference.all()
    assert (ours != reference).mean() <= 5e-4


@pytest.mark.parametrize("length", [1, 2, 5])
def test_videos_of_as_many_frames_as_key_frames_or_fewer_have_key_frames_alone(length: int) -> None:
    frames = noise_video(length)
    first, uniform, certain = (
        by_frame(sa2va.segment(frames, [BALL]), BALL)
        for sa2va in (segmenter(), segmenter(mode="uniform"), segmenter("sa2va_i_a"))
    )
    assert sorted(first) == sorted(uniform) == sorted(certain) == list(range(length))
    assert all((first[frame].masks == uniform[frame].masks).all() for frame in range(length))
    assert all(result.found and result.masks.shape == (1, 48, 64) for result in certain.values())


def test_later_key_frames_change_the_frames_before_them() -> None:
    frames = noise_video(6)
    changed = ArrayFrames([*frames.frames[:5], noise_video(1, seed=9).frames[0]])
    outcomes = [
        np.stack([by_frame(segmenter(mode="uniform", key_frames=2).segment(video, [BALL]), BALL)[1].masks[0]])
        for video in (frames, changed)
    ]
    assert (outcomes[0] != outcomes[1]).any()


def test_several_expressions_are_found_as_each_is_alone_and_every_frame_is_read_once() -> None:
    sa2va = segmenter(expression_batch=2)
    frames = noise_video(6)
    other = Expression("x", "who is it?")
    together = list(sa2va.segment(frames, [BALL, DOG, other]))
    assert sorted(frames.reads) == list(range(6))
    keys = [(result.frame, result.expression_id) for result in together]
    assert len(set(keys)) == len(keys) == 3 * 6
    for expression in (BALL, DOG, other):
        alone = by_frame(sa2va.segment(noise_video(6), [expression]), expression)
        for frame, result in by_frame(iter(together), expression).items():
            assert result.found
            assert result.masks.shape == (1, 48, 64)
            assert (result.masks != alone[frame].masks).mean() <= 5e-4
            assert result.scores == pytest.approx(alone[frame].scores, abs=1e-3)


def test_visual_tokens_and_their_keys_are_computed_once_for_all_expressions() -> None:
    sa2va = segmenter()
    lengths: list[tuple[int, int]] = []
    decoder = sa2va.network.mllm.model.language_model
    hook = decoder.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(tuple(kwargs["inputs_embeds"].shape[:2])), with_kwargs=True
    )
    with torch.inference_mode():
        answers = sa2va.ask(noise_video(3), [BALL, DOG]).answers
    hook.remove()
    shared = max(n for n, each in enumerate(answers[0].prompt) if each == sa2va.family.image_id) + 1
    longest = max(len(answer.prompt) for answer in answers) - shared
    assert lengths == [(1, shared), (2, longest), *[(2, 1)] * (len(answers[0].generation.ids) - 1)]


def test_answer_without_seg_is_no_target_and_no_other_frame_is_read() -> None:
    sa2va = segmenter(max_new_tokens=2)  # "Sure," is as far as it comes
    frames = noise_video(9)
    results = list(sa2va.segment(frames, [BALL]))
    assert [result.frame for result in results] == list(range(9))
    assert not any(result.found or result.masks.any() or result.scores.any() for result in results)
    assert frames.reads == [0, 1, 2, 3, 4]


def test_first_frames_are_the_default_and_sa2va_i_where_both_decoders_are() -> None:
    assert segmenter().identity == {"mode": "first", "key_frames": 5, "max_new_tokens": 2048}
    assert segmenter().key_frames(3) == [0, 1, 2]
    consistent = segmenter("sa2va_i_a")
    assert consistent.identity["mode"] == "sa2va_i"
    assert consistent.key_frames(11) == uniform_frames(11, 5) == [0, 2, 5, 7, 10]
    assert consistent.key_frames(3) == [0, 1, 2]
    assert segmenter("sa2va_i_a", mode="first").identity["mode"] == "first"


def test_mode_without_weights_and_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="only Sa2VA-i checkpoints hold"):
        segmenter(mode="sa2va_i")
    with pytest.raises(ValueError, match="mode is 'uniformly'; choose one of"):
        Sa2vaInference(mode="uniformly")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="key_frames is 0; it must be a whole number of at least 1"):
        Sa2vaInference(key_frames=0)


def test_what_cannot_be_asked_is_refused_before_anything_is_read() -> None:
    frames = noise_video(2)
    refused = {"": "is empty", "a [seg] thing": "special token", "an <image>": "special token"}
    for text, why in refused.items():
        with pytest.raises(ValueError, match=why):
            segmenter().segment(frames, [Expression("3", text)])
    with pytest.raises(ValueError, match="takes no key frames"):
        segmenter().segment(frames, [BALL], key_frames={"0": 1})
    assert frames.reads == []
    with pytest.raises(ValueError, match="expression '3' is too long"):
        list(segmenter().segment(frames, [Expression("3", "word " * 40_000)]))


@pytest.mark.parametrize(
    ("mode", "question"),
    [
        ("first", "<image>\n which one jumps? Please respond with a segmentation mask."),
        ("sa2va_i", "<image>\nPlease segment which one jumps?."),
    ],
)
def test_questions_are_put_as_each_program_puts_them(mode: Mode, question: str) -> None:
    assert segmentation_question("which one jumps?", mode) == question
    assert segmentation_question("the dog", mode) == "<image>\nPlease segment the dog."


def changed_checkpoint(tmp_path: Path, change) -> Path:
    config = json.loads(
        (shared_path("golden", "sa2va", "internvl_qwen2_a") / "checkpoint" / "config.json").read_text()
    )
    change(config)
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("template", "vicuna", "template is 'vicuna'; known are qwen_chat"),
        ("model_type", "llava", "is no Sa2VA checkpoint: its config.json names model type 'llava'"),
        ("ps_version", "v1", "ps_version is 'v1'"),
        ("llm_config.architectures", ["Phi3ForCausalLM"], "Phi-3 was the base of unpublished models only"),
        ("llm_config.architectures", ["GptForCausalLM"], "names 'GptForCausalLM'; known are Qwen2ForCausalLM"),
        ("llm_config.rope_scaling", {"type": "yarn"}, "rope_scaling is of type 'yarn'"),
        ("llm_config.use_sliding_window", True, "use_sliding_window is true; Qwen2 is known with full attention"),
        ("llm_config.hidden_act", "swish9", "text_config.hidden_act is 'swish9'"),
        ("llm_config.hidden_size", "64", "'hidden_size' expected int, got str"),
        ("vision_config.norm_type", "batch_norm", "norm_type is 'batch_norm'"),
        ("force_image_size", 224, "force_image_size is 224, but vision_config.image_size 448"),
        ("max_dynamic_patch", 0, "max_dynamic_patch 0; expected 1 <= min <= max"),
    ],
)
def test_unknown_families_and_config_values_are_named(tmp_path: Path, key: str, value: object, message: str) -> None:
    def change(config) -> None:
        *parents, last = key.split(".")
        for parent in parents:
            config = config[parent]
        config[last] = value

    with pytest.raises(CheckpointError, match=message):
        Sa2vaConfig.read(changed_checkpoint(tmp_path, change))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"vision_config": {"model_type": "qwen2_vl"}}, "is 'qwen2_vl'; known are qwen2_5_vl, qwen3_vl"),
        ({"vision_config": None}, "has a wrong entry"),
        ({"text_config": {"hidden_act": "swish9"}}, "text_config.hidden_act is 'swish9'"),
    ],
)
def test_unknown_values_of_the_qwen_families_are_named(tmp_path: Path, entries: dict, message: str) -> None:
    source = shared_path("golden", "sa2va", "qwen2_5_vl_a", "checkpoint", "config.json")
    config = json.loads(source.read_text())
    for name, values in entries.items():
        config[name] = values and config[name] | values
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        Sa2vaConfig.read(tmp_path)
    del config["vision_config"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="config.json lacks the entry 'vision_config'"):
        Sa2vaConfig.read(tmp_path)
