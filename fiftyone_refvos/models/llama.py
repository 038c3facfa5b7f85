"""The language model of LLaVA-era checkpoints: stock LLaMA with published sizes, and prompts with images in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaModel

from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID

# Old transformers saved this table of constants as a buffer.
COMPUTED = re.compile(r"\.rotary_emb\.inv_freq$")

Value = TypeVar("Value")


@dataclass(frozen=True)
class TensorNames:
    """How the tensors of LLaVA-era checkpoints are called, there and here.

    Attributes:
        prefixes: pairs of a published prefix and ours, the longer published ones first
    """

    prefixes: tuple[tuple[str, str], ...]

    def translate(self, name: str) -> str | None:
        """Our name of a published tensor; None for constants that are computed; unknown names stay as they are."""
        if COMPUTED.search(name):
            return None
        for published, ours in self.prefixes:
            if name.startswith(published):
                return ours + name[len(published) :]
        return name

    def published(self, name: str) -> str:
        """The published name of one of our tensors, the inverse of `translate`."""
        for published, ours in self.prefixes:
            if name.startswith(ours):
                return published + name[len(ours) :]
        return name

    def translated(self, items: Iterable[tuple[str, Value]]) -> Iterator[tuple[str, Value]]:
        """Pairs of published names and values under our names, without constants."""
        for name, value in items:
            ours = self.translate(name)
            if ours is not None:
                yield ours, value


def llama_config(config: Mapping[str, Any]) -> LlamaConfig:
    """Stock LLaMA with the sizes of a config.json, whose own `model_type` means another class.

    Raises:
        KeyError: for a size that is missing
    """
    return LlamaConfig(
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        num_hidden_layers=config["num_hidden_layers"],
        num_attention_heads=config["num_attention_heads"],
        num_key_value_heads=config.get("num_key_value_heads", config["num_attention_heads"]),
        hidden_act=config["hidden_act"],
        max_position_embeddings=config["max_position_embeddings"],
        rms_norm_eps=config["rms_norm_eps"],
        # rotary positions as in transformers 4.31, whose only options were the defaults here
        rope_parameters={"rope_type": "default", "rope_theta": config.get("rope_theta", 10000.0)},
        bos_token_id=config.get("bos_token_id", 1),
        eos_token_id=config.get("eos_token_id", 2),
        pad_token_id=config.get("pad_token_id", 0),
        tie_word_embeddings=False,
        attn_implementation="sdpa",
    )


def embed_prompt(llama: LlamaModel, ids: Sequence[int], images: Sequence[Tensor]) -> Tensor:
    """Input embeddings of ids in which each `IMAGE_ID` is replaced by the visual tokens of one image.

    Args:
        llama: whose words the ids are
        ids: of one prompt
        images: `(tokens, D)` for each `IMAGE_ID`, in their order

    Returns:
        `(length, D)`
    """
    tensor = torch.tensor(ids, device=llama.embed_tokens.weight.device, dtype=torch.long)
    words = llama.embed_tokens(tensor.masked_fill(tensor == IMAGE_ID, 0))
    parts: list[Tensor] = []
    start = 0
    for image, position in zip(images, (tensor == IMAGE_ID).nonzero()[:, 0].tolist(), strict=True):
        parts += [words[start:position], image.to(words)]
        start = position + 1
    return torch.cat([*parts, words[start:]])
