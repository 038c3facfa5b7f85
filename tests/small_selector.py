"""A key frame selector with random weights in the published layout, and the published way of running one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.registry import SHIPPED
from fiftyone_refvos.models.selector.config import SelectorConfig
from fiftyone_refvos.models.selector.inference import LanguageFrameSelector
from fiftyone_refvos.models.selector.loading import load_selector
from fiftyone_refvos.models.selector.network import SelectorNetwork
from fiftyone_refvos.sampling import residue_classes
from fiftyone_refvos.video import Frame, FrameSource

TINY = SHIPPED / "glus-tiny"  # whose words and CLIP the selector borrows
PUBLISHED = {"score_head.": "model.text_hidden_fcs.0.", "projector.": "model.mm_projector.", "llama.": "model."}


def selector_config(**changes: Any) -> dict[str, Any]:
    """The config.json of a checkpoint whose words and CLIP are those of glus-tiny."""
    tiny = json.loads((TINY / "config.json").read_text())
    return {
        "architectures": ["VISAForCausalLM"],
        "model_type": "ChatUniVi",
        "vocab_size": tiny["vocab_size"],
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "hidden_act": "silu",
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "mm_hidden_size": tiny["mm_hidden_size"],
        "mm_vision_tower": "openai/clip-vit-large-patch14",
        "out_dim": 16,
        "config": {
            "use_cluster": True,
            "spatial_cluster_rate0": 16,
            "spatial_cluster_rate1": 0.5,
            "spatial_cluster_rate2": 4,
        },
    } | changes


def write_selector(folder: Path, *, clip: Path = TINY / "clip", **changes: Any) -> Path:
    """Writes a checkpoint with random weights; `changes` are entries of its config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = selector_config(**changes)
    config = SelectorConfig.from_dict(entries, where=folder)
    torch.manual_seed(0)
    network = SelectorNetwork(config, CLIPVisionConfig.from_pretrained(clip))
    state = {name: t for name, t in network.state_dict().items() if not name.startswith("clip.")}
    save_file({published(name): tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(entries))
    shutil.copyfile(TINY / "tokenizer.model", folder / "tokenizer.model")
    (folder / "tokenizer_config.json").write_text('{"legacy": false}')
    (folder / "added_tokens.json").write_text(json.dumps({"[SCORE]": entries["vocab_size"] - 1}))
    return folder


def published(name: str) -> str:
    """The published name of one of our tensors."""
    prefix = next((prefix for prefix in PUBLISHED if name.startswith(prefix)), None)
    return name if prefix is None else PUBLISHED[prefix] + name.removeprefix(prefix)


@cache
def _selector(settings: tuple[tuple[str, Any], ...]) -> LanguageFrameSelector:
    with TemporaryDirectory() as folder:
        path = write_selector(Path(folder) / "selector")
        return load_selector(path, clip_path=TINY / "clip", device="cpu", settings=dict(settings))


def small_selector(**settings: Any) -> LanguageFrameSelector:
    """A random selector on the CPU; loaded once per combination of settings."""
    return _selector(tuple(sorted(settings.items())))


def one_prompt_at_a_time(
    selector: LanguageFrameSelector, frames: FrameSource, expressions: Sequence[Expression]
) -> dict[str, NDArray[np.float32]]:
    """The scores as the published program computes them: all images and all words of each prompt anew."""
    scores = {expression.id: np.empty(len(frames), dtype=np.float32) for expression in expressions}
    for context in residue_classes(len(frames), selector.settings.max_images - 1):
        for target in context:
            images = list(frames.read([*context, target]))
            for expression in expressions:
                tokens = _visual_tokens(selector, images)
                scores[expression.id][target] = whole_prompt_score(selector, expression, tokens)
    return scores


@torch.inference_mode()
def _visual_tokens(selector: LanguageFrameSelector, images: list[Frame]) -> list[Tensor]:
    network = selector.network
    return list(network.project(network.merge(network.clip_features(network.clip_pixels(images))).tokens))


@torch.inference_mode()
def whole_prompt_score(selector: LanguageFrameSelector, expression: Expression, images: list[Tensor]) -> float:
    """The score of one prompt that runs as a whole; `images` are visual tokens, the target's last."""
    network = selector.network
    prompt = selector.prompts.write(expression.text, len(images) - 1)
    states = network.llama(inputs_embeds=network.embed(prompt.ids, images)[None], use_cache=False)
    position = selector.prompts.read_position(prompt)
    return float(network.score(states.last_hidden_state[0, position]))


class NoFrames:
    """A video without frames."""

    name = "an empty video"
    size = (48, 64)

    def __len__(self) -> int:
        return 0

    def read(self, indices: object) -> Iterator[Frame]:
        return iter(())
