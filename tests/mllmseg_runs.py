"""Images in memory to train MLLMSeg on, and small trainings of golden checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fiftyone_refvos.masklet import BoolArray
from fiftyone_refvos.models.internvl_tokenizer import ChatTokenizer, load_tokenizer
from fiftyone_refvos.models.mllmseg.config import MllmsegInference
from fiftyone_refvos.models.mllmseg.inference import MllmsegSegmenter
from fiftyone_refvos.models.mllmseg.loading import load_mllmseg
from fiftyone_refvos.models.mllmseg.network import MllmsegNetwork
from fiftyone_refvos.training.config import LoraConfig
from fiftyone_refvos.training.mllmseg.config import MllmsegTrainingConfig
from fiftyone_refvos.training.mllmseg.conversation import ImageConversationWriter
from fiftyone_refvos.training.mllmseg.learner import MllmsegLearner
from fiftyone_refvos.training.mllmseg.sources import ImageExpression
from fiftyone_refvos.video import Frame
from tests.small_mllmseg import checkpoint_of, noise_image

CASE = "gres_internlm2"
CONFIG = MllmsegTrainingConfig(
    steps=2,
    batch_size=1,
    accumulation=1,
    warmup_steps=1,
    learning_rate=1e-3,
    gradient_checkpointing=False,
    lora=LoraConfig(rank=2, alpha=4),
)


@dataclass(frozen=True)
class MemoryImage:
    """Noise with a box for each expression that has a target."""

    name: str
    expressions: tuple[ImageExpression, ...]
    mask_size: tuple[int, int] = (30, 40)

    def read(self) -> Frame:
        return noise_image(30, 40)

    def masks(self, expressions: Sequence[ImageExpression]) -> BoolArray:
        masks = np.zeros((len(expressions), *self.mask_size), dtype=bool)
        masks[[each.has_target for each in expressions], 5:20, 10:30] = True
        return masks


@dataclass(frozen=True)
class MemorySource:
    images: tuple[MemoryImage, ...]
    name: str = "memory"

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> MemoryImage:
        return self.images[index]


DOG, BOTH = ImageExpression("0", "The Dog."), ImageExpression("1", "Both animals")
NONE = ImageExpression("2", "no SEGWAY here", has_target=False)
SOURCE = MemorySource((MemoryImage("a", (DOG, BOTH, NONE)), MemoryImage("b", (DOG,))))


def tokenizer_of(case: str) -> ChatTokenizer:
    return load_tokenizer(checkpoint_of(case), "qwen2" if "qwen2" in case else "internlm2")


def writer_of(case: str = CASE, wording: Any = "random", max_length: int = 2048) -> ImageConversationWriter:
    return ImageConversationWriter(tokenizer_of(case), wording, tokens_per_image=256, max_length=max_length)


def learner(case: str = CASE, config: MllmsegTrainingConfig = CONFIG) -> MllmsegLearner:
    segmenter = load_mllmseg(checkpoint_of(case), device="cpu", dtype="float32")
    return MllmsegLearner(segmenter.network, segmenter.prompts.tokenizer, config, [SOURCE], [1.0])


def segmenter_of(made: MllmsegLearner, case: str) -> MllmsegSegmenter:
    """The network in training, as it is run."""
    network = made.network.eval().mllmseg
    assert isinstance(network, MllmsegNetwork)
    return MllmsegSegmenter(network, tokenizer_of(case), MllmsegInference())
