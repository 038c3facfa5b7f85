"""Sizes of a SAM2 network, and the network built from them by the stock `sam2` package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from sam2.modeling.sam2_base import SAM2Base
from yaml import YAMLError

from fiftyone_refvos.models.checkpoint import CheckpointError

# The published systems build SAM2 with these overrides of the yaml; training switches the fall-back off by
# itself, because the mask decoder looks at `self.training`.
_STABILITY_FALLBACK = {
    "dynamic_multimask_via_stability": True,
    "dynamic_multimask_stability_delta": 0.05,
    "dynamic_multimask_stability_thresh": 0.98,
}


@dataclass(frozen=True)
class Sam2Sizes:
    """The sizes in which SAM2 2.0 networks differ; the defaults are Hiera-L, as published.

    Attributes:
        image_size: side of the square input, in pixels
        embed_dim, num_heads, stages, global_att_blocks: the Hiera trunk
        d_model: channels of the neck, the memory attention and the mask decoder
        mem_dim: channels of a memory
        memory_layers: layers of the memory attention
        memory_ffn: hidden width of their feed-forward parts
        stability_fallback: whether an unstable mask is replaced by the best of SAM2's three others, which a network
            that was trained on single masks alone never learned
    """

    image_size: int = 1024
    embed_dim: int = 144
    num_heads: int = 2
    stages: tuple[int, ...] = (2, 6, 36, 4)
    global_att_blocks: tuple[int, ...] = (23, 33, 43)
    d_model: int = 256
    mem_dim: int = 64
    memory_layers: int = 4
    memory_ffn: int = 2048
    stability_fallback: bool = True

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Sam2Sizes:
        """Reads the `sam2` entry of a config.json.

        Raises:
            CheckpointError: for unknown names
        """
        unknown = sorted(values.keys() - cls.__dataclass_fields__.keys())
        if unknown:
            raise CheckpointError(f"unknown SAM2 sizes in config.json: {', '.join(unknown)}")
        sizes: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        return cls(**sizes)

    def to_yaml(self) -> dict[str, Any]:
        """The official SAM2 2.0 configuration with these sizes, as nested dictionaries."""
        with as_file(files("sam2").joinpath("configs/sam2/sam2_hiera_l.yaml")) as path:
            config = read_yaml(path)
        model = config["model"]
        model["image_size"] = self.image_size
        model["sam_mask_decoder_extra_args"] = {"dynamic_multimask_via_stability": self.stability_fallback}
        model["image_encoder"]["trunk"] |= {
            "embed_dim": self.embed_dim,
            "num_heads": self.num_heads,
            "stages": list(self.stages),
            "global_att_blocks": list(self.global_att_blocks),
        }
        neck = model["image_encoder"]["neck"]
        neck["d_model"] = neck["position_encoding"]["num_pos_feats"] = self.d_model
        neck["backbone_channel_list"] = [self.embed_dim * 2**level for level in (3, 2, 1, 0)]
        attention = model["memory_attention"]
        attention |= {"d_model": self.d_model, "num_layers": self.memory_layers}
        attention["layer"] |= {"d_model": self.d_model, "dim_feedforward": self.memory_ffn}
        attention["layer"]["self_attention"]["embedding_dim"] = self.d_model
        attention["layer"]["cross_attention"] |= {"embedding_dim": self.d_model, "kv_in_dim": self.mem_dim}
        encoder = model["memory_encoder"]
        encoder |= {"in_dim": self.d_model, "out_dim": self.mem_dim}
        encoder["position_encoding"]["num_pos_feats"] = self.mem_dim
        encoder["mask_downsampler"]["embed_dim"] = self.d_model
        encoder["fuser"]["layer"]["dim"] = self.d_model
        return config


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a SAM2 configuration in the official yaml layout.

    Raises:
        CheckpointError: if the file is missing, no yaml, or lacks the `model` entry
    """
    try:
        # OmegaConf, as sam2 itself: plain YAML 1.1 reads "1e-6" as a string
        config: Any = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise CheckpointError(f"{path} cannot be read as a SAM2 configuration: {error}") from error
    if not isinstance(config, dict) or not isinstance(config.get("model"), dict):
        raise CheckpointError(f"{path} is no SAM2 configuration: it has no 'model' entry")
    return config


def build_sam2(config: Mapping[str, Any]) -> SAM2Base:
    """Builds the network of a SAM2 configuration, with random weights, on the CPU, in eval mode.

    Raises:
        CheckpointError: if the configuration names a class outside of `sam2.modeling`
    """
    foreign = sorted({name for name in _targets(config["model"]) if not name.startswith("sam2.modeling.")})
    if foreign:
        raise CheckpointError(f"the SAM2 configuration names foreign classes: {', '.join(foreign)}")
    model = dict(config["model"])
    model["sam_mask_decoder_extra_args"] = _STABILITY_FALLBACK | model.get("sam_mask_decoder_extra_args", {})
    with torch.device("cpu"):  # its constructors compute constants, which the meta device cannot hold
        network: SAM2Base = instantiate(model, _recursive_=True)
    return network.eval()


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        for child in node.values():
            yield from _targets(child)
    elif isinstance(node, list):
        for child in node:
            yield from _targets(child)
