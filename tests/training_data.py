"""Videos to train on that are held in memory, and a network of the size of glus-tiny to train."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fiftyone_refvos.models.checkpoint import read_config
from fiftyone_refvos.models.glus.config import GlusConfig
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.glus.weights import load_network
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.models.registry import SHIPPED
from fiftyone_refvos.training.batch import Batch, Clip, Collator
from fiftyone_refvos.training.config import LossConfig, SamplingConfig, TrainingConfig
from fiftyone_refvos.training.conversation import ConversationWriter
from fiftyone_refvos.training.network import TrainingNetwork
from fiftyone_refvos.training.sampling import Mixture
from fiftyone_refvos.training.sources import TrainingExpression
from fiftyone_refvos.video import Frame

TINY = SHIPPED / "glus-tiny"

DOG = TrainingExpression("0", "The dog running to the left.", ("1",))
SAME_DOG = TrainingExpression("1", "a brown dog", ("1",))
BOTH = TrainingExpression("2", "dog and ball", ("1", "2"))
NOTHING = TrainingExpression("3", "the cat", ())


@dataclass(frozen=True)
class MemoryVideo:
    """A video of random pictures whose object n covers the columns from 8n to 8n + 12, so that 1 and 2 overlap."""

    name: str
    num_frames: int = 6
    expressions: tuple[TrainingExpression, ...] = (DOG, SAME_DOG, BOTH)
    size: tuple[int, int] = (48, 64)
    target_size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return self.num_frames

    def frame_name(self, index: int) -> str:
        return f"{index:05d}"

    def read(self, indices: Iterable[int]) -> Iterator[Frame]:
        for index in indices:
            seed = [*self.name.encode(), index]
            yield np.random.default_rng(seed).integers(0, 256, (*self.size, 3), dtype=np.uint8)

    def targets(self, expressions: Sequence[TrainingExpression], index: int) -> NDArray[np.uint8]:
        sums = np.zeros((len(expressions), *(self.target_size or self.size)), dtype=np.uint8)
        for total, expression in zip(sums, expressions, strict=True):
            for number in map(int, expression.object_ids):
                total[:, 8 * number : 8 * number + 12] += 1
        return sums


@dataclass(frozen=True)
class MemorySource:
    """Videos held in memory; counts nothing, opens nothing."""

    videos: Sequence[MemoryVideo]
    name: str = "memory"
    contrastive: bool = True

    def __len__(self) -> int:
        return len(self.videos)

    def video(self, index: int) -> MemoryVideo:
        return self.videos[index]


@dataclass(frozen=True)
class Setup:
    """What a training step needs, from a configuration."""

    config: TrainingConfig = field(default_factory=TrainingConfig)

    def network(self) -> TrainingNetwork:
        return TrainingNetwork(glus(), self.config)

    def writer(self) -> ConversationWriter:
        return writer(self.config.sampling)

    def clips(self, videos: Sequence[MemoryVideo], seed: int = 0, count: int = 2) -> list[Clip]:
        mixture = Mixture([MemorySource(videos)], [1.0], self.writer())
        rng = np.random.default_rng(seed)
        return [mixture.draw(rng) for _ in range(count)]

    def batch(self, videos: Sequence[MemoryVideo], seed: int = 0, count: int = 2) -> Batch:
        return Collator(112, "center_crop")(self.clips(videos, seed, count))


def glus(**entries: Any) -> GlusNetwork:
    """The shipped tiny network, loaded anew, with the layer scale of its own checkpoint.

    Args:
        entries: of its config.json, instead of its own ones
    """
    torch.manual_seed(0)
    config = GlusConfig.from_dict(read_config(TINY) | entries, where=TINY)
    return load_network(TINY, TINY / "clip", config, device=torch.device("cpu"), dtype=torch.float32)


def writer(sampling: SamplingConfig, max_length: int = 2048) -> ConversationWriter:
    """A writer of conversations for glus-tiny, whose images are 16 tokens each."""
    return ConversationWriter(LlamaTokenizer(TINY), sampling, tokens_per_image=16, max_length=max_length)


def from_nothing(losses: LossConfig | None = None, **sampling: object) -> Setup:
    """Training of every parameter, by default on single frames without context."""
    values: dict[str, object] = {"query_frames": 1, "context_frames": 0, "wording": "inference"}
    chosen = replace(SamplingConfig(), **(values | sampling))  # type: ignore[arg-type]
    weights = losses or LossConfig(contrastive=0.0)
    return Setup(TrainingConfig(trainable="all", lora=None, sampling=chosen, losses=weights))


VIDEOS = (MemoryVideo("a"), MemoryVideo("b", size=(40, 72), expressions=(BOTH, SAME_DOG)))
PUBLISHED = Setup(TrainingConfig(sampling=SamplingConfig(query_frames=2)))
"""Training as it was published, of the videos above."""
