"""Sa2VA cases: every stage from the pixels to the masks, of videos, images and chat, in all families."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fiftyone_refvos.models.sa2va.config import MODEL_TYPE
from fiftyone_refvos.models.sa2va.families import InternVl, QwenVl, Visual
from fiftyone_refvos.models.sa2va.images import decode_image
from fiftyone_refvos.models.sa2va.inference import VideoAnswers
from fiftyone_refvos.models.sa2va.pixels import internvl_frames, internvl_image, sam_pixels
from fiftyone_refvos.models.sa2va.tracking import FrameFeatures, ObjectTracks, TrackStep, encode_frame
from fiftyone_refvos.models.sam2 import masks_at_size
from fiftyone_refvos.models.sam2_tracking import TrackedMasks, inside, masks_through_image
from fiftyone_refvos.verify import tables
from fiftyone_refvos.verify.report import CaseReport
from fiftyone_refvos.verify.sa2va_case import (
    EMBEDDING,
    END_TO_END_PIXELS,
    IOUS,
    LANGUAGE,
    MASK_LOGITS,
    MASK_PIXELS,
    SAM,
    Case,
    pixel_values,
)
from fiftyone_refvos.video import Frame

_FILES = ("outputs.safetensors", "checkpoint/config.json", "inputs/meta.json")
_IMAGE_TASKS = {"image_res": "image_res", "gcg": "gcg"}
_TEXT_TASKS = {"vp": "visual_prompt", "chat": "chat"}


def is_case(path: Path) -> bool:
    """A folder with a Sa2VA checkpoint, its tasks and its outputs."""
    return _holds(path, _FILES) and _config(path).get("model_type") == MODEL_TYPE


@torch.inference_mode()
def check(path: Path) -> CaseReport:
    """Runs a case in fp32 on the CPU, as it was made, and compares every stored tensor."""
    report = CaseReport(path, "Sa2VA")
    case = Case.open(path, report)
    videos = {f"video.expr{n}": f"video_expr{n}" for n in range(len(case.meta["expressions"]))}
    videos = {prefix: task for prefix, task in videos.items() if case.has(prefix)}
    if videos:
        with report.stage("video"):
            _check_video(case, videos)
    for prefix, task in _IMAGE_TASKS.items():
        if case.has(prefix):
            with report.stage(prefix):
                _check_image(case, prefix, task)
    if case.has("vp"):
        with report.stage("vp"):
            _check_regions(case)
    if case.has("chat"):
        with report.stage("chat"):
            case.add_answer("chat", "chat", case.answers({"chat": "chat"}, None)["chat"], None)
    case.note_left_out({**videos, **_IMAGE_TASKS, **_TEXT_TASKS})
    return report


def _check_video(case: Case, tasks: dict[str, str]) -> None:
    segmenter = case.segmenter
    indices = segmenter.key_frames(len(case.frames))
    keys = dict(zip(indices, case.frames.read(indices), strict=True))
    visual = case.family.see_video(list(keys.values()))
    answers = case.answers(tasks, visual)
    for prefix, task in tasks.items():
        case.add_indices(f"{prefix}.sample_idx", indices)
        _add_vision(case, prefix, list(keys.values()), visual, single=False)
        case.add_answer(prefix, task, answers[prefix], visual)
    seen = VideoAnswers(keys, list(answers.values()))
    if segmenter.mode == "sa2va_i":
        for prefix in tasks:
            _check_consistent(case, prefix, keys)
        _check_whole_video(case, seen, list(tasks), END_TO_END_PIXELS)
    else:
        _check_tracks(case, list(tasks), keys)
        _check_whole_video(case, seen, list(tasks), MASK_PIXELS)


def _add_vision(case: Case, prefix: str, images: Sequence[Frame], visual: Visual, *, single: bool) -> None:
    """Pixels and visual tokens."""
    family = case.family
    if isinstance(family, InternVl):
        tiling = family.network.config.tiling
        tiles = internvl_image(images[0], tiling) if single else internvl_frames(images, tiling.side)
        case.add(prefix, pixel_values(tiles))
        tokens = visual.tokens.unflatten(0, (len(tiles), -1))
        values = {"vit_embeds_s4": (tokens[:, ::4], LANGUAGE), "vit_embeds_frame0": (tokens[0], LANGUAGE)}
        if f"{prefix}.vision_last_hidden_s8" in case.golden:
            values["vision_last_hidden_s8"] = (family.tile_states(tiles)[:, ::8], LANGUAGE)
    else:
        assert isinstance(family, QwenVl)
        patches, grids = family.patches(images)
        case.add(prefix, pixel_values(patches))
        values = {"image_grid_thw": (grids, 0), "vision_tokens_s8": (visual.tokens[::8], LANGUAGE)}
        values |= {f"deepstack{n}_s16": (level[::16], LANGUAGE) for n, level in enumerate(visual.deepstack)}
    case.add(prefix, values)


def _add_features(case: Case, prefix: str, frame: Frame, features: FrameFeatures) -> None:
    """What SAM2 sees of the first frame."""
    pixels = sam_pixels(frame, case.family.network.sam.image_size)
    chosen = features.language
    case.add(
        prefix,
        {
            "sam_pixel_values_frame0_s32": (pixels[0, :, ::32, ::32], LANGUAGE),
            "sam_pixel_values_frame0_sum": (pixels.double().sum((0, 2, 3)), 1e-2),
            "sam_feat_top_frame0_s2": (chosen.top[0, :, ::2, ::2], EMBEDDING),
            "sam_feat_s1_frame0_s4": (chosen.stride8[0, :, ::4, ::4], EMBEDDING),
            "sam_feat_s0_frame0_s8": (chosen.stride4[0, :, ::8, ::8], EMBEDDING),
        },
    )


def _check_tracks(case: Case, prefixes: list[str], keys: dict[int, Frame]) -> None:
    """SAM2 from the stored prompt embeddings."""
    prompts = torch.cat([case.golden[f"{prefix}.prompt_embed"] for prefix in prefixes])
    tracks = ObjectTracks(case.family.network.sam, len(case.frames), case.frames.size)
    steps: list[TrackStep] = []
    for index, frame in enumerate(case.frames.read(range(len(case.frames)))):
        features = encode_frame(case.family.network.sam, frame)
        if index == 0:
            for prefix in prefixes:
                _add_features(case, prefix, frame, features)
        if index in keys:
            steps.append(tracks.prompt(index, features, prompts))
        else:
            steps.append(tracks.follow(index, features, certain=False, remember=True))
    for row, prefix in enumerate(prefixes):
        _add_steps(case, prefix, steps, row, len(keys))
        memory = tracks.bank.conditioning[0]["maskmem_features"][row]
        case.add_memory(f"{prefix}.memory_frame0_s4", memory[:, ::4, ::4])


def _add_steps(case: Case, prefix: str, steps: list[TrackStep], row: int, num_keys: int) -> None:
    """What SAM2 made of one object in each frame."""
    masks = [step.masks for step in steps]
    low_res = torch.stack([each.low_res[row, 0] for each in masks])
    values = {f"low_res_logits_frame{n}": (each, MASK_LOGITS) for n, each in enumerate(low_res)} | {
        "low_res_logits_s4": (low_res[:, ::4, ::4], MASK_LOGITS),
        "ious": (torch.stack([each.ious[row] for each in masks]), IOUS),
        "obj_ptr": (torch.stack([each.pointer[row] for each in masks]), SAM),
        "object_score_logits": (torch.stack([each.object_score[row] for each in masks]), SAM),
        "pred_1024_s32": (_square(case, low_res)[:, ::32, ::32], MASK_LOGITS),
    }
    if num_keys < len(steps):
        conditioned = steps[num_keys].conditioned
        assert conditioned is not None
        values[f"memory_conditioned_frame{num_keys}_s4"] = (conditioned[row, :, ::4, ::4], SAM)
    case.add(prefix, values)
    _add_outlines(case, prefix, low_res, MASK_PIXELS, case.frames.size, note=" from the stored prompt")


def _check_consistent(case: Case, prefix: str, keys: dict[int, Frame]) -> None:
    """Sa2VA-i: key masks from the stored prompt embedding, and all else from the stored key masks."""
    sam, size, golden = case.family.network.sam, case.frames.size, case.golden
    asked = golden[f"{prefix}.sample_idx"].tolist() if f"{prefix}.sample_idx" in golden else [*keys]
    masks = torch.from_numpy(case.unpack(f"{prefix}.key_masks_packed", size[1]))
    tracks = ObjectTracks(sam, len(case.frames), size)
    features = {index: encode_frame(sam, frame) for index, frame in keys.items()}
    prompt = golden[f"{prefix}.prompt_embed"]
    decoded = {n: sam.decode_alone(sam.language_decoder, each.language, prompt) for n, each in features.items()}
    found = [decoded[n] for n in asked]
    given = {n: tracks.give(n, features[n], mask[None]) for n, mask in zip(asked, masks, strict=True)}
    rest = [index for index in range(len(case.frames)) if index not in keys]
    followed = {
        index: tracks.follow(index, encode_frame(sam, frame), certain=True, remember=True).masks
        for index, frame in zip(rest, case.frames.read(rest), strict=True)
    }
    case.add(
        prefix,
        {
            "key_low_res_logits_s4": (torch.stack([m.low_res[0, 0, ::4, ::4] for m in found]), MASK_LOGITS),
            "key_ious": (torch.stack([m.ious[0] for m in found]), IOUS),
        },
    )
    _add_followed(case, prefix, [followed[index] for index in rest])
    pointers = torch.stack([given[n].pointer[0] for n in asked])
    # stored before empty masks get the pointer for absence, which is all that is made of those
    case.add_rows(f"{prefix}.key_mask_obj_ptr_raw", pointers, masks.flatten(1).any(dim=1), SAM)
    outlines = torch.cat([inside(masks_at_size(m.low_res, size)) for m in found])
    case.add_masks(f"{prefix}.key_masks_packed", outlines.numpy(), tolerance=MASK_PIXELS)
    low_res = torch.stack([(given | followed)[n].low_res[0, 0] for n in range(len(case.frames))])
    case.add(prefix, {"propagated_1024_s32": (_square(case, low_res)[:, ::32, ::32], MASK_LOGITS)})
    _add_outlines(case, prefix, low_res, MASK_PIXELS, size, note=" from the stored key masks")
    case.input_only(f"{prefix}.key_mask_object_score_raw", "nothing is made of it")


def _add_followed(case: Case, prefix: str, followed: list[TrackedMasks]) -> None:
    """Sa2VA-i: what the original SAM2 made of the frames that are no key frames, which a short video lacks."""
    values = {
        "track_low_res_logits_s4": ([m.low_res[0, 0, ::4, ::4] for m in followed], MASK_LOGITS),
        "track_ious": ([m.ious[0] for m in followed], IOUS),
        "track_obj_ptr": ([m.pointer[0] for m in followed], SAM),
        "track_object_score_logits": ([m.object_score[0] for m in followed], SAM),
    }
    if followed:
        case.add(prefix, {name: (torch.stack(rows), tolerance) for name, (rows, tolerance) in values.items()})
    else:
        for name in values:
            case.input_only(f"{prefix}.{name}", "all frames are key frames")


def _check_whole_video(case: Case, seen: VideoAnswers, prefixes: list[str], tolerance: float) -> None:
    """From the pixels to the masks, as users run it."""
    steps = sorted(case.segmenter.track(case.frames, seen), key=lambda step: step.frame)
    for row, prefix in enumerate(prefixes):
        low_res = torch.stack([step.low_res[row, 0] for step in steps])
        if tolerance == MASK_PIXELS:
            case.add(prefix, {"low_res_logits_s4": (low_res[:, ::4, ::4], MASK_LOGITS)}, note=" end to end")
        _add_outlines(case, prefix, low_res, tolerance, case.frames.size, note=" end to end")


def _check_image(case: Case, prefix: str, task: str) -> None:
    """Each [SEG] of an answer about a single image: SAM2 from the stored prompt embeddings, and end to end."""
    visual = case.family.see_image(case.image)
    answer = case.answers({prefix: task}, visual)[prefix]
    _add_vision(case, prefix, [case.image], visual, single=True)
    case.add_answer(prefix, task, answer, visual)
    prompts, size = case.golden[f"{prefix}.prompt_embed"], (case.image.shape[0], case.image.shape[1])
    features, masks = decode_image(case.asker, case.image, prompts)
    _add_features(case, prefix, case.image, features)
    low_res = masks.low_res[:, 0]
    case.add(
        prefix,
        {
            "low_res_logits_s4": (low_res[:, ::4, ::4], MASK_LOGITS),
            "ious": (masks.ious, IOUS),
            "obj_ptr": (masks.pointer, SAM),
            "object_score_logits": (masks.object_score, SAM),
            "pred_1024_s32": (_square(case, low_res)[:, ::32, ::32], MASK_LOGITS),
        },
    )
    if f"{prefix}.memory_frame0_s4" in case.golden:
        tracks = ObjectTracks(case.family.network.sam, 1, size)
        tracks.prompt(0, features, prompts[:1])
        memory = tracks.bank.conditioning[0]["maskmem_features"][0]
        case.add_memory(f"{prefix}.memory_frame0_s4", memory[:, ::4, ::4])
    _add_outlines(case, prefix, low_res, MASK_PIXELS, size, note=" from the stored prompt")
    _, whole = decode_image(case.asker, case.image, answer.prompt_embeddings)
    _add_outlines(case, prefix, whole.low_res[:, 0], END_TO_END_PIXELS, size, note=" end to end")


def _check_regions(case: Case) -> None:
    """An answer about marked regions of an image."""
    case.input_only("vp.prompt_masks", "an input")
    visual = case.family.mark(case.family.see_image(case.image), case.golden["vp.prompt_masks"].bool())
    assert isinstance(case.family, InternVl)
    case.add("vp", pixel_values(internvl_image(case.image, case.family.network.config.tiling)))
    answer = case.answers({"vp": "visual_prompt"}, visual)["vp"]
    case.add_answer("vp", "visual_prompt", answer, visual)


def _add_outlines(
    case: Case, prefix: str, low_res: Tensor, tolerance: float, size: tuple[int, int], *, note: str
) -> None:
    """Masks of logits `(T, h, w)` at the size of the frames, and their areas."""
    side = case.family.network.sam.image_size
    masks = torch.cat([masks_through_image(each[None, None], side, size) for each in low_res]).numpy()
    case.add_masks(f"{prefix}.masks_packed", masks, tolerance=tolerance, note=note)
    areas = torch.from_numpy(masks.sum((1, 2), dtype=np.int64))
    case.add(prefix, {"mask_area": (areas, tolerance * size[0] * size[1])}, note=note)


def _square(case: Case, low_res: Tensor) -> Tensor:
    """Mask logits `(T, h, w)` at the size of the square image."""
    side = case.family.network.sam.image_size
    return torch.cat([masks_at_size(each[None, None], (side, side)) for each in low_res])


def _holds(path: Path, files: Sequence[str]) -> bool:
    return path.is_dir() and all((path / name).is_file() for name in files)


def _config(path: Path) -> dict[str, Any]:
    values = tables.read_json(path / "checkpoint" / "config.json")
    return values if isinstance(values, dict) else {}
