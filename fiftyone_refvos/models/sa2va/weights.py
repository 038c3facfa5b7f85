"""Loading Sa2VA checkpoints: published tensor names onto stock modules, strictly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from fiftyone_refvos.models.checkpoint import (
    check_tensors,
    iterate_tensors,
    load_strictly,
    set_rotary,
    tensor_names,
)
from fiftyone_refvos.models.internvl_weights import internvl_tensors
from fiftyone_refvos.models.llama import COMPUTED
from fiftyone_refvos.models.sa2va.config import Sa2vaConfig
from fiftyone_refvos.models.sa2va.network import Sa2vaNetwork

_SAM2 = "grounding_encoder.sam2_model."
TUNED_DECODER = f"{_SAM2}sam_mask_decoder_modified."

# Published prefix -> ours, the longer ones first, for what all families have.
_COMMON = (
    (TUNED_DECODER, "sam.tuned_decoder."),
    (_SAM2, "sam.sam2."),
    ("text_hidden_fcs.", "seg_projection."),
)
_QWEN_VL = (
    ("model.model.visual.", "mllm.model.visual."),
    ("model.model.language_model.", "mllm.model.language_model."),
    ("model.lm_head.", "mllm.lm_head."),
    # as transformers saved these models before 4.52
    ("model.visual.", "mllm.model.visual."),
    ("model.model.", "mllm.model.language_model."),
)
_FUSER_SCALE = re.compile(r"(\.memory_encoder\.fuser\.layers\.\d+\.)g_weight$")


def translate(tensors: Iterable[tuple[str, Tensor]], config: Sa2vaConfig) -> Iterator[tuple[str, Tensor]]:
    """Published tensors under our names, fused ones cut apart; unknown names stay as they are.

    Args:
        tensors: name and tensor; those on the meta device do as well
        config: of the checkpoint, which says how the fused ones are cut

    Raises:
        CheckpointError: for a fused one that cannot be cut
    """
    table: tuple[tuple[str, str], ...] = _COMMON
    if config.family == "internvl":
        tensors = internvl_tensors(tensors, config.mllm, prefix="mllm.")
    else:
        table += _QWEN_VL
    for name, tensor in tensors:
        if not COMPUTED.search(name):
            yield _rename(name, table), tensor


def _rename(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for published, ours in table:
        if name.startswith(published):
            name = ours + name.removeprefix(published)
            break
    return _FUSER_SCALE.sub(r"\1gamma", name)


def published_name(name: str) -> str:
    """The published name of one of our tensors that is none of the language model's or the vision tower's."""
    for published, ours in _COMMON:
        if name.startswith(ours):
            name = published + name.removeprefix(ours)
            break
    return re.sub(r"(\.memory_encoder\.fuser\.layers\.\d+\.)gamma$", r"\1g_weight", name)


def load_network(
    folder: Path, config: Sa2vaConfig, *, device: torch.device, dtype: torch.dtype | None
) -> Sa2vaNetwork:
    """Loads a checkpoint folder of the published layout, in eval mode.

    Args:
        folder: config.json and weights (sharded or not, safetensors or `.bin`)
        config: of the same folder
        device: where to run
        dtype: precision of all parameters; None leaves each in that in which it is stored

    Raises:
        CheckpointError: for missing, unexpected or wrongly shaped tensors, damaged or foreign files
    """
    network = empty_network(config, tuned_decoder=has_tuned_decoder(tensor_names(folder)))
    tensors = translate(iterate_tensors(folder), config)
    load_strictly(network, tensors, where=str(folder), device=device, dtype=dtype)
    for module in network.modules():  # constants are in no checkpoint
        for name, buffer in module.named_buffers(recurse=False):
            module.register_buffer(name, buffer.to(device), persistent=name not in module._non_persistent_buffers_set)
    # SAM2 multiplies this matrix with a grid that it always makes in float32
    network.sam.sam2.sam_prompt_encoder.pe_layer.float()
    return network.requires_grad_(False).eval()


def has_tuned_decoder(names: Iterable[str]) -> bool:
    """Whether tensor names are those of a Sa2VA-i checkpoint, which holds the original SAM2 decoder, too."""
    return any(name.startswith(TUNED_DECODER) for name in names)


def empty_network(config: Sa2vaConfig, *, tuned_decoder: bool) -> Sa2vaNetwork:
    """The network without memory for its weights, but with the constants that no checkpoint holds."""
    with torch.device("meta"):
        network = Sa2vaNetwork(config, tuned_decoder=tuned_decoder)
    set_rotary(network.mllm)
    return network


def check_published_keys(shapes: dict[str, tuple[int, ...]], network: Sa2vaNetwork, *, where: str) -> None:
    """Checks a table of published names and shapes against a network, without any weights.

    Raises:
        CheckpointError: for missing, unexpected or wrongly shaped tensors
    """
    published = ((name, torch.empty(shape, device="meta")) for name, shape in shapes.items())
    found = {name: tuple(tensor.shape) for name, tensor in translate(published, network.config)}
    check_tensors(shapes_of(network), found, where=where)


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what a checkpoint holds of a module."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
