"""A tiny Sa2VA that says what a test wants it to say, whatever it is asked; masks are those of its random weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from fiftyone_refvos.models.sa2va.inference import Sa2vaSegmenter
from fiftyone_refvos.models.sa2va.loading import load_sa2va
from fiftyone_refvos.models.sam2_config import Sam2Sizes
from fiftyone_refvos.verify.sa2va_case import read_sizes
from tests.shared import shared_path

GROUNDED = "A <p> red ball </p> [SEG] and <p> the object </p> [SEG] in this image.<|im_end|>"


def small_sam2(case: str) -> Sam2Sizes:
    """SAM2 of a golden case on smaller images; no weight depends on it, and a frame takes a sixteenth of the time."""
    sizes = read_sizes(shared_path("golden", "sa2va", case, "sam2_dims.json"))
    assert sizes is not None
    return replace(sizes, image_size=256)


def scripted_sa2va(*answers: str, case: str = "internvl_qwen2_a", **settings: Any) -> Sa2vaSegmenter:
    """The network of a golden case, whose answers are these in turn.

    Answers that are given together, in one batch, are all the same one.
    """
    folder = shared_path("golden", "sa2va", case, "checkpoint")
    segmenter = load_sa2va(folder, sam2=small_sam2(case), device="cpu", settings=settings)
    tokenizer = segmenter.family.tokenizer
    says: Iterator[int] = cycle([id_ for answer in answers for id_ in tokenizer.encode(answer)])

    def say(_: torch.nn.Module, __: object, logits: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor(next(says)), logits.shape[-1]).expand_as(logits)

    segmenter.network.mllm.lm_head.register_forward_hook(say)
    return segmenter


def small_checkpoint(folder: Path, case: str = "internvl_qwen2_a") -> Path:
    """A copy of a golden checkpoint that records its small SAM2, so that names of the zoo can load it."""
    shutil.copytree(shared_path("golden", "sa2va", case, "checkpoint"), folder)
    folder.chmod(0o755)
    config = folder / "config.json"
    config.chmod(0o644)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sam2": asdict(small_sam2(case))}))
    return folder
