"""CLIP's part: which object lies in each cell of the picture, and which cells these are, told from the visual tokens.

Where a token is has to be asked for: a network that only tells what lies in a cell forgets where the cell is, and the
language model would never know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fiftyone_refvos.demo.rendered import RenderedVideo, RenderedVideos
from fiftyone_refvos.demo.world import COLORS, SHAPES, SIZES
from fiftyone_refvos.models.glus.network import POOLING, GlusNetwork
from fiftyone_refvos.training.batch import Collator
from fiftyone_refvos.training.learner import Forgetful

BACKGROUND_COVER = 0.2
"""An object is in a cell if it covers so much of it, and more than every other one."""

_PLACE_WEIGHT = 0.3
_COUNTS = (1, len(COLORS), len(SHAPES), len(SIZES))
_WEIGHTS = (1.0, 0.5, 1.0, 0.5)


class Cells(NamedTuple):
    """Pictures, and what is in their cells.

    Attributes:
        pixels: `(B, 3, S, S)` CLIP's input
        looks: `(B, tokens, POOLING, 4) int64` whether there is an object, its colour, shape and size
    """

    pixels: Tensor
    looks: Tensor


class PatchLearner(Forgetful):
    """A `Learner` of CLIP alone: each visual token tells what lies in the patches that it is the mean of.

    Args:
        glus: its CLIP is trained in place
        videos: to draw single frames of
        batch_size: pictures per pass
    """

    def __init__(self, glus: GlusNetwork, videos: RenderedVideos, *, batch_size: int) -> None:
        self._videos, self._batch_size = videos, batch_size
        self._collate = Collator(glus.clip.config.image_size, glus.config.clip_view).pixels
        self._head = nn.Linear(glus.config.clip_width, POOLING * sum(_COUNTS))
        self._place_head = nn.Linear(glus.config.clip_width, glus.tokens_per_image)
        self._glus = glus
        heads = {"clip": glus.clip, "head": self._head, "place_head": self._place_head}
        self._network = nn.ModuleDict(heads)

    @property
    def network(self) -> nn.Module:
        return self._network

    def draw(self, rng: np.random.Generator) -> Cells:
        pixels, looks = [], []
        grid = self._glus.clip.config.image_size // self._glus.clip.config.patch_size
        for _ in range(self._batch_size):
            video = self._videos.video(int(rng.integers(len(self._videos))))
            frame, labels = rolled(video, [int(rng.integers(len(video)))], rng)
            pixels.append(frame[0])
            looks.append(cell_looks(video, labels[0], grid).reshape(-1, POOLING, 4))
        return Cells(self._collate(pixels), torch.from_numpy(np.stack(looks)))

    def losses(self, batch: Cells, rng: np.random.Generator) -> Mapping[str, Tensor]:
        features = self._glus.pool(self._glus.clip_features(batch.pixels))
        logits = self._head(features).unflatten(-1, (POOLING, -1)).flatten(0, 2).split(_COUNTS, dim=-1)
        looks = batch.looks.flatten(0, 2)
        there = looks[:, 0] == 1
        places = torch.arange(features.shape[1], device=features.device).expand(len(features), -1)
        guesses = self._place_head(features).flatten(0, 1)
        losses = {"place": _PLACE_WEIGHT * F.cross_entropy(guesses, places.flatten())}
        losses["object"] = F.binary_cross_entropy_with_logits(logits[0][:, 0], looks[:, 0].float())
        for n, name in enumerate(("color", "shape", "size"), start=1):
            losses[name] = _WEIGHTS[n] * F.cross_entropy(logits[n][there], looks[there, n])
        return losses | {"total": torch.stack(list(losses.values())).sum()}

    def sample_ids(self, batch: Cells) -> Sequence[str]:
        return [f"{len(batch.pixels)} demo frames"]


def rolled(
    video: RenderedVideo, indices: Sequence[int], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Frames and labels shifted around by the same random way, so that objects are seen in every place.

    Returns:
        `(n, S, S, 3) uint8` and `(n, S, S) uint8`
    """
    shift = tuple(int(n) for n in rng.integers(video.size[0], size=2))
    pixels, labels = (np.roll(each[list(indices)], shift, (1, 2)) for each in (video.pixels, video.labels))
    return pixels, labels


def cell_looks(video: RenderedVideo, labels: NDArray[np.uint8], grid: int) -> NDArray[np.int64]:
    """What lies in the cells of a frame, row by row: `(grid * grid, 4)`, see `Cells.looks`."""
    side = len(labels) // grid
    cells = labels.reshape(grid, side, grid, side).transpose(0, 2, 1, 3).reshape(grid * grid, -1)
    cover = np.stack([(cells == n).mean(axis=1) for n in range(len(video.objects) + 1)], axis=1)
    cover[:, 0] = BACKGROUND_COVER
    table = [(0, 0, 0, 0)]
    for size, color, shape in video.objects:
        table.append((1, COLORS.index(color), SHAPES.index(shape), SIZES.index(size)))
    return np.array(table, dtype=np.int64)[cover.argmax(axis=1)]
