"""Every model by name, and where its weights come from; imports no networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fiftyone_refvos.models.hub import HubSource

SHIPPED = Path(__file__).parents[1] / "checkpoints"

_WEIGHTS = ("pytorch_model*.bin", "pytorch_model.bin.index.json")  # all that GLUS publishes
_TOKENIZER = ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_UNSTATED = "not established, see the model card"

CLIP = HubSource(
    repo_id="openai/clip-vit-large-patch14",
    revision="32bd64288804d66eefd0ccbe215aa642df71cc41",
    licence="MIT for OpenAI's CLIP code, see the model card",
    size_bytes=1_711_000_000,
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


def _published_glus(name: str, repository: str, description: str, licence: str = _UNSTATED) -> ModelSpec:
    source = HubSource(
        repo_id=f"Swindl/{repository}",
        revision="main",  # its commit is pinned by the first download; no full hash could be established
        licence=licence,
        size_bytes=14_460_000_000,
        allow_patterns=("config.json", *_WEIGHTS, *_TOKENIZER),
    )
    return ModelSpec(name, source, description)


MODELS: Mapping[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        _published_glus("glus", "GLUS-A", "GLUS-A: trained on five datasets, the default of the paper's script"),
        _published_glus("glus-a", "GLUS-A", "GLUS trained on MeViS, Refer-YouTube-VOS, DAVIS17, ReVOS and LV-VIS"),
        _published_glus(
            "glus-s",
            "GLUS-S",
            "GLUS trained on MeViS and Refer-YouTube-VOS, with contrastive loss",
            licence="Apache-2.0",
        ),
        _published_glus("glus-s-partial", "GLUS-S-partial", "GLUS-S without contrastive loss"),
        ModelSpec("glus-tiny", None, "GLUS in miniature for the CPU, trained on the shapes of the demo videos alone"),
    )
}


DEFAULT_MODEL = "glus-tiny"


def shipped_size(name: str) -> int:
    """Bytes of a checkpoint that ships with the package."""
    return sum(path.stat().st_size for path in (SHIPPED / name).rglob("*") if path.is_file())
