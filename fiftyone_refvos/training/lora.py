"""Which parameters train: low-rank updates of the language model by peft, and the parts that train as a whole."""

from __future__ import annotations

from functools import partial

import peft
import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.glus.weights import published_name
from fiftyone_refvos.models.selector.network import SelectorNetwork
from fiftyone_refvos.training.config import LoraConfig, TrainingConfig

Network = GlusNetwork | SelectorNetwork

ADAPTER = "default"  # peft's name of an only adapter, part of the published parameter names

# Parts that train as a whole in the published recipe.
TRAINED_PARTS = ("llama.embed_tokens.", "lm_head.", "projector.", "seg_projection.", "sam.sam2.sam_mask_decoder.")

_LARGE = ("llama.", "clip.")  # parts whose frozen weights need no more than bfloat16 where all is computed in it

_BASE = ".base_layer."  # where peft keeps the weight under an update


def prepare(network: Network, config: TrainingConfig, parts: tuple[str, ...] = TRAINED_PARTS) -> None:
    """Adds what is trained to a network, says which of its parameters train, and in what precision each is held.

    "published" adds LoRA, where the configuration has one, and freezes all but it and the trained `parts`; "all"
    trains every parameter and adds nothing, "all_but_clip" every parameter outside of CLIP. What trains is held in
    float32.
    """
    for layer in network.llama.layers:  # what transformers' own switch sets, whose name depends on the release
        layer.gradient_checkpointing = config.gradient_checkpointing
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    if config.trainable != "published":
        network.float().requires_grad_(True)
        network.clip.requires_grad_(config.trainable == "all")
        return
    if config.lora is not None:
        add_lora(network, config.lora)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(parts) or is_lora(name))
        rounded = config.precision == "bf16" and name.startswith(_LARGE) and not parameter.requires_grad
        parameter.data = parameter.data.to(torch.bfloat16 if rounded else torch.float32)


def add_lora(network: Network, config: LoraConfig) -> None:
    """Adds an update that is zero at first to every q_proj and v_proj of the language model, in place."""
    peft.inject_adapter_in_model(peft_config(config), network.llama, adapter_name=ADAPTER)


def peft_config(config: LoraConfig) -> peft.LoraConfig:
    """The same in the words of peft, as an adapter's folder records it."""
    return peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=["q_proj", "v_proj"],
        bias="none",
    )


def is_lora(name: str) -> bool:
    """Whether a parameter of that name is part of an update."""
    return ".lora_A." in name or ".lora_B." in name


def published_parameter(name: str) -> str:
    """The published name of a parameter of a network with or without LoRA."""
    return published_name(name.replace(_BASE, "."))


def merged_state(network: nn.Module) -> dict[str, Tensor]:
    """The state of a network as it is without LoRA, its updates added to the weights; the network stays as it is."""
    state = {name.replace(_BASE, "."): tensor for name, tensor in network.state_dict().items() if not is_lora(name)}
    for name, module in network.named_modules():
        if isinstance(module, LoraLinear):
            weight = state[f"{name}.weight"]
            delta: Tensor = module.get_delta_weight(ADAPTER)
            state[f"{name}.weight"] = weight + delta.detach().to(weight.dtype)
    return state


def merge_lora(network: Network) -> None:
    """Adds the updates to the weights and takes LoRA out again, in place."""
    for name, module in list(network.named_modules()):
        if isinstance(module, LoraLinear):
            module.merge(adapter_names=[ADAPTER])
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, module.get_base_layer())
    if hasattr(network.llama, "peft_config"):
        del network.llama.peft_config
