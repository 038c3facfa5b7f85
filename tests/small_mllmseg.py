"""MLLMSeg checkpoints of golden cases, loaded once, and copies of them to be changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from fiftyone_refvos.models.checkpoint import iterate_tensors
from fiftyone_refvos.models.mllmseg.inference import MllmsegSegmenter
from fiftyone_refvos.models.mllmseg.loading import load_mllmseg
from fiftyone_refvos.verify.mllmseg import read_image
from fiftyone_refvos.video import Frame
from tests.shared import shared_path


def checkpoint_of(case: str) -> Path:
    """The checkpoint of a golden case."""
    return shared_path("golden", "mllmseg", case, "checkpoint")


@cache
def _segmenter(case: str, settings: tuple[tuple[str, Any], ...]) -> MllmsegSegmenter:
    return load_mllmseg(checkpoint_of(case), device="cpu", dtype="float32", settings=dict(settings))


def golden_segmenter(case: str = "gres_internlm2", **settings: Any) -> MllmsegSegmenter:
    """The segmenter of a golden case on the CPU; loaded once per combination of settings."""
    return _segmenter(case, tuple(sorted(settings.items())))


def golden_image(case: str = "gres_internlm2", number: int = 0) -> Frame:
    """An image of a golden case."""
    return read_image(shared_path("golden", "mllmseg", case, "inputs", f"image_{number}.png"))


def noise_image(height: int, width: int) -> Frame:
    """An image of random pixels."""
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def copy_checkpoint(case: str, folder: Path) -> Path:
    """A copy of a checkpoint that may be changed."""
    copied = Path(shutil.copytree(checkpoint_of(case), folder / case, copy_function=shutil.copyfile))
    copied.chmod(0o755)
    return copied


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Changes the tensors of a checkpoint whose weights are one safetensors file."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def change_config(folder: Path, changes: Mapping[str, Any]) -> None:
    """Changes entries of the config.json of a checkpoint; those of nested objects are merged."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for name, value in changes.items():
        config[name] = config[name] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(config))


def plain_internvl(case: str, folder: Path) -> Path:
    """The InternVL2.5 that a checkpoint was made of: without mask decoder, [SEG] and [REJ]."""
    base, tokens = folder / "internvl", ("[SEG]", "[REJ]")
    base.mkdir()
    for path in checkpoint_of(case).iterdir():
        if path.suffix in (".json", ".txt", ".model") and "index" not in path.name:
            shutil.copyfile(path, base / path.name)
    added = json.loads((base / "added_tokens.json").read_text())
    first = added["[SEG]"]
    (base / "added_tokens.json").write_text(json.dumps({t: n for t, n in added.items() if t not in tokens}))
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        described = json.loads((base / name).read_text())
        special = described["additional_special_tokens"]
        described["additional_special_tokens"] = [
            each for each in special if not any(token in str(each) for token in tokens)
        ]
        decoder = described.get("added_tokens_decoder", {})
        described["added_tokens_decoder"] = {n: each for n, each in decoder.items() if each["content"] not in tokens}
        (base / name).write_text(json.dumps(described))
    change_config(base, {"architectures": ["InternVLChatModel"], "llm_config": {"vocab_size": first}})
    tables = ("tok_embeddings.weight", "output.weight", "embed_tokens.weight", "lm_head.weight")
    state = {
        name: tensor[:first].clone() if name.endswith(tables) and name.startswith("language_model.") else tensor
        for name, tensor in iterate_tensors(checkpoint_of(case))
        if not name.startswith("res_decoder.")
    }
    save_file(state, base / "model.safetensors")
    return base
