"""What adapter folders say of themselves: which model they change. No weights, no torch: forms list them.

adapter.json                 the base, fingerprints of its shapes and weights, names of the trained parts, facts
adapter_config.json          peft's own files with the low-rank updates of the language model, which are
adapter_model.safetensors      missing where a network was trained without LoRA
trained_parts.safetensors    what was trained as a whole, under its published names
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DESCRIPTION = "adapter.json"
LORA_CONFIG = "adapter_config.json"


class AdapterError(ValueError):
    """A folder is no adapter, or one of another model; the message names the folder."""


@dataclass(frozen=True)
class Adapter:
    """What an adapter folder says of itself.

    Attributes:
        folder: where it is
        base: the name of the model that it was trained on
        shapes: fingerprint of the names and shapes of that model's tensors
        weights: fingerprint of its weights, which tells checkpoints of the same name and sizes apart
        parts: published names of the tensors that were trained as a whole
        digest: of all trained tensors, which tells two trainings apart
        run_settings: how the network is to be run because it was trained so, by name
        facts: of the training, to be shown: steps, J&F of the validation
    """

    folder: Path
    base: str
    shapes: str
    weights: str
    parts: tuple[str, ...]
    digest: str
    run_settings: Mapping[str, Any]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_lora(self) -> bool:
        """Whether there are low-rank updates, too."""
        return (self.folder / LORA_CONFIG).is_file()

    def check_base(self, name: str) -> None:
        """Raises an AdapterError for a model of another name than that which was trained."""
        if name != self.base:
            raise AdapterError(
                f"the adapter in {self.folder} was trained on {self.base!r}, and cannot change {name!r}: load it "
                f"with the model {self.base!r}"
            )


def read_adapter(folder: Path) -> Adapter:
    """Reads what an adapter folder says of itself, without its weights.

    Raises:
        AdapterError: if it is no adapter folder
    """
    path = folder / DESCRIPTION
    if not path.is_file():
        found = "is no folder" if not folder.is_dir() else f"has no {DESCRIPTION}"
        inner = folder / "adapter"
        hint = inner if (inner / DESCRIPTION).is_file() else "the folder that a training has written"
        raise AdapterError(f"{folder} is no adapter: it {found}; pass {hint}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Adapter(folder, **{**values, "parts": tuple(values["parts"])})
    except (UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{path} is damaged ({error!r}): train again, or restore the file") from error


def list_adapters(folder: Path) -> list[Adapter]:
    """The adapters in a folder: itself, those in it, and those of the trainings in it; damaged ones are left out."""
    patterns = (DESCRIPTION, f"*/{DESCRIPTION}", f"*/*/{DESCRIPTION}")
    found = []
    for path in (path for pattern in patterns for path in sorted(folder.glob(pattern))):
        try:
            found.append(read_adapter(path.parent))
        except AdapterError:
            continue
    return [adapter for adapter in found if not adapter.folder.name.startswith(".")]
