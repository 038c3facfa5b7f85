"""SAM2's part: objects are pointed at in the first frames of a clip and followed in the others, as SAM2 was trained.

glus-tiny never remembers an object as SAM2 does: its memories have no place in time, and its frames are all prompted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fiftyone_refvos.models.sam2 import masks_at_size
from fiftyone_refvos.models.sam2_tracking import TrackBank, TrackedMasks, TrackingSam2
from fiftyone_refvos.training.losses import bce_per_mask, dice_per_mask
from scripts.glus_tiny.points import PointLearner, Points, embed_points

_BCE, _DICE, _IOU, _THERE = 2.0, 1.0, 0.5, 0.3
_MOST_STEP = 3


class TrackLearner(PointLearner):
    """A `Learner` of SAM2's memory and mask decoder; its image encoder stays as it is.

    Args: as of `PointLearner`
    """

    _sam: TrackingSam2

    @property
    def network(self) -> nn.Module:
        for parameter in self._sam.sam2.image_encoder.parameters():
            parameter.requires_grad_(False)
        return self._sam

    def _choose_frames(self, length: int, rng: np.random.Generator) -> Sequence[int]:
        step = int(rng.integers(1, _MOST_STEP + 1))
        span = step * (self._num_frames - 1) + 1
        start = int(rng.integers(length - span + 1))
        return range(start, start + span, step)

    def losses(self, batch: Points, rng: np.random.Generator) -> Mapping[str, Tensor]:
        sam, num_frames = self._sam, batch.frames.shape[1]
        with torch.no_grad():
            pixels = sam.preprocess(batch.frames.flatten(0, 1))
            features = sam.sam2.image_encoder(pixels)["backbone_fpn"]
        prompts, bank = embed_points(sam, batch.points), TrackBank(num_frames)
        prompted = int(rng.integers(1, 3))
        found: list[Mapping[str, Tensor]] = []
        for frame in range(num_frames):
            rows = batch.row_video * num_frames + frame
            maps = sam.levels_for([level[rows] for level in features], sam.language_decoder)
            if frame < prompted:
                masks = sam.decode_alone(sam.language_decoder, maps, prompts[:, frame])
            else:
                masks = sam.decode_recalled(sam.original_decoder, sam.recall(maps, frame, bank), maps)
            if frame + 1 < num_frames:
                sam.memorise(bank, frame, maps, masks, prompted=frame < prompted)
            found.append(tracked_losses(masks, batch.targets[:, frame].float()))
        losses = {name: torch.stack([each[name] for each in found]).mean() for name in found[0]}
        return losses | {"total": torch.stack(list(losses.values())).sum()}


def tracked_losses(masks: TrackedMasks, targets: Tensor) -> dict[str, Tensor]:
    """Losses of all alternatives of B masks, of their predicted IoU, and of the object being there.

    Args:
        masks: with all alternatives of the decoder
        targets: `(B, S, S)` 0 or 1
    """
    batch, count = masks.alternatives.shape[:2]
    logits = masks_at_size(masks.alternatives.flatten(0, 1)[:, None], (targets.shape[1], targets.shape[2]))
    wanted = targets[:, None].expand(-1, count, -1, -1).flatten(0, 1)
    with torch.no_grad():
        inside = logits > 0
        both, either = (inside & (wanted > 0)).sum((1, 2)), (inside | (wanted > 0)).sum((1, 2))
        iou = torch.where(either > 0, both / either.clamp(min=1), 1.0).view(batch, count)
        there = (targets.flatten(1).amax(1) > 0).float()
    return {
        "bce": _BCE * bce_per_mask(logits, wanted).mean(),
        "dice": _DICE * dice_per_mask(logits, wanted).mean(),
        "iou": _IOU * F.mse_loss(masks.ious, iou),
        "there": _THERE * F.binary_cross_entropy_with_logits(masks.object_score, there),
    }
