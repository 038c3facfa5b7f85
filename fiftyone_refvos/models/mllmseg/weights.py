"""Loading MLLMSeg checkpoints: published tensor names onto stock modules, strictly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from fiftyone_refvos.models.checkpoint import check_tensors, iterate_tensors, load_strictly, set_rotary
from fiftyone_refvos.models.internvl_weights import internvl_tensors, merge_lora
from fiftyone_refvos.models.mllmseg.config import MllmsegConfig
from fiftyone_refvos.models.mllmseg.network import MllmsegNetwork

_DECODER = ("res_decoder.", "mask_decoder.")


def load_network(
    folder: Path, config: MllmsegConfig, *, device: torch.device, dtype: torch.dtype | None
) -> MllmsegNetwork:
    """Loads a checkpoint folder of the published layout, in eval mode.

    Args:
        folder: config.json and weights: one file or shards with an index, safetensors or `.bin`; LoRA is merged
        config: of the same folder
        device: where to run
        dtype: precision of all parameters; None leaves each in that in which it is stored

    Raises:
        CheckpointError: for missing, unexpected or wrongly shaped tensors, damaged or foreign files
    """
    network = empty_network(config)
    tensors = translated(iterate_tensors(folder), config)
    load_strictly(network, tensors, where=str(folder), device=device, dtype=dtype)
    return network.requires_grad_(False).eval()


def empty_network(config: MllmsegConfig) -> MllmsegNetwork:
    """The network without memory for its weights, but with the constants that no checkpoint holds."""
    with torch.device("meta"):
        network = MllmsegNetwork(config)
    set_rotary(network.internvl)
    return network


def translated(tensors: Iterable[tuple[str, Tensor]], config: MllmsegConfig) -> Iterator[tuple[str, Tensor]]:
    """Published tensors under our names, with LoRA merged; unknown names stay as they are."""
    published, ours = _DECODER
    for name, tensor in internvl_tensors(merge_lora(tensors), config.internvl, prefix="internvl."):
        yield (ours + name.removeprefix(published) if name.startswith(published) else name), tensor


def published_decoder_name(name: str) -> str:
    """The published name of one of our tensors that is none of InternVL's."""
    published, ours = _DECODER
    return published + name.removeprefix(ours)


def check_published_keys(shapes: Mapping[str, tuple[int, ...]], config: MllmsegConfig, *, where: str) -> None:
    """Checks a table of published names and shapes, without any weights.

    Raises:
        CheckpointError: for missing, unexpected or wrongly shaped tensors
    """
    expected = {name: tuple(tensor.shape) for name, tensor in empty_network(config).state_dict().items()}
    with torch.device("meta"):
        tensors = {name: torch.empty(shape) for name, shape in shapes.items()}
    found = {name: tuple(tensor.shape) for name, tensor in translated(tensors.items(), config)}
    check_tensors(expected, found, where=where)
