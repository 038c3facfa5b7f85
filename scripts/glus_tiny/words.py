"""The projector's part: visual tokens in the space of words, as LLaVA aligned them before all else.

The projection of a visual token scores high with the embeddings of the words that describe it: colours, shapes and
sizes of what lies there, and the names of the places. A language model that starts from nothing then finds what a
word means by comparing, and learns statements about videos many times as fast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from fiftyone_refvos.demo.rendered import RenderedVideos
from fiftyone_refvos.demo.world import COLORS, SHAPES, SIZES
from fiftyone_refvos.models.glus.network import POOLING, GlusNetwork
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.training.batch import Collator
from fiftyone_refvos.training.learner import Forgetful
from scripts.glus_tiny.patches import cell_looks
from scripts.glus_tiny.statements import COLUMNS, ROWS

WORDS = (*COLORS, *SHAPES, *SIZES, *COLUMNS, *ROWS)

EMBEDDING_SCALE = 0.09
"""Standard deviation of the first embeddings: that of unit vectors in 128 dimensions."""

_FIRST_COLOR, _FIRST_SHAPE, _FIRST_SIZE, _FIRST_COLUMN, _FIRST_ROW = np.cumsum(
    [0, len(COLORS), len(SHAPES), len(SIZES), len(COLUMNS)]
)


class Described(NamedTuple):
    """Pictures, and the words for their visual tokens.

    Attributes:
        pixels: `(B, 3, S, S)` CLIP's input
        words: `(B, tokens, words) float32` 1 for each word that describes a token
    """

    pixels: Tensor
    words: Tensor


class WordLearner(Forgetful):
    """A `Learner` of the projector and the embeddings of words; CLIP stays as it is.

    Args:
        glus: trained in place; its embeddings are drawn anew first
        tokenizer: in which each of the words is one piece
        videos: to draw single frames of
        batch_size: pictures per pass
    """

    def __init__(
        self, glus: GlusNetwork, tokenizer: LlamaTokenizer, videos: RenderedVideos, *, batch_size: int
    ) -> None:
        self._glus, self._videos, self._batch_size = glus, videos, batch_size
        self._collate = Collator(glus.clip.config.image_size, glus.config.clip_view).pixels
        self._ids = torch.tensor([tokenizer.encode(word)[-1] for word in WORDS])
        embeddings = glus.llama.embed_tokens
        nn.init.normal_(embeddings.weight, std=EMBEDDING_SCALE)
        self._head = _Calibration(len(WORDS))
        self._network = nn.ModuleDict({"projector": glus.projector, "embeddings": embeddings, "head": self._head})

    @property
    def network(self) -> nn.Module:
        return self._network

    def draw(self, rng: np.random.Generator) -> Described:
        frames: list[NDArray[np.uint8]] = []
        words: list[NDArray[np.float32]] = []
        grid = self._glus.clip.config.image_size // self._glus.clip.config.patch_size
        for _ in range(self._batch_size):
            video = self._videos.video(int(rng.integers(len(self._videos))))
            frame = int(rng.integers(len(video)))
            frames += video.read([frame])
            words.append(describe(cell_looks(video, video.labels[frame], grid), grid))
        return Described(self._collate(frames), torch.from_numpy(np.stack(words)))

    def losses(self, batch: Described, rng: np.random.Generator) -> Mapping[str, Tensor]:
        with torch.no_grad():
            features = self._glus.pool(self._glus.clip_features(batch.pixels))
        embeddings = self._glus.llama.embed_tokens(self._ids.to(features.device))
        logits = self._head(self._glus.projector(features) @ embeddings.T)
        loss = F.binary_cross_entropy_with_logits(logits, batch.words)
        return {"words": loss, "total": loss}

    def sample_ids(self, batch: Described) -> Sequence[str]:
        return [f"{len(batch.pixels)} demo frames"]


class _Calibration(nn.Module):
    """Scale and offsets that turn similarities into logits; most words describe few tokens."""

    def __init__(self, num_words: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(math.e))
        self.offsets = nn.Parameter(torch.full((num_words,), -2.0))

    def forward(self, similarities: Tensor) -> Tensor:
        return similarities * self.scale + self.offsets


def describe(looks: NDArray[np.int64], grid: int) -> NDArray[np.float32]:
    """Which words describe the visual tokens of a frame: `(tokens, words)`.

    Args:
        looks: `(grid * grid, 4)` of its cells, see `patches.Cells`
        grid: cells in a row
    """
    words = np.zeros((len(looks) // POOLING, len(WORDS)), np.float32)
    for cell in np.flatnonzero(looks[:, 0]):
        row, column = divmod(int(cell), grid)
        _, color, shape, size = looks[cell]
        said = (_FIRST_COLOR + color, _FIRST_SHAPE + shape, _FIRST_SIZE + size)
        places = (_FIRST_COLUMN + column * len(COLUMNS) // grid, _FIRST_ROW + row * len(ROWS) // grid)
        words[cell // POOLING, [*said, *places]] = 1
    return words
