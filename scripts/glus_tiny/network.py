"""The sizes of glus-tiny, and its network with random weights."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig

from fiftyone_refvos.models.glus.config import ARCHITECTURE, GlusConfig
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.glus.saving import new_folder, write_weights
from fiftyone_refvos.models.glus.weights import set_memory_gamma
from scripts.glus_tiny.tokenizer import ADDED, VOCABULARY, write_tokenizer

SIDE = 160
"""Of the square that both CLIP and SAM2 see, in pixels."""

CONTEXT_FRAMES = 8
"""Twice as many as published: one picture is but 16 tokens here, and three frames of 24 hide a turn or a stop."""

CLIP: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 20,
    "projection_dim": 64,
}

CONFIG: dict[str, Any] = {
    "architectures": [ARCHITECTURE],
    "model_type": "llava",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "mm_hidden_size": CLIP["hidden_size"],
    "mm_vision_select_layer": -1,
    "mm_vision_tower": "clip",
    "out_dim": 128,
    "memory_gamma": "checkpoint",
    "clip_view": "squash",
    "context_frames": CONTEXT_FRAMES,
    "sam2": {
        "image_size": SIDE,
        "embed_dim": 24,
        "num_heads": 1,
        "stages": [1, 2, 3, 1],
        "global_att_blocks": [4],
        "d_model": 128,
        "mem_dim": 32,
        "memory_layers": 2,
        "memory_ffn": 256,
        "stability_fallback": False,
    },
    "vocab_size": VOCABULARY + len(ADDED),
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}

MEMORY_GAMMA = 0.1
"""Initial layer scale of the memory fuser: SAM2's own, 1e-6, would take a long training to grow."""


_DEEPER_AFTER, _MORE_LAYERS = 3, 3


def write_start(folder: Path, seed: int) -> None:
    """Writes a checkpoint with random weights: config.json, tokenizer, weights, and `clip/`."""
    with new_folder(folder) as part:
        write_tokenizer(part)
        (part / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
        torch.manual_seed(seed)
        network = GlusNetwork(GlusConfig.read(part), CLIPVisionConfig(**CLIP))
        set_memory_gamma(network, MEMORY_GAMMA)
        write_weights(network.state_dict(), part)
        config = {"architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model", **CLIP}
        (part / "clip" / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def deeper(glus: GlusNetwork) -> GlusNetwork:
    """The same network with more layers in the middle of its language model, which change nothing at first.

    Two will follow objects (`traces`), and one will tell what they do (`motion`).
    """
    config, clip = replace(glus.config, llama=copy.deepcopy(glus.config.llama)), glus.clip.config
    config.llama.num_hidden_layers += _MORE_LAYERS
    state = {_moved(name): tensor for name, tensor in glus.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = GlusNetwork(config, clip)
    for name, tensor in network.state_dict().items():
        if name not in state:
            adds = name.endswith(("o_proj.weight", "down_proj.weight"))
            state[name] = torch.zeros_like(tensor) if adds else tensor
    network.load_state_dict(state)
    return network.to(glus.device)


def _moved(name: str) -> str:
    """Name of a tensor in the deeper network."""
    if not name.startswith("llama.layers."):
        return name
    number, rest = name.removeprefix("llama.layers.").split(".", 1)
    return f"llama.layers.{int(number) + _MORE_LAYERS * (int(number) >= _DEEPER_AFTER)}.{rest}"
