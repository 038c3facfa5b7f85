"""The projector's part: visual tokens as glus-tiny's language model knows them, over squares of four patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiftyone_refvos.demo.rendered import RenderedVideos
from fiftyone_refvos.models.glus.config import GlusConfig
from fiftyone_refvos.models.glus.weights import load_network as load_glus
from fiftyone_refvos.models.sa2va.network import Sa2vaNetwork
from fiftyone_refvos.models.sa2va.pixels import internvl_frames
from fiftyone_refvos.training.learner import Forgetful
from fiftyone_refvos.video import Frame
from scripts.sa2va_tiny.start import GLUS_TINY


class TokenLearner(Forgetful):
    """A `Learner` of the projector, which is to give what glus-tiny's gives for the mean of the same four patches.

    Args:
        network: its vision tower stays as it is
        videos: to draw single frames of
        batch_size: frames per pass
    """

    def __init__(self, network: Sa2vaNetwork, videos: RenderedVideos, *, batch_size: int) -> None:
        self._mllm, self._videos, self._batch_size = network.mllm, videos, batch_size
        glus = load_glus(
            GLUS_TINY, GLUS_TINY / "clip", GlusConfig.read(GLUS_TINY), device=network.device, dtype=network.dtype
        )
        self._project = glus.projector

    @property
    def network(self) -> nn.Module:
        projector: nn.Module = self._mllm.model.multi_modal_projector
        return projector

    def draw(self, rng: np.random.Generator) -> Tensor:
        frames: list[Frame] = []
        for _ in range(self._batch_size):
            video = self._videos.video(int(rng.integers(len(self._videos))))
            frames += video.read([int(rng.integers(len(video)))])
        return internvl_frames(frames, frames[0].shape[0])

    def losses(self, batch: Tensor, rng: np.random.Generator) -> Mapping[str, Tensor]:
        model = self._mllm.model
        with torch.no_grad():
            seen = model.vision_tower(batch).last_hidden_state[:, 1:]
            side = int(seen.shape[1] ** 0.5)
            maps = seen.transpose(1, 2).unflatten(2, (side, side))
            wanted = self._project(F.avg_pool2d(maps, 2).flatten(2).transpose(1, 2))
            shuffled = model.pixel_shuffle(seen.unflatten(1, (side, side)), scale_factor=0.5).flatten(1, 2)
        loss = F.mse_loss(self.network(shuffled), wanted) / wanted.var()
        return {"tokens": loss, "total": loss}

    def sample_ids(self, batch: Tensor) -> Sequence[str]:
        return [f"{len(batch)} demo frames"]
