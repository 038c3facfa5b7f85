"""Writes the glus-tiny checkpoint with seeded random weights, in the layout of every checkpoint of ours.

It only shows that the pipeline runs: its masks mean nothing. A trained one takes its place.
Usage: python scripts/make_random_glus_tiny.py [folder]
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from transformers import CLIPVisionConfig

from fiftyone_refvos.demo.video import DemoVideo, generate
from fiftyone_refvos.demo.world import DemoConfig, video_seed
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.glus.config import ARCHITECTURE, GlusConfig, GlusInference
from fiftyone_refvos.models.glus.inference import GlusSegmenter
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.glus.prompt import SEG_TOKEN, conversation
from fiftyone_refvos.models.glus.saving import write_weights
from fiftyone_refvos.models.glus.weights import set_memory_gamma
from fiftyone_refvos.models.llama_tokenizer import IMAGE_TOKEN, LlamaTokenizer
from fiftyone_refvos.models.registry import SHIPPED

ADDED = ("<im_patch>", "<im_start>", "<im_end>", SEG_TOKEN)
VOCABULARY = 640
SIZES: dict[str, Any] = {
    "architectures": [ARCHITECTURE],
    "model_type": "llava",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "mm_hidden_size": 64,
    "mm_vision_select_layer": -2,
    "mm_vision_tower": "clip",
    "out_dim": 64,
    "memory_gamma": "checkpoint",
    "sam2": {
        "image_size": 128,
        "embed_dim": 16,
        "num_heads": 1,
        "stages": [1, 2, 3, 1],
        "global_att_blocks": [4],
        "d_model": 64,
        "mem_dim": 16,
        "memory_layers": 2,
        "memory_ffn": 128,
    },
}
CLIP = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "image_size": 112,
    "patch_size": 14,
    "projection_dim": 64,
}
SEEDS = range(64)


def short_video(seed: int) -> tuple[DemoVideo, list[Expression]]:
    """A short demo video and its expressions."""
    video = generate(seed, DemoConfig(num_frames=8))
    return video, [Expression(e.id, e.text) for e in video.expressions]


def write_tokenizer(folder: Path) -> None:
    """Trains a small SentencePiece model, with byte fallback, on the prompts of the demo world."""
    texts = {e.text for index in range(300) for e in generate(video_seed("train", index), DemoConfig()).expressions}
    prompt = conversation("dog", 1).replace(IMAGE_TOKEN, " ")
    with tempfile.TemporaryDirectory() as temporary:
        corpus = Path(temporary, "corpus.txt")
        corpus.write_text("\n".join(sorted(texts) + [prompt] * 20), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus),
            model_prefix=str(folder / "tokenizer"),
            vocab_size=VOCABULARY,
            model_type="bpe",
            byte_fallback=True,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            split_digits=True,
            pad_id=-1,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    (folder / "tokenizer.vocab").unlink()
    added = {token: VOCABULARY + number for number, token in enumerate(ADDED)}
    (folder / "added_tokens.json").write_text(json.dumps(added, indent=2) + "\n")
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": True,
        "add_bos_token": True,
        "add_eos_token": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def random_segmenter(config: GlusConfig, tokenizer: LlamaTokenizer, seed: int) -> GlusSegmenter:
    """A network with random weights that answers [SEG], so that there are masks to look at."""
    torch.manual_seed(seed)
    network = GlusNetwork(config, CLIPVisionConfig(**CLIP)).requires_grad_(False).eval()
    # a trained SAM2 has a layer scale near 0.1 and prompts that matter; the initial ones drown in the image
    set_memory_gamma(network, 0.1)
    output = network.seg_projection[2]
    assert isinstance(output, torch.nn.Linear)
    output.weight.mul_(20)
    segmenter = GlusSegmenter(network, tokenizer, GlusInference())
    states = [step.hidden[-1] for step in segmenter.steps(*short_video(video_seed("train", 0)))]
    direction = torch.stack(states).mean(0)
    network.lm_head.weight[segmenter.prompts.seg_id] = direction / direction.norm()
    return segmenter


def mean_area(segmenter: GlusSegmenter, seed: int) -> float:
    """Mean share of a frame that the masks cover, or 0 where one frame has no [SEG]."""
    results = list(segmenter.segment(*short_video(seed)))
    return float(np.mean([r.masks.mean() for r in results])) if all(r.found for r in results) else 0.0


def save(segmenter: GlusSegmenter, folder: Path) -> None:
    """Writes weights under their published names, in half precision, and the CLIP folder."""
    write_weights({name: tensor.half() for name, tensor in segmenter.network.state_dict().items()}, folder)
    config = {"architectures": ["CLIPVisionModel"], "model_type": "clip_vision_model", **CLIP}
    (folder / "clip" / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main(folder: Path) -> None:
    """Writes the checkpoint with the first seed whose masks are neither empty nor the whole frame."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    sizes = {
        **SIZES,
        "vocab_size": VOCABULARY + len(ADDED),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    (folder / "config.json").write_text(json.dumps(sizes, indent=2) + "\n")
    config, tokenizer = GlusConfig.read(folder), LlamaTokenizer(folder)
    for seed in SEEDS:
        segmenter = random_segmenter(config, tokenizer, seed)
        areas = [mean_area(segmenter, video_seed("train", index)) for index in range(1, 4)]
        print(f"seed {seed}: masks cover {', '.join(f'{area:.0%}' for area in areas)} of the frame")
        if all(0.03 < area < 0.4 for area in areas):
            save(segmenter, folder)
            return
    raise SystemExit("no seed gives masks that can be looked at")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED / "glus-tiny")
