"""The stages of the training; each starts from the network that the one before it left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fiftyone_refvos.demo.rendered import RenderedVideos
from fiftyone_refvos.models.sa2va.network import Sa2vaNetwork
from fiftyone_refvos.training.config import TrainingConfig
from fiftyone_refvos.training.learner import Learner
from scripts.sa2va_tiny.say import StatementLearner
from scripts.sa2va_tiny.segment import TalkLearner
from scripts.sa2va_tiny.tokens import TokenLearner
from scripts.sa2va_tiny.track import TrackLearner

LearnerFactory = Callable[[Sa2vaNetwork, Path, RenderedVideos], Learner[Any]]


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: of its folder
        config: of the run; the parts that train are those of its learner
        learner: made of network, the checkpoint that it was loaded from, and the rendered videos
    """

    name: str
    config: TrainingConfig
    learner: LearnerFactory

    def make_learner(self, network: Sa2vaNetwork, checkpoint: Path, videos: Path) -> Learner[Any]:
        """What the stage trains."""
        return self.learner(network, checkpoint, RenderedVideos(videos))


def _config(steps: int, learning_rate: float, **others: Any) -> TrainingConfig:
    return TrainingConfig(
        steps=steps,
        learning_rate=learning_rate,
        accumulation=1,
        betas=(0.9, 0.98),
        warmup_steps=50,
        save_every=100,
        trainable="all",
        gradient_checkpointing=False,
        lora=None,
        **others,
    )


def _track(network: Sa2vaNetwork, _: Path, videos: RenderedVideos) -> TrackLearner:
    return TrackLearner(network.sam, videos, num_clips=4, rows=4, num_frames=4, most_objects=3)


MASKS = (Stage("track", _config(1000, 4e-4), _track),)
"""SAM2, which the published Sa2VA takes as it is."""


def _tokens(network: Sa2vaNetwork, _: Path, videos: RenderedVideos) -> TokenLearner:
    return TokenLearner(network, videos, batch_size=48)


def _say(network: Sa2vaNetwork, checkpoint: Path, videos: RenderedVideos) -> StatementLearner:
    return StatementLearner(network, checkpoint, videos, batch_size=24)


LANGUAGE = (
    Stage("tokens", _config(400, 2e-3), _tokens),
    Stage("say", _config(1500, 5e-4, weight_decay=0.01), _say),
)
"""Vision tower, projector and language model, which the published Sa2VA takes from InternVL."""

TOGETHER = (Stage("talk", _config(800, 5e-4, weight_decay=0.01), TalkLearner),)
"""The training of Sa2VA itself."""
