"""The stages of the training; each starts from the network that the one before it left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fiftyone_refvos.demo.rendered import RenderedVideos
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.training.config import LossConfig, SamplingConfig, TrainingConfig
from fiftyone_refvos.training.glus_learner import GlusLearner
from fiftyone_refvos.training.learner import Learner
from scripts.glus_tiny.asking import AskingLearner
from scripts.glus_tiny.motion import MotionLearner
from scripts.glus_tiny.network import CONTEXT_FRAMES, deeper
from scripts.glus_tiny.patches import PatchLearner
from scripts.glus_tiny.points import PointLearner
from scripts.glus_tiny.slots import SlotLearner
from scripts.glus_tiny.statements import StatementLearner
from scripts.glus_tiny.traces import TraceLearner
from scripts.glus_tiny.words import WordLearner

LearnerFactory = Callable[[GlusNetwork, LlamaTokenizer, Path], Learner[Any]]


def _as_it_is(glus: GlusNetwork) -> GlusNetwork:
    return glus


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        name: of its folder
        config: of the run; the parts that train are those of its learner
        learner: made of network, tokenizer, and the folder with the rendered videos; None trains GLUS itself
        prepare: what is done to the network before
    """

    name: str
    config: TrainingConfig
    learner: LearnerFactory | None = None
    prepare: Callable[[GlusNetwork], GlusNetwork] = _as_it_is

    def make_learner(self, glus: GlusNetwork, tokenizer: LlamaTokenizer, videos: Path) -> Learner[Any]:
        """What the stage trains."""
        if self.learner is not None:
            return self.learner(glus, tokenizer, videos)
        return GlusLearner(glus, tokenizer, self.config, [RenderedVideos(videos)], [1.0])


def _config(steps: int, learning_rate: float, **others: Any) -> TrainingConfig:
    return TrainingConfig(
        steps=steps,
        learning_rate=learning_rate,
        accumulation=1,
        betas=(0.9, 0.98),
        save_every=500,
        validate_every=250,
        trainable="all_but_clip",
        gradient_checkpointing=False,  # it would not let the rows of a video share their beginning
        lora=None,
        **others,
    )


def _patches(batch_size: int, glus: GlusNetwork, _: LlamaTokenizer, videos: Path) -> PatchLearner:
    return PatchLearner(glus, RenderedVideos(videos), batch_size=batch_size)


def _points(sizes: dict[str, int], glus: GlusNetwork, _: LlamaTokenizer, videos: Path) -> PointLearner:
    return PointLearner(glus.sam, RenderedVideos(videos), **sizes)


def _words(batch_size: int, glus: GlusNetwork, tokenizer: LlamaTokenizer, videos: Path) -> WordLearner:
    return WordLearner(glus, tokenizer, RenderedVideos(videos), batch_size=batch_size)


def _looks(batch_size: int, glus: GlusNetwork, tokenizer: LlamaTokenizer, videos: Path) -> StatementLearner:
    seen_in_one_frame = RenderedVideos(videos, keep=lambda expression: expression.static)
    return StatementLearner(glus, tokenizer, seen_in_one_frame, batch_size=batch_size, context_frames=0)


def _statements(batch_size: int, glus: GlusNetwork, tokenizer: LlamaTokenizer, videos: Path) -> StatementLearner:
    return StatementLearner(glus, tokenizer, RenderedVideos(videos), batch_size=batch_size)


def _slots(batch_size: int, glus: GlusNetwork, _: LlamaTokenizer, videos: Path) -> SlotLearner:
    return SlotLearner(glus, RenderedVideos(videos), batch_size=batch_size)


def _traces(batch_size: int, glus: GlusNetwork, tokenizer: LlamaTokenizer, videos: Path) -> TraceLearner:
    return TraceLearner(glus, tokenizer, RenderedVideos(videos), batch_size=batch_size, context_frames=CONTEXT_FRAMES)


def _motion(sizes: dict[str, int], glus: GlusNetwork, tokenizer: LlamaTokenizer, videos: Path) -> MotionLearner:
    return MotionLearner(glus, tokenizer, RenderedVideos(videos), context_frames=CONTEXT_FRAMES, **sizes)


def _asking(sizes: dict[str, int], glus: GlusNetwork, tokenizer: LlamaTokenizer, videos: Path) -> AskingLearner:
    return AskingLearner(glus, tokenizer, RenderedVideos(videos), context_frames=CONTEXT_FRAMES, **sizes)


LANGUAGE = (
    Stage("patches", _config(3500, 1e-3, warmup_steps=200), partial(_patches, 96)),
    Stage("words", _config(500, 3e-3, warmup_steps=50), partial(_words, 64)),
    Stage("looks", _config(2500, 1e-3, warmup_steps=200, weight_decay=0.01), partial(_looks, 48)),
    Stage("statements", _config(3500, 1e-3, warmup_steps=200, weight_decay=0.01), partial(_statements, 32)),
    Stage("slots", _config(1500, 1e-3, warmup_steps=100), partial(_slots, 64)),
    Stage("traces", _config(800, 1e-3, warmup_steps=50, weight_decay=0.01), partial(_traces, 16), deeper),
    Stage(
        "motion",
        _config(4500, 1e-3, warmup_steps=100, weight_decay=0.01),
        partial(_motion, {"batch_size": 8, "statements": 12}),
    ),
    Stage("sharper", _config(4000, 7e-4, warmup_steps=100), partial(_slots, 128)),
)
"""CLIP, projector and language model, which the published GLUS takes from a LLaVA."""

MASKS = (
    Stage("points", _config(1800, 6e-4), partial(_points, {"num_clips": 16, "rows": 6})),
    Stage(
        "memory",
        _config(900, 6e-4),
        partial(_points, {"num_clips": 8, "rows": 4, "num_frames": 4, "most_objects": 3}),
    ),
)
"""SAM2, which the published GLUS takes as it is."""

_LOSSES = LossConfig(ce=0.5, bce=2.0, dice=1.0, contrastive=0.0)
_SAMPLING = SamplingConfig(expressions=8, wording="inference", no_target=True)
GLUS = (
    Stage(
        "asking",
        _config(5350, 1e-3, warmup_steps=200, weight_decay=0.01),
        partial(_asking, {"batch_size": 32, "statements": 8}),
    ),
    Stage("clips", _config(1700, 5e-4, batch_size=16, losses=_LOSSES, sampling=_SAMPLING)),
)
"""The training of GLUS itself: [SEG] as the embedding of points first, then masks of clips with memory."""
