"""Loading selector checkpoints: published tensor names onto stock modules, strictly."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from fiftyone_refvos.models.checkpoint import CheckpointError, iterate_tensors, load_strictly
from fiftyone_refvos.models.clip_tower import load_clip, read_clip_config, set_position_ids
from fiftyone_refvos.models.llama import TensorNames
from fiftyone_refvos.models.selector.config import SelectorConfig
from fiftyone_refvos.models.selector.network import SelectorNetwork

logger = logging.getLogger(__name__)

# Published prefix -> ours, the longer ones first. "model." alone is the LLaMA of transformers.
_NAMES = TensorNames(
    (
        ("model.vision_tower.vision_tower.vision_model.", "clip."),
        ("model.text_hidden_fcs.0.", "score_head."),
        ("model.mm_projector.", "projector."),
        ("model.", "llama."),
    )
)
published_name, translated = _NAMES.published, _NAMES.translated
_HEAD = "score_head."
_APART = ("clip", "score_head")  # each is loaded for itself
# How peft names what is being trained, in checkpoints that are not merged yet.
TRAINING_PREFIX = "base_model.model."


def load_network(
    folder: Path, clip_folder: Path, config: SelectorConfig, *, device: torch.device, dtype: torch.dtype
) -> SelectorNetwork:
    """Loads a merged checkpoint of the published layout and its CLIP folder, in eval mode.

    Args:
        folder: config.json, weights (sharded or not, safetensors or `.bin`) and tokenizer
        clip_folder: a CLIP model in the layout of the hub
        config: of the same folder
        device: where to run
        dtype: precision of all parameters but those of the score head, which stays float32

    Raises:
        CheckpointError: for missing, unexpected or wrongly shaped tensors, damaged, foreign or unmerged files
    """
    clip = read_clip_config(clip_folder, width=config.clip_width, vision_tower=config.vision_tower)
    network = empty_network(config, clip)
    rest = nn.ModuleDict({name: child for name, child in network.named_children() if name not in _APART})
    head: dict[str, Tensor] = {}
    load_strictly(rest, _without_head(folder, head), where=str(folder), device=device, dtype=dtype)
    # scores in bfloat16 have steps of 1/256, which makes ties
    where = f"{folder} (score_head)"
    load_strictly(network.score_head, head.items(), where=where, device=device, dtype=torch.float32)
    load_clip(network.clip, clip_folder, device=device, dtype=dtype)
    return network.requires_grad_(False).eval()


def empty_network(config: SelectorConfig, clip: CLIPVisionConfig) -> SelectorNetwork:
    """The network without memory for its weights, but with the constants that no checkpoint holds."""
    with torch.device("meta"):
        network = SelectorNetwork(config, clip)
    network.llama.rotary_emb = LlamaRotaryEmbedding(config.llama)
    set_position_ids(network.clip, torch.device("cpu"))
    return network


def _without_head(folder: Path, head: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a checkpoint but CLIP's and those of the score head, which go into `head`."""
    unused = 0
    for name, tensor in translated(iterate_tensors(folder)):
        if name.startswith(TRAINING_PREFIX):
            raise CheckpointError(
                f"{folder} was saved while training: its LoRA weights ({name}, …) are not merged; merge them first"
            )
        if name.startswith(_HEAD):
            head[name.removeprefix(_HEAD)] = tensor
        elif name.startswith("clip."):
            unused += 1
        else:
            yield name, tensor
    if unused:
        logger.info("%s: %d tensors of a vision tower are not used; CLIP has a folder of its own", folder, unused)
