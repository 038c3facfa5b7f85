"""SAM2's part: the mask of what a point lies on, over several frames with memory, as SAM2 itself was trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fiftyone_refvos.demo.rendered import RenderedVideos
from fiftyone_refvos.models.sam2 import LanguageSam2
from fiftyone_refvos.sampling import memory_positions
from fiftyone_refvos.training.batch import TargetGroup
from fiftyone_refvos.training.learner import Forgetful
from fiftyone_refvos.training.losses import mask_losses
from scripts.glus_tiny.patches import rolled

FEWEST_PIXELS = 20
"""Less of an object gives no point."""

_BCE, _DICE = 2.0, 1.0


class Points(NamedTuple):
    """Clips, and points on objects of them.

    Attributes:
        frames: `(V, Q, S, S, 3) uint8`
        row_video: `(R,)` which clip a row belongs to
        points: `(R, Q, objects, 3)` x and y in [0, 1], and 1 where there is a point
        targets: `(R, Q, S, S) uint8`
    """

    frames: Tensor
    row_video: Tensor
    points: Tensor
    targets: Tensor


class PointLearner(Forgetful):
    """A `Learner` of SAM2 alone: one prompt per frame, made of SAM2's own embeddings of points.

    The prompt of several objects is the mean of theirs, so that one embedding can ask for several, as [SEG] does.

    Args:
        sam: trained in place
        videos: to draw clips of
        num_clips: per pass
        rows: prompts per clip
        num_frames: of a clip, all of which are remembered
        most_objects: of one prompt
    """

    def __init__(
        self,
        sam: LanguageSam2,
        videos: RenderedVideos,
        *,
        num_clips: int,
        rows: int,
        num_frames: int = 1,
        most_objects: int = 1,
    ) -> None:
        self._sam, self._videos = sam, videos
        self._num_clips, self._rows = num_clips, rows
        self._num_frames, self._most_objects = num_frames, most_objects

    @property
    def network(self) -> nn.Module:
        return self._sam

    def draw(self, rng: np.random.Generator) -> Points:
        frames, points, targets = [], [], []
        for _ in range(self._num_clips):
            video = self._videos.video(int(rng.integers(len(self._videos))))
            pixels, labels = rolled(video, self._choose_frames(len(video), rng), rng)
            frames.append(pixels)
            for _ in range(self._rows):
                count = int(rng.integers(1, min(self._most_objects, len(video.objects)) + 1))
                objects = 1 + rng.permutation(len(video.objects))[:count]
                points.append(self._points(labels, objects, rng))
                targets.append(np.isin(labels, objects).astype(np.uint8))
        return Points(
            frames=torch.from_numpy(np.stack(frames)),
            row_video=torch.arange(self._num_clips).repeat_interleave(self._rows),
            points=torch.from_numpy(np.stack(points)),
            targets=torch.from_numpy(np.stack(targets)),
        )

    def _choose_frames(self, length: int, rng: np.random.Generator) -> Sequence[int]:
        start = int(rng.integers(length - self._num_frames + 1))
        return range(start, start + self._num_frames)

    def _points(
        self, labels: NDArray[np.uint8], objects: NDArray[np.int_], rng: np.random.Generator
    ) -> NDArray[np.float32]:
        points = np.zeros((len(labels), self._most_objects, 3), np.float32)
        for frame, picture in enumerate(labels):
            for slot, number in enumerate(objects):
                rows, columns = np.nonzero(picture == number)
                if len(rows) >= FEWEST_PIXELS:
                    pick = int(rng.integers(len(rows)))
                    x, y = (columns[pick] + 0.5) / len(picture), (rows[pick] + 0.5) / len(picture)
                    points[frame, slot] = (x, y, 1)
        return points

    def losses(self, batch: Points, rng: np.random.Generator) -> Mapping[str, Tensor]:
        low_res = self._decode(batch, embed_points(self._sam, batch.points))
        group = TargetGroup(torch.arange(len(batch.targets), device=low_res.device), batch.targets)
        bce, dice = mask_losses(low_res, (group,), clip_targets=True)
        losses = {"bce": _BCE * bce, "dice": _DICE * dice}
        return losses | {"total": losses["bce"] + losses["dice"]}

    def _decode(self, batch: Points, prompts: Tensor) -> Tensor:
        """Mask logits `(Q, R, h, w)`."""
        sam, num_frames = self._sam, batch.frames.shape[1]
        features = sam.encode_image(sam.preprocess(batch.frames.flatten(0, 1)))
        low_res: list[Tensor] = []
        memories: list[Tensor] = []
        for frame in range(num_frames):
            maps = features.select(batch.row_video * num_frames + frame)
            chosen = memory_positions(frame, 1, sam.num_memories)
            conditioned = sam.attend(maps.top, [memories[position] for position in chosen])
            masks = sam.decode(conditioned, maps, prompts[:, frame])
            low_res.append(masks.low_res[:, 0])
            if frame + 1 < num_frames:
                memories.append(sam.remember(conditioned, masks.low_res))
        return torch.stack(low_res)

    def sample_ids(self, batch: Points) -> Sequence[str]:
        return [f"{len(batch.points)} prompts of demo clips"]


def embed_points(sam: LanguageSam2, points: Tensor) -> Tensor:
    """SAM2's embedding of points `(..., objects, 3)` on several objects: `(..., d)`.

    Where nothing can be seen it is SAM2's embedding of no point.
    """
    encoder = sam.sam2.sam_prompt_encoder
    there = points[..., 2:]
    count = there.sum(-2)
    places = (encoder.pe_layer._pe_encoding(points[..., :2]) * there).sum(-2) / count.clamp(min=1)
    label = torch.where(count > 0, encoder.point_embeddings[1].weight[0], encoder.not_a_point_embed.weight[0])
    return places + label
