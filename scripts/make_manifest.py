"""Writes model_zoo/manifest.json from the registry, so that names, sizes and licences stand in one place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fiftyone_refvos.models.registry import MODELS, SELECTORS, ModelSpec, shipped_size

PACKAGES = ["torch", "torchvision", "transformers", "sam2", "sentencepiece"]


def entry(spec: ModelSpec) -> dict[str, Any]:
    """What FiftyOne knows of one model."""
    source = spec.source
    return {
        "base_name": spec.name,
        "base_filename": f"{spec.name}.txt",
        "version": None,
        "description": spec.description,
        "author": spec.author,
        "license": source.licence if source else "Apache-2.0",
        "source": f"https://huggingface.co/{source.repo_id}" if source else None,
        "size_bytes": source.size_bytes if source else shipped_size(spec.name),
        "default_deployment_config_dict": {
            "type": f"fiftyone_refvos.zoo.{'SelectorModel' if spec.name in SELECTORS else 'RefVOSModel'}",
            "config": {"name": spec.name},
        },
        "requirements": {
            "packages": PACKAGES,
            "cpu": {"support": True},
            "gpu": {"support": True},
        },
        "tags": ["segmentation", "video", "referring", "refvos", "torch"],
        "date_added": "2026-11-21 00:00:00",
    }


def manifest() -> dict[str, Any]:
    """The whole manifest; its name must not be that of the package, whose module it would replace."""
    return {"name": "refvos/zoo", "models": [entry(spec) for spec in [*MODELS.values(), *SELECTORS.values()]]}


def text() -> str:
    """The file as it is committed."""
    return json.dumps(manifest(), indent=4) + "\n"


if __name__ == "__main__":
    path = Path(__file__).parents[1] / "model_zoo" / "manifest.json"
    path.write_text(text(), encoding="utf-8")
    print(f"wrote {path.name} with {len(MODELS) + len(SELECTORS)} models")
