"""The sizes of glus-tiny, and its network with random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig

from fiftyone_refvos.models.glus.config import ARCHITECTURE, GlusConfig
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.glus.saving import write_weights
from fiftyone_refvos.models.glus.weights import set_memory_gamma
from scripts.glus_tiny.tokenizer import ADDED, VOCABULARY, write_tokenizer

SIDE = 160
"""Of the square that both CLIP and SAM2 see, in pixels."""

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


def write_start(folder: Path, seed: int) -> None:
    """Writes a checkpoint with random weights: config.json, tokenizer, weights, and `clip/`."""
    folder.mkdir(parents=True)
    write_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    torch.manual_seed(seed)
    network = GlusNetwork(GlusConfig.read(folder), CLIPVisionConfig(**CLIP))
    set_memory_gamma(network, MEMORY_GAMMA)
    write_weights(network.state_dict(), folder)
    config = {"architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model", **CLIP}
    (folder / "clip" / "config.json").write_text(json.dumps(config, indent=2) + "\n")
