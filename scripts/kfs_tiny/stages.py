"""The stages of the training; each starts from the network that the one before it left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fiftyone_refvos.demo.rendered import RenderedVideos
from fiftyone_refvos.training.config import TrainingConfig
from scripts.kfs_tiny.sources import LabelledRenderings, label_files, seen

VIDEOS, FRESH, LABELS = "videos", "fresh", "labels"
"""Folders of the recipe: rendered videos, those that glus-tiny was not trained on, and its IoU in these."""

HELD_OUT = 4
"""Videos with labels, the last ones, that are not trained on."""


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: of its folder
        config: of the run
        source: made of the folder of the recipe: what is trained on
    """

    name: str
    config: TrainingConfig
    source: Callable[[Path], LabelledRenderings]


def stages(seed: int) -> tuple[Stage, Stage]:
    """The stages in their order."""
    return (
        Stage("seen", _config(600, 1e-3, seed), on_what_is_seen),
        Stage("ious", _config(60, 5e-4, seed), on_labels),
    )


def _config(steps: int, learning_rate: float, seed: int) -> TrainingConfig:
    return TrainingConfig(
        steps=steps,
        learning_rate=learning_rate,
        batch_size=1,
        accumulation=1,
        betas=(0.9, 0.98),
        warmup_steps=min(20, steps // 10),
        save_every=50,
        validate_every=150,
        trainable="all_but_clip",
        gradient_checkpointing=False,
        lora=None,
        weight_decay=0.01,
        seed=seed,
    )


def on_what_is_seen(folder: Path) -> LabelledRenderings:
    """All videos, with what their masks alone tell."""
    videos = RenderedVideos(folder / VIDEOS)
    return LabelledRenderings(videos, range(len(videos)), seen)


def on_labels(folder: Path) -> LabelledRenderings:
    """The videos with pseudo-labels, each also mirrored."""
    videos = RenderedVideos(folder / FRESH)
    return LabelledRenderings(videos, range(len(videos) - 2 * HELD_OUT), label_files(folder / LABELS))


def held_out(folder: Path) -> LabelledRenderings:
    """The videos with pseudo-labels that are not trained on."""
    videos = RenderedVideos(folder / FRESH)
    numbers = range(len(videos) - 2 * HELD_OUT, len(videos), 2)
    return LabelledRenderings(videos, numbers, label_files(folder / LABELS))
