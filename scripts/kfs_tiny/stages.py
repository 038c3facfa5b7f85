"""The stages of the training; each starts from the network that the one before it left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fiftyone_refvos.demo.rendered import RenderedVideos
from fiftyone_refvos.models.selector.base import Trainee
from fiftyone_refvos.training.config import TrainingConfig
from fiftyone_refvos.training.learner import Learner
from scripts.kfs_tiny.learner import ScoresLearner
from scripts.kfs_tiny.sources import LabelledRenderings, Seen, label_files
from scripts.kfs_tiny.tokens import TokenLearner

VIDEOS, FRESH, LABELS = "videos", "fresh", "labels"
"""Folders of the recipe: rendered videos, those that glus-tiny was not trained on, and its IoU in these."""

HELD_OUT = 24
"""Videos with labels, the first ones, that are not trained on."""


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: of its folder
        config: of the run
        learner: made of the network and the folder of the recipe
        ranks: whether the network can rank frames by then, which is followed on videos that are held out
    """

    name: str
    config: TrainingConfig
    learner: Callable[[Trainee, Path], Learner[Any]]
    ranks: bool = True


def stages(seed: int) -> tuple[Stage, ...]:
    """The stages in their order; that of CLIP is the same for all seeds."""
    return (
        Stage("tokens", _config(3000, 1e-3, 0, warm_up=50), tokens, ranks=False),
        Stage(f"seen-{seed}", _config(4500, 5e-4, seed), on_what_is_seen),
        Stage(f"ious-{seed}", _config(1200, 2e-4, seed), on_labels),
    )


def _config(steps: int, learning_rate: float, seed: int, *, warm_up: int = 30) -> TrainingConfig:
    return TrainingConfig(
        steps=steps,
        learning_rate=learning_rate,
        batch_size=1,
        accumulation=1,
        betas=(0.9, 0.98),
        warmup_steps=warm_up,
        save_every=50,
        validate_every=300,
        trainable="all_but_clip",
        gradient_checkpointing=False,
        lora=None,
        weight_decay=0.01,
        seed=seed,
    )


def tokens(trainee: Trainee, folder: Path) -> TokenLearner:
    """CLIP, on single frames of all videos."""
    return TokenLearner(trainee.network, RenderedVideos(folder / VIDEOS), batch_size=48)


def on_what_is_seen(trainee: Trainee, folder: Path) -> ScoresLearner:
    """All else, on all videos, with what their masks alone tell."""
    videos = RenderedVideos(folder / VIDEOS)
    source = LabelledRenderings(videos, range(len(videos)), Seen())
    return ScoresLearner(trainee.network, trainee.tokenizer, source)


def on_labels(trainee: Trainee, folder: Path) -> ScoresLearner:
    """The same, on the videos with pseudo-labels, each also mirrored."""
    videos = RenderedVideos(folder / FRESH)
    numbers = range(2 * HELD_OUT, len(videos))
    source = LabelledRenderings(videos, numbers, label_files(folder / LABELS))
    return ScoresLearner(trainee.network, trainee.tokenizer, source)


def check_labelled(num_videos: int) -> None:
    """Raises a ValueError for so few labelled videos that none is left to train on."""
    if num_videos <= HELD_OUT:
        raise ValueError(f"{num_videos} labelled videos are too few: {HELD_OUT} of them are held out")


def held_out(folder: Path) -> LabelledRenderings:
    """The videos with pseudo-labels that are not trained on."""
    videos = RenderedVideos(folder / FRESH)
    return LabelledRenderings(videos, range(0, 2 * HELD_OUT, 2), label_files(folder / LABELS))
