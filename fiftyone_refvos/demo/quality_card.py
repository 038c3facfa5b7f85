"""The quality that a checkpoint folder states of itself, `quality.json`, measured on a few demo videos."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fiftyone_refvos.demo.quality import DemoQuality, measure
from fiftyone_refvos.demo.world import DemoConfig

if TYPE_CHECKING:
    from fiftyone_refvos.models.segmenter import Segmenter

CARD = "quality.json"

NUM_VIDEOS = 6
"""Few, so that a test can measure them again."""


def write_card(folder: Path, segmenter: Segmenter, config: DemoConfig | None = None) -> Path:
    """Measures a checkpoint on the first test videos, and writes what it found into the checkpoint's folder.

    Args:
        folder: the checkpoint
        segmenter: loaded from it, on the CPU in float32
        config: what the videos look like
    """
    config = config or DemoConfig()
    quality = measure(segmenter, num_videos=NUM_VIDEOS, config=config)
    card = {"weights": weights_digest(folder), "config": asdict(config), "quality": stated(quality)}
    path = folder / CARD
    part = path.with_name(f".{CARD}.part")
    part.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path


def measure_card(card: dict[str, Any], segmenter: Segmenter) -> dict[str, Any]:
    """Measures again what a card states, on the videos that it names: the value of its "quality" today."""
    videos = int(card["quality"]["videos"])
    return stated(measure(segmenter, num_videos=videos, config=DemoConfig(**card["config"])))


def stated(quality: DemoQuality) -> dict[str, Any]:
    """The figures that a card holds: those of `DemoQuality.summary` without the time, which is the machine's."""
    return {name: value for name, value in quality.summary().items() if name != "cpu_seconds_per_video"}


def weights_digest(folder: Path) -> str:
    """SHA-256 of everything in a checkpoint folder that its masks depend on: all files but the card."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix in (".json", ".safetensors", ".bin", ".model") and path.name != CARD:
            digest.update(f"{path.relative_to(folder).as_posix()}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
