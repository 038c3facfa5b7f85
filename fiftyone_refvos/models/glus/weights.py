"""Loading GLUS checkpoints: published tensor names onto stock modules, strictly."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from fiftyone_refvos.models.checkpoint import (
    CheckpointError,
    check_tensors,
    iterate_tensors,
    load_strictly,
    read_config,
)
from fiftyone_refvos.models.glus.config import PUBLISHED_GAMMA, GlusConfig, MemoryGamma
from fiftyone_refvos.models.glus.network import GlusNetwork

logger = logging.getLogger(__name__)

Value = TypeVar("Value")

# Published prefix -> ours, the longer ones first. "model." alone is the LLaMA of transformers.
_RENAMED = (
    ("model.visual_model.", "sam.sam2."),
    ("model.text_hidden_fcs.0.", "seg_projection."),
    ("model.mm_projector.", "projector."),
    ("model.", "llama."),
    ("lm_head.", "lm_head."),
)
_HASHED = ("seg_projection.", "projector.", "llama.layers.0.self_attn.q_proj.")
# Old transformers saved this table of constants as a buffer.
_CONSTANT = re.compile(r"\.rotary_emb\.inv_freq$")
_GAMMA = re.compile(r"^sam\.sam2\.memory_encoder\.fuser\.layers\.\d+\.gamma$")
# A full CLIP model carries the text side too, which GLUS never uses.
_CLIP_UNUSED = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")
_CLIP_PREFIX = "vision_model."
_CLIP_POSITION_IDS = "embeddings.position_ids"


def translate(name: str) -> str | None:
    """Our name of a published tensor; None for constants that are computed; unknown names stay as they are."""
    if _CONSTANT.search(name):
        return None
    for published, ours in _RENAMED:
        if name.startswith(published):
            return ours + name[len(published) :]
    return name


def published_name(name: str) -> str:
    """The published name of one of our tensors, the inverse of `translate`."""
    for published, ours in _RENAMED:
        if name.startswith(ours):
            return published + name[len(ours) :]
    return name


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
    network = empty_network(config, _clip_config(clip_folder, config))
    rest = nn.ModuleDict({name: child for name, child in network.named_children() if name != "clip"})
    hashes: dict[str, str] = {}
    tensors = _hashed(_translated(iterate_tensors(folder)), hashes)
    load_strictly(rest, tensors, where=str(folder), device=device, dtype=dtype)
    network.fingerprint = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()[:16]
    _load_clip(network.clip, clip_folder, device=device, dtype=dtype)
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
    embeddings = network.clip.embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions)[None]
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
    check_tensors(expected, dict(_translated(shapes.items())), where=where)


def _translated(items: Iterable[tuple[str, Value]]) -> Iterator[tuple[str, Value]]:
    for name, value in items:
        ours = translate(name)
        if ours is not None:
            yield ours, value


def _hashed(tensors: Iterable[tuple[str, Tensor]], hashes: dict[str, str]) -> Iterator[tuple[str, Tensor]]:
    """Passes tensors on, and notes the hashes of a few that differ from one training to the next.

    They are rounded to bfloat16, for a checkpoint to be the same in whatever precision it is stored.
    """
    for name, tensor in tensors:
        if name.startswith(_HASHED):
            content = tensor.to(torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes()
            hashes[name] = hashlib.sha256(content).hexdigest()
        yield name, tensor


def _clip_config(folder: Path, config: GlusConfig) -> CLIPVisionConfig:
    values = read_config(folder)
    if values.get("model_type") not in ("clip", "clip_vision_model"):
        raise CheckpointError(
            f"{folder} is no CLIP model (model type {values.get('model_type')!r}); pass clip_path= with a copy "
            f"of {config.vision_tower}"
        )
    vision = CLIPVisionConfig.from_pretrained(folder)
    if vision.hidden_size != config.clip_width:
        raise CheckpointError(
            f"the CLIP model in {folder} is {vision.hidden_size} wide, the checkpoint needs {config.clip_width}; "
            f"pass clip_path= with a copy of {config.vision_tower}"
        )
    return vision


def _load_clip(clip: CLIPVisionModel, folder: Path, *, device: torch.device, dtype: torch.dtype | None) -> None:
    unused: list[str] = []

    def vision_tensors() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in iterate_tensors(folder):
            name = name.removeprefix(_CLIP_PREFIX)
            if name.startswith(_CLIP_UNUSED) or name == _CLIP_POSITION_IDS:
                unused.append(name)
            else:
                yield name, tensor

    load_strictly(clip, vision_tensors(), where=str(folder), device=device, dtype=dtype)
    clip.embeddings.position_ids = clip.embeddings.position_ids.to(device)
    if unused:
        logger.info("%s: %d tensors of CLIP's text side are not used", folder, len(unused))
