"""InternLM2's tensors as those of stock LLaMA: other names, and one packed projection that is cut in three."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor
from transformers import LlamaConfig

_TOP = {
    "model.tok_embeddings.weight": "model.embed_tokens.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_NAME = re.compile(r"^(model\.layers\.\d+)\.(.+)\.(weight|bias)$")


def internlm2_tensors(name: str, tensor: Tensor, config: LlamaConfig) -> Iterator[tuple[str, Tensor]]:
    """One tensor of InternLM2ForCausalLM under its name or names in LlamaForCausalLM; unknown names stay."""
    match = _NAME.match(name)
    if match is None:
        yield _TOP.get(name, name), tensor
        return
    layer, part, kind = match.groups()
    if part == "attention.wqkv":
        for letter, piece in zip("qkv", unpack_wqkv(tensor, config), strict=True):
            yield f"{layer}.self_attn.{letter}_proj.{kind}", piece
    else:
        yield f"{layer}.{_LAYER.get(part, part)}.{kind}", tensor


def internlm2_names(name: str) -> str:
    """The name in a checkpoint of InternLM2 of what has one name in LLaMA; `wqkv` stands for a packed projection."""
    stem, found, own = name.partition("language_model.")
    if not found:
        return name
    for published, ours in _TOP.items():
        if own == ours:
            return stem + found + published
    own = own.replace("self_attn.wqkv", "attention.wqkv")
    for published, ours in _LAYER.items():
        own = own.replace(f".{ours}.", f".{published}.")
    return stem + found + own


def unpack_wqkv(packed: Tensor, config: LlamaConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value rows of a packed projection.

    Args:
        packed: `(rows, ...)`, ordered by key-value head; each has its query heads, one key head and one value head
        config: the numbers of heads

    Returns:
        `(heads * head_dim, ...)`, `(kv heads * head_dim, ...)`, `(kv heads * head_dim, ...)`
    """
    queries = config.num_attention_heads // config.num_key_value_heads
    grouped = packed.unflatten(0, (config.num_key_value_heads, queries + 2, config.head_dim))
    return (
        grouped[:, :queries].flatten(0, 2),
        grouped[:, queries].flatten(0, 1),
        grouped[:, queries + 1].flatten(0, 1),
    )


def pack_wqkv(query: Tensor, key: Tensor, value: Tensor, config: LlamaConfig) -> Tensor:
    """The packed projection of query, key and value rows, the inverse of `unpack_wqkv`."""
    heads, width = config.num_key_value_heads, config.head_dim
    groups = (config.num_attention_heads // heads, 1, 1)
    rows = zip((query, key, value), groups, strict=True)
    return torch.cat([part.unflatten(0, (heads, group, width)) for part, group in rows], dim=1).flatten(0, 2)
