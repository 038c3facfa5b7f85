"""CLIP's second part: which objects a visual token stands for, and where exactly they are.

A token that tells what covers each of its patches leaves it to the language model to find out that several tokens
show one object, and where its middle is. Here each object has one token, that of the patch in which its middle lies:
so the language model can follow it from frame to frame by one look at each.
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

FEWEST_PIXELS = 12
"""Less of an object is not to be seen."""

SLOTS = 2
"""Most objects that a token stands for, from left to right."""

UNITS = 8.0
"""Of the width and the height: places are told in eighths."""

_COUNTS = (1, len(COLORS), len(SHAPES), len(SIZES), 2)
_WEIGHTS = (1.0, 0.5, 1.0, 0.5, 1.0)
_TOKEN_WEIGHT = 0.2


class Slots(NamedTuple):
    """Pictures, and the objects that their tokens stand for.

    Attributes:
        pixels: `(B, 3, S, S)` CLIP's input
        objects: `(B, tokens, SLOTS, 4) int64` whether there is an object, its colour, shape and size
        places: `(B, tokens, SLOTS, 2) float32` its middle, x and y in eighths
    """

    pixels: Tensor
    objects: Tensor
    places: Tensor


class SlotLearner(Forgetful):
    """A `Learner` of CLIP alone: each visual token tells what objects have their middle there, and where exactly.

    Args:
        glus: its CLIP is trained in place
        videos: to draw single frames of
        batch_size: pictures per pass
    """

    def __init__(self, glus: GlusNetwork, videos: RenderedVideos, *, batch_size: int) -> None:
        self._videos, self._batch_size, self._glus = videos, batch_size, glus
        self._collate = Collator(glus.clip.config.image_size, glus.config.clip_view).pixels
        self._head = nn.Linear(glus.config.clip_width, SLOTS * sum(_COUNTS))
        self._token_head = nn.Linear(glus.config.clip_width, glus.tokens_per_image)
        self._network = nn.ModuleDict({"clip": glus.clip, "head": self._head, "token_head": self._token_head})

    @property
    def network(self) -> nn.Module:
        return self._network

    def draw(self, rng: np.random.Generator) -> Slots:
        pixels: list[NDArray[np.uint8]] = []
        objects, places = [], []
        for _ in range(self._batch_size):
            video = self._videos.video(int(rng.integers(len(self._videos))))
            frame = int(rng.integers(len(video)))
            pixels += video.read([frame])
            who, where = token_objects(middles(video, frame), self._glus.tokens_per_image)
            objects.append(looks(video)[who])
            places.append(where)
        return Slots(self._collate(pixels), torch.from_numpy(np.stack(objects)), torch.from_numpy(np.stack(places)))

    def losses(self, batch: Slots, rng: np.random.Generator) -> Mapping[str, Tensor]:
        features = self._glus.pool(self._glus.clip_features(batch.pixels))
        said = self._head(features).unflatten(-1, (SLOTS, -1)).flatten(0, 2).split(_COUNTS, dim=-1)
        objects, places = batch.objects.flatten(0, 2), batch.places.flatten(0, 2)
        there = objects[:, 0] == 1
        losses = {"object": F.binary_cross_entropy_with_logits(said[0][:, 0], objects[:, 0].float())}
        for n, name in enumerate(("color", "shape", "size"), start=1):
            losses[name] = _WEIGHTS[n] * F.cross_entropy(said[n][there], objects[there, n])
        losses["place"] = _WEIGHTS[4] * F.smooth_l1_loss(said[4][there], places[there], beta=0.2)
        tokens = torch.arange(features.shape[1], device=features.device).expand(len(features), -1)
        losses["token"] = _TOKEN_WEIGHT * F.cross_entropy(self._token_head(features).flatten(0, 1), tokens.flatten())
        return losses | {"total": torch.stack(list(losses.values())).sum()}

    def sample_ids(self, batch: Slots) -> Sequence[str]:
        return [f"{len(batch.pixels)} demo frames"]


def looks(video: RenderedVideo) -> NDArray[np.int64]:
    """`(objects + 1, 4)`: whether there is an object, its colour, shape and size; the last row stands for none."""
    table = [(1, COLORS.index(color), SHAPES.index(shape), SIZES.index(size)) for size, color, shape in video.objects]
    return np.array([*table, (0, 0, 0, 0)], dtype=np.int64)


def middles(video: RenderedVideo, frame: int) -> NDArray[np.float32]:
    """Where the objects of a frame are, `(objects, 2)`: x and y in eighths, NaN for what cannot be seen."""
    labels, count = np.asarray(video.labels[frame]), len(video.objects) + 1
    side = np.arange(len(labels))
    across, down = (
        np.bincount((labels + count * lines).ravel(), minlength=count * len(labels)).reshape(-1, count)
        for lines in (side[None], side[:, None])
    )  # (S, objects + 1) pixels of each object in each column, and in each row
    pixels = across.sum(axis=0)
    with np.errstate(invalid="ignore"):
        places = np.stack([(side + 0.5) @ across, (side + 0.5) @ down], axis=1) / pixels[:, None]
    places[pixels < FEWEST_PIXELS] = np.nan
    return (places[1:] * (UNITS / len(labels))).astype(np.float32)


def token_objects(found: NDArray[np.float32], tokens: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The objects whose middle lies in the patches of each token.

    Args:
        found: `(objects, 2)` of `middles`
        tokens: of a picture

    Returns:
        `(tokens, SLOTS)` their numbers, -1 for none, and `(tokens, SLOTS, 2)` their places in eighths
    """
    grid = int((tokens * POOLING) ** 0.5)
    numbers = np.full((tokens, SLOTS), -1, np.int64)
    places = np.zeros((tokens, SLOTS, 2), np.float32)
    filled = np.zeros(tokens, np.int64)
    for number in np.argsort(found[:, 0]):  # NaN comes last
        if np.isnan(found[number, 0]):
            break
        column, row = (int(value) for value in found[number] * (grid / UNITS))
        token = (row * grid + column) // POOLING
        if filled[token] < SLOTS:
            numbers[token, filled[token]], places[token, filled[token]] = number, found[number]
            filled[token] += 1
    return numbers, places
