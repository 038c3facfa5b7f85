"""Every model by name, and where its weights come from; imports no networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fiftyone_refvos.models.hub import HubSource

SHIPPED = Path(__file__).parents[1] / "checkpoints"

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")
_TOKENIZER = ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_GIB = 1 << 30

CLIP = HubSource(
    repo_id="openai/clip-vit-large-patch14",
    revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
    licence="MIT (code of openai/CLIP; the model card states none)",
    size_bytes=int(1.6 * _GIB),
    allow_patterns=("config.json", "model.safetensors"),
)


@dataclass(frozen=True)
class ModelSpec:
    """One name of the zoo.

    Attributes:
        name: what users call it
        source: where its weights come from; None for those that ship with the package
        description: one line
    """

    name: str
    source: HubSource | None
    description: str


def _published_glus(name: str, repository: str, description: str) -> ModelSpec:
    source = HubSource(
        repo_id=f"Swindl/{repository}",
        revision="main",
        licence="not stated by its authors",
        size_bytes=int(14.4 * _GIB),
        allow_patterns=("config.json", *_WEIGHTS, *_TOKENIZER),
    )
    return ModelSpec(name, source, description)


MODELS: Mapping[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        _published_glus("glus", "GLUS-A", "GLUS-A: trained on five datasets, the default of the paper's script"),
        _published_glus("glus-a", "GLUS-A", "GLUS trained on MeViS, Refer-YouTube-VOS, DAVIS17, ReVOS and LV-VIS"),
        _published_glus("glus-s", "GLUS-S", "GLUS trained on MeViS and Refer-YouTube-VOS, with contrastive loss"),
        _published_glus("glus-s-partial", "GLUS-S-partial", "GLUS-S without contrastive loss"),
        ModelSpec("glus-tiny", None, "GLUS in miniature for the CPU; its weights are random until one is trained"),
    )
}


DEFAULT_MODEL = "glus-tiny"


def shipped_size(name: str) -> int:
    """Bytes of a checkpoint that ships with the package."""
    return sum(path.stat().st_size for path in (SHIPPED / name).rglob("*") if path.is_file())
