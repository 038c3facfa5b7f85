"""Small things that several tests need: a glus-tiny that always finds something, and videos held in memory."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.glus.inference import GlusSegmenter
from fiftyone_refvos.models.loading import load_segmenter
from fiftyone_refvos.video import Frame


class ArrayFrames:
    """A video held in memory, which counts how often each frame is read."""

    name = "a video in memory"

    def __init__(self, frames: Iterable[Frame]) -> None:
        self.frames = list(frames)
        self.reads: list[int] = []

    @property
    def size(self) -> tuple[int, int]:
        return self.frames[0].shape[0], self.frames[0].shape[1]

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, indices: Iterable[int]) -> Iterator[Frame]:
        for index in indices:
            self.reads.append(index)
            yield self.frames[index]


def noise_video(num_frames: int, size: tuple[int, int] = (48, 64), seed: int = 0) -> ArrayFrames:
    """Random pictures, each different from the others."""
    rng = np.random.default_rng(seed)
    return ArrayFrames(rng.integers(0, 256, (num_frames, *size, 3), dtype=np.uint8))


@cache
def _glus_tiny(settings: tuple[tuple[str, Any], ...]) -> GlusSegmenter:
    segmenter = load_segmenter("glus-tiny", device="cpu", settings=dict(settings))
    assert isinstance(segmenter, GlusSegmenter)
    return segmenter


def glus_tiny(**settings: Any) -> GlusSegmenter:
    """The shipped model on the CPU; loaded once per combination of settings."""
    return _glus_tiny(tuple(sorted(settings.items())))


def finding_tiny(**settings: Any) -> GlusSegmenter:
    """The same, but it answers [SEG] whatever it sees, so that there are masks of noise."""
    segmenter = glus_tiny(**settings)
    network = copy.deepcopy(segmenter.network)
    seg = torch.tensor([segmenter.prompts.seg_id])

    def find(_: torch.nn.Module, __: object, logits: torch.Tensor) -> torch.Tensor:
        return logits.index_add(-1, seg, torch.full((*logits.shape[:-1], 1), _SURE))

    network.lm_head.register_forward_hook(find)
    return GlusSegmenter(network, segmenter.prompts.tokenizer, segmenter.settings)


_SURE = 100.0  # more than any logit

DOG = Expression("0", "the dog")
CAT = Expression("1", "the large white cat that jumps")
BIRD = Expression("2", "a bird")
