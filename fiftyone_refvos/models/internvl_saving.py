"""Stock InternVL tensors under the names of an `internvl_chat` checkpoint: the way back of `internvl_weights`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from transformers import InternVLConfig

from fiftyone_refvos.models.internlm2_weights import internlm2_names, pack_wqkv
from fiftyone_refvos.models.internvl_weights import published_name

TOKENIZER_FILES = (
    *("tokenizer.model", "tokenizer.json", "vocab.json", "merges.txt"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "generation_config.json"),
)
"""What lies beside the weights of a checkpoint, of either language family."""

_PACKED = re.compile(r"^(.*\.)([qkv])_proj\.(weight|bias)$")


def published_tensors(
    state: Mapping[str, Tensor], config: InternVLConfig, *, prefix: str
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of `InternVLForConditionalGeneration` under their published names, projections packed.

    Args:
        state: of a network; what does not begin with the prefix is left out
        config: whose language model says how projections are packed
        prefix: of InternVL's parts in the network
    """
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    internlm2 = config.text_config.model_type == "llama"
    waiting: dict[str, dict[str, Tensor]] = {}
    for name, tensor in own.items():
        match = _PACKED.match(name)
        if match is None or not (internlm2 or name.startswith("model.vision_tower.")):
            yield _published(name, internlm2=internlm2), tensor
            continue
        stem, letter, kind = match.groups()
        parts = waiting.setdefault(f"{stem}.{kind}", {})
        parts[letter] = tensor
        if len(parts) == len("qkv"):
            query, key, value = (parts[each] for each in "qkv")
            if name.startswith("model.vision_tower."):
                yield _published(f"{stem}qkv.{kind}", internlm2=False), torch.cat([query, key, value])
            else:
                packed = pack_wqkv(query, key, value, config.text_config)
                yield _published(f"{stem}wqkv.{kind}", internlm2=True), packed


def _published(name: str, *, internlm2: bool) -> str:
    published = published_name(name)
    return internlm2_names(published) if internlm2 else published
