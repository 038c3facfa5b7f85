"""The language model's third part: [SEG] is what SAM2 would be told by points on the objects that are meant.

SAM2 has learned to make masks of points, see `points`; so the language model need not be taught by way of masks,
which costs a multiple of it, and says less of where it was wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fiftyone_refvos.demo.rendered import RenderedVideos
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.training.batch import Batch
from fiftyone_refvos.training.config import TrainingConfig
from fiftyone_refvos.training.glus_learner import GlusLearner
from fiftyone_refvos.training.learner import Forgetful
from fiftyone_refvos.training.network import TrainingNetwork
from scripts.glus_tiny.points import embed_points
from scripts.glus_tiny.slots import UNITS, middles

_POINT_WEIGHT = 10.0


class Pointed(NamedTuple):
    """A batch of GLUS, and where the middles of the objects are that are meant.

    Attributes:
        batch: as GLUS itself is trained on
        points: `(T, Q, objects, 3)` of the rows with a target: x and y in [0, 1], and 1 where there is a point
    """

    batch: Batch
    points: Tensor


class PointingLearner(Forgetful):
    """A `Learner` of projector, language model, its head, and the projection of [SEG].

    Args:
        glus: trained in place
        tokenizer: of the same checkpoint
        config: of the training; its weight of the cross entropy counts, those of masks do not
        videos: to draw clips of
    """

    def __init__(
        self, glus: GlusNetwork, tokenizer: LlamaTokenizer, config: TrainingConfig, videos: RenderedVideos
    ) -> None:
        self._glus, self._config, self._videos = glus, config, videos
        self._learner = GlusLearner(glus, tokenizer, config, [videos], [1.0])
        glus.sam.requires_grad_(False)
        self._numbers = {videos.video(number).name: number for number in range(len(videos))}

    @property
    def network(self) -> nn.Module:
        return self._learner.network

    def draw(self, rng: np.random.Generator) -> Pointed:
        batch = self._learner.draw(rng)
        points = [self._points(batch, int(row)) for row in batch.target_rows]
        return Pointed(batch, pad_sequence(points, batch_first=True).transpose(1, 2) if points else torch.empty(0))

    def losses(self, batch: Pointed, rng: np.random.Generator) -> Mapping[str, Tensor]:
        training: TrainingNetwork = self._learner.training
        states = training.predicting(batch.batch)
        losses = {"ce": self._config.losses.ce * training.cross_entropy(batch.batch, states)}
        if len(batch.batch.target_rows):
            said = self._glus.seg_projection(states[batch.batch.target_rows])
            losses["points"] = _POINT_WEIGHT * F.mse_loss(said, embed_points(self._glus.sam, batch.points))
        return losses | {"total": torch.stack(list(losses.values())).sum()}

    def sample_ids(self, batch: Pointed) -> Sequence[str]:
        return batch.batch.sample_ids

    def _points(self, batch: Batch, number: int) -> Tensor:
        """`(objects, Q, 3)` of one row."""
        row = batch.rows[number]
        video = self._videos.video(self._numbers[row.video])
        wanted = [int(identity) for identity in row.objects]
        return torch.from_numpy(np.stack([_points_on(middles(video, int(f))[wanted]) for f in row.frames], axis=1))


def _points_on(places: NDArray[np.float32]) -> NDArray[np.float32]:
    """Points `(objects, 3)` of `middles`."""
    there = ~np.isnan(places[:, :1])
    return np.concatenate([np.nan_to_num(places) / np.float32(UNITS), there], axis=1).astype(np.float32)
