"""The stages of the training, in order: each starts from the network that the one before it left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fiftyone_refvos.demo.rendered import RenderedVideos
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.training.config import LossConfig, SamplingConfig, TrainingConfig
from fiftyone_refvos.training.glus_learner import GlusLearner
from fiftyone_refvos.training.learner import Learner
from scripts.glus_tiny.patches import PatchLearner
from scripts.glus_tiny.points import PointLearner
from scripts.glus_tiny.statements import StatementLearner
from scripts.glus_tiny.words import WordLearner

LearnerFactory = Callable[[GlusNetwork, LlamaTokenizer, Path], Learner[Any]]


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: of its folder
        config: of the run; the parts that train are those of its learner
        learner: made of network, tokenizer, and the folder with the rendered videos
    """

    name: str
    config: TrainingConfig
    learner: LearnerFactory


def _config(steps: int, learning_rate: float, **others: Any) -> TrainingConfig:
    return TrainingConfig(
        steps=steps,
        learning_rate=learning_rate,
        accumulation=1,
        betas=(0.9, 0.98),
        save_every=200,
        trainable="all_but_clip",
        gradient_checkpointing=False,  # it would not let the rows of a video share their beginning
        lora=None,
        **others,
    )


def _referring(name: str, config: TrainingConfig, *, static_only: bool = False) -> Stage:
    return Stage(
        name,
        config,
        lambda glus, tokenizer, videos: GlusLearner(
            glus, tokenizer, config, [RenderedVideos(videos, static_only=static_only)], [1.0]
        ),
    )


_LOSSES = LossConfig(ce=0.5, bce=2.0, dice=1.0, contrastive=0.0)

STAGES = (
    Stage(
        "patches",
        _config(6000, 1e-3, warmup_steps=200),
        lambda glus, tokenizer, videos: PatchLearner(glus, RenderedVideos(videos), batch_size=24),
    ),
    Stage(
        "points",
        _config(2000, 6e-4),
        lambda glus, tokenizer, videos: PointLearner(glus.sam, RenderedVideos(videos), num_clips=8, rows=5),
    ),
    Stage(
        "memory",
        _config(800, 6e-4),
        lambda glus, tokenizer, videos: PointLearner(
            glus.sam, RenderedVideos(videos), num_clips=4, rows=4, num_frames=4, most_objects=3
        ),
    ),
    Stage(
        "words",
        _config(600, 3e-3, warmup_steps=50),
        lambda glus, tokenizer, videos: WordLearner(glus, tokenizer, RenderedVideos(videos), batch_size=64),
    ),
    Stage(
        "looks",
        _config(3000, 1e-3, warmup_steps=200, weight_decay=0.01),
        lambda glus, tokenizer, videos: StatementLearner(
            glus, tokenizer, RenderedVideos(videos, static_only=True), batch_size=16, context_frames=0
        ),
    ),
    Stage(
        "statements",
        _config(4000, 1e-3, warmup_steps=200, weight_decay=0.01),
        lambda glus, tokenizer, videos: StatementLearner(glus, tokenizer, RenderedVideos(videos), batch_size=8),
    ),
    _referring(
        "frames",
        _config(
            4000,
            6e-4,
            batch_size=8,
            losses=_LOSSES,
            sampling=SamplingConfig(
                query_frames=1, context_frames=4, expressions=8, wording="inference", no_target=True
            ),
        ),
    ),
    _referring(
        "clips",
        _config(
            2500,
            5e-4,
            batch_size=4,
            losses=_LOSSES,
            sampling=SamplingConfig(expressions=8, wording="inference", no_target=True),
        ),
    ),
)
"""Trained in this order. The published GLUS starts from a CLIP, a SAM2 and a LLaVA that were trained before; so do
the last two stages, which are the training of GLUS itself."""
