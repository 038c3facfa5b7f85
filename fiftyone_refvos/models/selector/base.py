"""What a selector is trained from: a selector, or a language model with CLIP that has no [SCORE] and no head yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fiftyone_refvos.models.checkpoint import iterate_tensors, load_strictly, read_config
from fiftyone_refvos.models.clip_tower import load_clip, read_clip_config
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.models.selector.config import ARCHITECTURE, SelectorConfig
from fiftyone_refvos.models.selector.network import SelectorNetwork, score_head
from fiftyone_refvos.models.selector.prompt import SCORE_TOKEN
from fiftyone_refvos.models.selector.weights import empty_network, load_network, translated

SCORE_DIM = 256  # of the published head
_WORDS = ("llama.embed_tokens", "lm_head")  # which have a row per word
_SPREAD = 0.02  # of the new rows, as transformers adds them
_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Trainee:
    """A selector that is about to be trained.

    Attributes:
        network: on the CPU, in float32
        tokenizer: with [SCORE]
        entries: the config.json of its checkpoint
    """

    network: SelectorNetwork
    tokenizer: LlamaTokenizer
    entries: dict[str, Any]


def load_trainee(folder: Path, clip_folder: Path, *, score_dim: int = SCORE_DIM, seed: int = 0) -> Trainee:
    """Loads what a training begins with.

    Args:
        folder: a selector, or the base of one (published: Chat-UniVi), whose vision tower is not used
        clip_folder: a CLIP model in the layout of the hub
        score_dim: width of the last hidden layer of a new head
        seed: of a new head, and of the new row for [SCORE]

    Raises:
        CheckpointError: for folders that are neither, with missing, unexpected or wrongly shaped tensors
    """
    entries = read_config(folder)
    if ARCHITECTURE in (entries.get("architectures") or []):
        config = SelectorConfig.from_dict(entries, where=folder)
        network = load_network(folder, clip_folder, config, device=_CPU, dtype=torch.float32)
        return Trainee(network, LlamaTokenizer.as_configured(folder), entries)
    tokenizer = LlamaTokenizer.as_configured(folder, new_tokens=(SCORE_TOKEN,))
    entries |= {"architectures": [ARCHITECTURE], "out_dim": score_dim, "train_mask_decoder": True}
    network = _load_base(folder, clip_folder, SelectorConfig.from_dict(entries, where=folder))
    rows = tokenizer.token_id(SCORE_TOKEN) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if rows > network.config.llama.vocab_size:
            _add_rows(network, rows)
        network.score_head = score_head(network.config.llama.hidden_size, score_dim)
    return Trainee(network.eval(), tokenizer, entries | {"vocab_size": network.config.llama.vocab_size})


def _load_base(folder: Path, clip_folder: Path, config: SelectorConfig) -> SelectorNetwork:
    clip = read_clip_config(clip_folder, width=config.clip_width, vision_tower=config.vision_tower)
    network = empty_network(config, clip)
    parts = nn.ModuleDict({name: getattr(network, name) for name in ("projector", "llama", "lm_head")})
    own = ((name, t) for name, t in translated(iterate_tensors(folder)) if not name.startswith("clip."))
    load_strictly(parts, own, where=str(folder), device=_CPU, dtype=torch.float32)
    load_clip(network.clip, clip_folder, device=_CPU, dtype=torch.float32)
    return network


def _add_rows(network: SelectorNetwork, rows: int) -> None:
    """Makes room for new words; their rows are small random numbers."""
    for name in _WORDS:
        module = network.get_submodule(name)
        old: Tensor = module.weight.data  # type: ignore[assignment]
        new = torch.cat([old, torch.randn(rows - len(old), old.shape[1]) * _SPREAD])
        module.weight = nn.Parameter(new)
    network.llama.embed_tokens.num_embeddings = rows
    network.lm_head.out_features = rows
    network.config.llama.vocab_size = rows
