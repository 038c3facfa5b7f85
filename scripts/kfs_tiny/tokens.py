"""CLIP's part: tokens that survive the merging, and that tell how clearly their objects can be seen.

GLUS gives its language model the mean of four patches that lie side by side; the selector merges patches that say the
same. So CLIP learns to say in each of the four patches what their mean said: the clusters are then those four, and
the language model sees the tokens that it knows from glus-tiny, though in another order. And since IoU falls where
objects cover each other or are close, a token learns to tell that of its objects as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fiftyone_refvos.demo.rendered import RenderedVideo, RenderedVideos
from fiftyone_refvos.models.clip_tower import clip_processor, patch_features
from fiftyone_refvos.models.glus.network import POOLING
from fiftyone_refvos.models.selector.network import SelectorNetwork
from fiftyone_refvos.training.learner import Forgetful
from scripts.glus_tiny.slots import SLOTS, middles, token_objects
from scripts.kfs_tiny.sources import Seen

CLEARNESS = 2
"""Numbers that say how clearly an object can be seen."""


class Pictures(NamedTuple):
    """Single frames, and how clearly the objects of their tokens can be seen.

    Attributes:
        pixels: `(B, 3, S, S)` CLIP's input
        clear: `(B, tokens, SLOTS, CLEARNESS)` of `Sight.clearness`, NaN where there is no object
    """

    pixels: Tensor
    clear: Tensor


class TokenLearner(Forgetful):
    """A `Learner` of a selector's CLIP, which begins as that of glus-tiny.

    Args:
        network: its CLIP is trained in place
        videos: to draw single frames of
        batch_size: pictures per pass
    """

    def __init__(self, network: SelectorNetwork, videos: RenderedVideos, *, batch_size: int) -> None:
        self._selector, self._videos, self._batch_size = network, videos, batch_size
        self._tokens = (network.clip.config.image_size // network.clip.config.patch_size) ** 2 // POOLING
        self._seen = Seen()
        self._processor = clip_processor(network.clip.config.image_size, network.config.clip_view)
        self._teacher = deepcopy(network.clip).requires_grad_(False)
        self._head = nn.Linear(network.config.clip_width, SLOTS * CLEARNESS)
        self._network = nn.ModuleDict({"clip": network.clip, "head": self._head, "teacher": self._teacher})

    @property
    def network(self) -> nn.Module:
        return self._network

    def draw(self, rng: np.random.Generator) -> Pictures:
        frames: list[NDArray[np.uint8]] = []
        clear = []
        for _ in range(self._batch_size):
            video = self._videos.video(int(rng.integers(len(self._videos))))
            frame = int(rng.integers(len(video)))
            frames += video.read([frame])
            clear.append(self.clearness(video, frame))
        pixels = self._processor(images=frames, return_tensors="pt")["pixel_values"]
        return Pictures(pixels, torch.from_numpy(np.stack(clear)))

    def clearness(self, video: RenderedVideo, frame: int) -> NDArray[np.float32]:
        """How clearly the objects of every token can be seen: `(tokens, SLOTS, CLEARNESS)`, NaN for no object."""
        who, _ = token_objects(middles(video, frame), self._tokens)
        none = np.full((1, CLEARNESS), np.nan, np.float32)
        return np.concatenate([self._seen.sight(video).clearness[frame], none])[who]

    def losses(self, batch: Pictures, rng: np.random.Generator) -> Mapping[str, Tensor]:
        before = patch_features(self._teacher, batch.pixels, self._selector.config.clip_layer)
        known = _groups(before).mean(2, keepdim=True)
        found = _groups(self._selector.clip_features(batch.pixels))
        said = self._head(found.mean(2)).unflatten(-1, (SLOTS, CLEARNESS))
        there = ~batch.clear.isnan()
        losses = {
            "same": (found - known).square().mean() / known.var(),
            "clear": F.smooth_l1_loss(said[there], batch.clear[there], beta=0.1),
        }
        return losses | {"total": torch.stack(list(losses.values())).sum()}

    def sample_ids(self, batch: Pictures) -> Sequence[str]:
        return [f"{len(batch.pixels)} demo frames"]


def _groups(features: Tensor) -> Tensor:
    """`(B, tokens, POOLING, C)`: the patches that are one token of GLUS."""
    return features.unflatten(1, (-1, POOLING))
