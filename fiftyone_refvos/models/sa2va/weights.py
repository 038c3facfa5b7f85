"""Loading Sa2VA checkpoints: published tensor names onto stock modules, strictly."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from fiftyone_refvos.models.checkpoint import check_tensors, iterate_tensors, load_strictly, tensor_names
from fiftyone_refvos.models.llama import COMPUTED
from fiftyone_refvos.models.sa2va.config import Sa2vaConfig
from fiftyone_refvos.models.sa2va.network import Sa2vaNetwork

_SAM2 = "grounding_encoder.sam2_model."
TUNED_DECODER = f"{_SAM2}sam_mask_decoder_modified."
_VISION_LAYERS = "mllm.model.vision_tower.encoder.layer."  # of InternViT

# Published prefix -> ours, the longer ones first, for what all families have.
_COMMON = (
    (TUNED_DECODER, "sam.tuned_decoder."),
    (_SAM2, "sam.sam2."),
    ("text_hidden_fcs.", "seg_projection."),
)
_INTERNVL = (
    ("vision_model.embeddings.class_embedding", "mllm.model.vision_tower.embeddings.cls_token"),
    ("vision_model.embeddings.position_embedding", "mllm.model.vision_tower.embeddings.position_embeddings"),
    (
        "vision_model.embeddings.patch_embedding.",
        "mllm.model.vision_tower.embeddings.patch_embeddings.projection.",
    ),
    ("vision_model.encoder.layers.", _VISION_LAYERS),
    ("mlp1.0.", "mllm.model.multi_modal_projector.layer_norm."),
    ("mlp1.1.", "mllm.model.multi_modal_projector.linear_1."),
    ("mlp1.3.", "mllm.model.multi_modal_projector.linear_2."),
    ("language_model.model.", "mllm.model.language_model."),
    ("language_model.lm_head.", "mllm.lm_head."),
    ("language_model.output.", "mllm.lm_head."),
)
_QWEN_VL = (
    ("model.model.visual.", "mllm.model.visual."),
    ("model.model.language_model.", "mllm.model.language_model."),
    ("model.lm_head.", "mllm.lm_head."),
    # as transformers saved these models before 4.52
    ("model.visual.", "mllm.model.visual."),
    ("model.model.", "mllm.model.language_model."),
)
_VISION_LAYER = {
    "attn.proj.": "attention.projection_layer.",
    "attn.q_norm.": "attention.q_norm.",
    "attn.k_norm.": "attention.k_norm.",
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
    "ls1": "lambda_1",
    "ls2": "lambda_2",
}
_INTERNLM2 = {
    "tok_embeddings.": "embed_tokens.",
    ".attention.wo.": ".self_attn.o_proj.",
    ".feed_forward.w1.": ".mlp.gate_proj.",
    ".feed_forward.w3.": ".mlp.up_proj.",
    ".feed_forward.w2.": ".mlp.down_proj.",
    ".attention_norm.": ".input_layernorm.",
    ".ffn_norm.": ".post_attention_layernorm.",
}
_FUSER_SCALE = re.compile(r"(\.memory_encoder\.fuser\.layers\.\d+\.)g_weight$")


def translate(tensors: Iterable[tuple[str, Tensor]], config: Sa2vaConfig) -> Iterator[tuple[str, Tensor]]:
    """Published tensors under our names, fused ones cut apart; unknown names stay as they are.

    Args:
        tensors: name and tensor; those on the meta device do as well
        config: of the checkpoint, which says how the fused ones are cut
    """
    for name, tensor in tensors:
        if COMPUTED.search(name):
            continue
        ours = _rename(name, config)
        if ours.startswith(_VISION_LAYERS) and ".attn.qkv." in ours:
            yield from _split(ours, ".attn.qkv.", ".attention.", tensor.chunk(3))
        elif ".attention.wqkv." in ours:
            yield from _split(ours, ".attention.wqkv.", ".self_attn.", _split_internlm2(tensor, config))
        else:
            yield ours, tensor


def _rename(name: str, config: Sa2vaConfig) -> str:
    family = _INTERNVL if config.family == "internvl" else _QWEN_VL
    for published, ours in (*_COMMON, *family):
        if name.startswith(published):
            name = ours + name.removeprefix(published)
            break
    if name.startswith(_VISION_LAYERS):
        name = _replace_first(name, _VISION_LAYER)
    elif name.startswith("mllm.model.language_model.") and config.language_model == "InternLM2ForCausalLM":
        name = _replace_first(name, _INTERNLM2)
    return _FUSER_SCALE.sub(r"\1gamma", name)


def _replace_first(name: str, table: dict[str, str]) -> str:
    for published, ours in table.items():
        if published in name:
            return name.replace(published, ours)
    return name


def _split(name: str, fused: str, parent: str, parts: Iterable[Tensor]) -> Iterator[tuple[str, Tensor]]:
    for letter, part in zip("qkv", parts, strict=True):
        yield name.replace(fused, f"{parent}{letter}_proj."), part


def _split_internlm2(wqkv: Tensor, config: Sa2vaConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Rows come per key head: its query heads, then the key head, then the value head."""
    text = config.text
    groups = text.num_attention_heads // text.num_key_value_heads
    heads = wqkv.unflatten(0, (text.num_key_value_heads, groups + 2, -1))
    return heads[:, :groups].flatten(0, 2), heads[:, groups].flatten(0, 1), heads[:, groups + 1].flatten(0, 1)


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
    restore_constants(network.mllm)
    return network


def restore_constants(module: nn.Module) -> None:
    """Computes the rotary frequencies of a stock model that was built on the meta device."""
    rotary = [(name, each) for name, each in module.named_modules() if hasattr(each, "inv_freq")]
    for name, each in rotary:
        module.set_submodule(name, type(each)(each.config))


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
