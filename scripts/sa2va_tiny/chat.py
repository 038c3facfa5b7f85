"""The wording of Sa2VA's chats in training: as in inference, with answers of few words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fiftyone_refvos.models.sa2va.families import IMAGE, InternVl, Visual, region_text
from fiftyone_refvos.models.sa2va.network import Sa2vaNetwork
from fiftyone_refvos.models.sa2va.tokens import Sa2vaTokenizer

MOST_FRAMES = 5
"""As many as the published programs look at."""

END = "<|im_end|>"
_CONSECUTIVE = 0.4
"""How often the frames of a clip follow each other, as the first ones of a video do; else they are spread over it."""


class Chat:
    """Prompts in the template of a checkpoint.

    Args:
        network: with words and template
        tokenizer: of the same checkpoint

    Attributes:
        grid: visual tokens of a frame in a row
        tokens_per_frame: all of them
    """

    def __init__(self, network: Sa2vaNetwork, tokenizer: Sa2vaTokenizer) -> None:
        self._network = network
        self._family = InternVl(network, tokenizer)
        patches = network.config.tiling.side / network.config.mllm.vision_config.patch_size[0]
        self.grid = round(patches * network.config.mllm.downsample_ratio)
        self.tokens_per_frame = self.grid**2

    def beginning(self, images: Tensor, question: str) -> Tensor:
        """Embedded prompts `(B, P, D)` that ask one question about the visual tokens `(B, N, tokens, D)` of clips."""
        ids = torch.tensor(self.ids(question, images.shape[1]), device=images.device)
        embeds = self._network.embed_words(ids).expand(len(images), -1, -1)
        places = ids == self._family.image_id
        return embeds.masked_scatter(places[None, :, None], images.to(embeds))

    def ids(self, question: str, num_frames: int, regions: str = "") -> list[int]:
        """Ids of a prompt about some frames, whose visual tokens are `<IMG_CONTEXT>`."""
        asked = question if IMAGE in question else f"{IMAGE}\n{question}"
        nothing = torch.zeros(0)
        return self._family.encode(asked, Visual(nothing, (self.tokens_per_frame,) * num_frames, regions=regions))

    def region_text(self, count: int) -> str:
        """What comes after an image in which one region of some visual tokens is marked."""
        return region_text([count])

    def cut(self, ids: Sequence[int]) -> int:
        """Where the part that all questions about the same frames share ends."""
        return self._family.cut(ids)

    @property
    def image_id(self) -> int:
        """Stands for one visual token."""
        return self._family.image_id


def draw_frames(length: int, count: int, rng: np.random.Generator) -> list[int]:
    """Frames of a clip in their order."""
    if rng.random() < _CONSECUTIVE:
        first = int(rng.integers(length - count + 1))
        return list(range(first, first + count))
    return sorted(int(each) for each in rng.permutation(length)[:count])
