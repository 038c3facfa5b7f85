"""Writes the base of a small key frame selector: the language model, projector, words and CLIP of glus-tiny.

It stands where Chat-UniVi stands for the published selector: `fiftyone_refvos.train_selector` begins with it.
Usage: python scripts/make_kfs_base.py FOLDER [checkpoint of glus-tiny]
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from fiftyone_refvos.models.checkpoint import iterate_tensors, read_config
from fiftyone_refvos.models.glus.saving import BESIDE, new_folder
from fiftyone_refvos.models.registry import SHIPPED

_NOT_ITS_OWN = ("model.visual_model.", "model.text_hidden_fcs.")  # SAM2, and the projection of [SEG]
_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "rms_norm_eps",
    "mm_hidden_size",
    "mm_vision_select_layer",
    "mm_vision_tower",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)
RATES = (16, 2, 0.5)
"""Clusters of 64 patches: 16, as many as glus-tiny has tokens, then 2, then half of these; 19 tokens per image."""
SMOOTHING = 1.0
"""Frames over which scores are averaged: on held-out videos that ranks frames better."""


def entries(glus: dict[str, Any]) -> dict[str, Any]:
    """The config.json of the base of a GLUS checkpoint."""
    clustering = {f"spatial_cluster_rate{level}": rate for level, rate in enumerate(RATES)}
    own = {
        "architectures": ["ChatUniViLlamaForCausalLM"],
        "model_type": "ChatUniVi",
        "config": {"use_cluster": True, **clustering},
        "clip_view": glus.get("clip_view", "center_crop"),
        "words": "glus",
        "smoothing": SMOOTHING,
    }
    return {name: glus[name] for name in _SIZES if name in glus} | own


def main(folder: Path, glus: Path) -> None:
    """Writes the folder; an older one is replaced."""
    tensors = {name: t.contiguous() for name, t in iterate_tensors(glus) if not name.startswith(_NOT_ITS_OWN)}
    with new_folder(folder) as part:
        (part / "config.json").write_text(json.dumps(entries(read_config(glus)), indent=2) + "\n")
        save_file(tensors, part / "model.safetensors", metadata={"format": "pt"})
        for name in BESIDE:
            if (glus / name).is_file():
                shutil.copyfile(glus / name, part / name)
        shutil.copytree(glus / "clip", part / "clip")
    print(f"wrote {folder}, from {glus}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else SHIPPED / "glus-tiny")
