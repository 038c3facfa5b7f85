"""Loading GLUS checkpoints: published tensor names onto stock modules, strictly."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from fiftyone_refvos.models.checkpoint import (
    check_tensors,
    iterate_tensors,
    load_strictly,
)
from fiftyone_refvos.models.clip_tower import load_clip, read_clip_config, set_position_ids
from fiftyone_refvos.models.glus.config import PUBLISHED_GAMMA, GlusConfig, MemoryGamma
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.llama import TensorNames

# Published prefix -> ours, the longer ones first. "model." alone is the LLaMA of transformers.
_NAMES = TensorNames(
    (
        ("model.visual_model.", "sam.sam2."),
        ("model.text_hidden_fcs.0.", "seg_projection."),
        ("model.mm_projector.", "projector."),
        ("model.", "llama."),
        ("lm_head.", "lm_head."),
    )
)
translate, published_name = _NAMES.translate, _NAMES.published
# A few tensors that differ from one training to the next.
_HASHED = ("seg_projection.", "projector.", "llama.layers.0.self_attn.q_proj.")
_GAMMA = re.compile(r"^sam\.sam2\.memory_encoder\.fuser\.layers\.\d+\.gamma$")


def load_network(
    folder: Path,
    clip_folder: Path,
    config: GlusConfig,
    *,
    memory_gamma: MemoryGamma | None = None,
    device: torch.device,
    dtype: torch.dtype | None,
) -> GlusNetwork:
    """Loads a checkpoint folder of the published layout and its CLIP folder, in eval mode.

    Args:
        folder: config.json, weights (sharded or not, safetensors or `.bin`) and tokenizer
        clip_folder: a CLIP model in the layout of the hub
        config: of the same folder
        memory_gamma: overrides what the checkpoint records
        device: where to run
        dtype: precision of all parameters; None leaves each in that in which it is stored

    Raises:
        CheckpointError: for missing, unexpected or wrongly shaped tensors, damaged or foreign files
    """
    clip = read_clip_config(clip_folder, width=config.clip_width, vision_tower=config.vision_tower)
    network = empty_network(config, clip)
    rest = nn.ModuleDict({name: child for name, child in network.named_children() if name != "clip"})
    hashes: dict[str, str] = {}
    tensors = _hashed(_NAMES.translated(iterate_tensors(folder)), hashes)
    load_strictly(rest, tensors, where=str(folder), device=device, dtype=dtype)
    network.fingerprint = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()[:16]
    load_clip(network.clip, clip_folder, device=device, dtype=dtype)
    # SAM2 multiplies this matrix with a grid that it always makes in float32
    network.sam.sam2.sam_prompt_encoder.pe_layer.float()
    if (memory_gamma or config.memory_gamma) == "published":
        set_memory_gamma(network, PUBLISHED_GAMMA)
    return network.requires_grad_(False).eval()


def empty_network(config: GlusConfig, clip: CLIPVisionConfig) -> GlusNetwork:
    """The network without memory for its weights, but with the constants that no checkpoint holds."""
    with torch.device("meta"):
        network = GlusNetwork(config, clip)
    network.llama.rotary_emb = LlamaRotaryEmbedding(config.llama)
    set_position_ids(network.clip, torch.device("cpu"))
    return network


def set_memory_gamma(network: GlusNetwork, value: float) -> None:
    """Sets the layer scale of SAM2's memory fuser, which the published script left at its initial value."""
    for name, parameter in network.named_parameters():
        if _GAMMA.match(name):
            parameter.data.fill_(value)


@contextmanager
def temporary_memory_gamma(network: GlusNetwork, value: float | None) -> Iterator[None]:
    """Sets the layer scale of the memory fuser for a while; None leaves it as it is."""
    former = {name: each.detach().clone() for name, each in network.named_parameters() if _GAMMA.match(name)}
    if value is not None:
        set_memory_gamma(network, value)
    try:
        yield
    finally:
        for name, parameter in network.named_parameters():
            if name in former:
                parameter.data.copy_(former[name])


def check_published_keys(shapes: dict[str, tuple[int, ...]], network: GlusNetwork, *, where: str) -> None:
    """Checks a table of published names and shapes against a network, without any weights.

    Raises:
        CheckpointError: for missing, unexpected or wrongly shaped tensors
    """
    expected = {name: tuple(t.shape) for name, t in network.state_dict().items() if not name.startswith("clip.")}
    check_tensors(expected, dict(_NAMES.translated(shapes.items())), where=where)


def _hashed(tensors: Iterable[tuple[str, Tensor]], hashes: dict[str, str]) -> Iterator[tuple[str, Tensor]]:
    """Passes tensors on, and notes the hashes of a few that differ from one training to the next.

    They are rounded to bfloat16, for a checkpoint to be the same in whatever precision it is stored.
    """
    for name, tensor in tensors:
        if name.startswith(_HASHED):
            content = tensor.to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
            hashes[name] = hashlib.sha256(content).hexdigest()
        yield name, tensor
