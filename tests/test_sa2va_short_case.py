"""`refvos verify` on a Sa2VA-i case with fewer frames than key frames, as golden data has none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.sa2va.inference import Sa2vaSegmenter
from fiftyone_refvos.models.sa2va.loading import load_sa2va
from fiftyone_refvos.models.sa2va.tracking import ObjectTracks, encode_frame
from fiftyone_refvos.models.sam2 import masks_at_size
from fiftyone_refvos.models.sam2_tracking import inside
from fiftyone_refvos.verify import verify
from fiftyone_refvos.verify.sa2va_case import read_sizes
from fiftyone_refvos.video import open_frames_dir
from tests.shared import shared_path

BALL = Expression("0", "the ball")
REPEATED = [0, 0, 1, 1, 2]  # int(linspace(0, 2, 5))
PREFIX = "video.expr0."


def outputs(segmenter: Sa2vaSegmenter, inputs: Path, names: list[str]) -> dict[str, torch.Tensor]:
    """What the published program would store: it decodes, and gives on, a repeated frame as often as it has it."""
    frames = open_frames_dir(inputs, names)
    with torch.inference_mode():
        (answer,) = segmenter.ask(frames, [BALL]).answers
        tracks = ObjectTracks(segmenter.network.sam, 3, frames.size)
        features = [encode_frame(segmenter.network.sam, frame) for frame in frames.read(range(3))]
        found = [tracks.prompt_certainly(n, features[n], answer.prompt_embeddings).decoded for n in REPEATED]
    outlines = torch.cat([inside(masks_at_size(each.low_res, frames.size)) for each in found])
    masks = {each.frame: each.masks[0] for each in segmenter.segment(frames, [BALL])}
    values = {
        "sample_idx": torch.tensor(REPEATED),
        "input_ids": torch.tensor(answer.prompt),
        "prompt_embed": answer.prompt_embeddings,
        "key_low_res_logits_s4": torch.stack([each.low_res[0, 0, ::4, ::4] for each in found]),
        "key_masks_packed": torch.from_numpy(np.packbits(outlines.numpy(), axis=-1)),
        "masks_packed": torch.from_numpy(np.packbits(np.stack([masks[n] for n in range(3)]), axis=-1)),
        "track_ious": torch.zeros(0, 3),
    }
    return {PREFIX + name: tensor.clone().contiguous() for name, tensor in values.items()}


@pytest.fixture
def short(tmp_path: Path) -> Path:
    source, names = shared_path("golden", "sa2va", "sa2va_i_a"), [f"frame_{n:05d}.png" for n in range(3)]
    (tmp_path / "inputs").mkdir()
    for name in (*(f"inputs/{each}" for each in names), "checkpoint", "sam2_dims.json"):
        (tmp_path / name).symlink_to(source / name)
    segmenter = load_sa2va(source / "checkpoint", sam2=read_sizes(source / "sam2_dims.json"), device="cpu")
    task = {"text": "<image>\nPlease segment the ball.", "prediction": "Sure, [SEG].<|im_end|>"}
    meta = {"expressions": ["the ball"], "sample_num_frames": 5, "tasks": {"video_expr0": task}}
    (tmp_path / "inputs" / "meta.json").write_text(json.dumps(meta))
    save_file(outputs(segmenter, tmp_path / "inputs", names), tmp_path / "outputs.safetensors")
    return tmp_path


def test_key_frames_that_a_short_video_repeats_are_each_compared(short: Path) -> None:
    wrong = f"{PREFIX}key_low_res_logits_s4"
    stored = load_file(short / "outputs.safetensors")
    stored[wrong][1] += 0.1  # frame 0 for the second time
    save_file(stored, short / "outputs.safetensors")
    (report,) = verify([short])
    assert [stage.name for stage in report.stages if not stage.passed] == [wrong]
    notes = {stage.name.removeprefix(PREFIX): stage.note for stage in report.stages}
    assert notes["sample_idx"] == "3 equal"
    assert notes["key_masks_packed, video"].endswith("in 5 frames")
    assert notes["masks_packed from the stored key masks, video"].endswith("in 3 frames")
    assert report.not_compared == {f"{PREFIX}track_ious": "all frames are key frames"}
