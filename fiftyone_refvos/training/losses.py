"""The mask losses of GLUS: binary cross-entropy and DICE, each a mean over masks (paper, section 3.4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from fiftyone_refvos.models.sam2 import masks_at_size
from fiftyone_refvos.training.batch import TargetGroup

_DICE_SCALE = 1000  # of the published program; it makes the 1e-6 below count for more
_DICE_EPSILON = 1e-6


def bce_per_mask(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy `(n,)`, the mean over the pixels of each mask `(n, H, W)`; targets may be above 1."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").flatten(1).mean(1)


def dice_per_mask(logits: Tensor, targets: Tensor) -> Tensor:
    """DICE loss `(n,)` of each mask `(n, H, W)`."""
    probability, target = logits.sigmoid().flatten(1), targets.flatten(1)
    overlap = 2 * (probability / _DICE_SCALE * target).sum(1)
    total = (probability / _DICE_SCALE).sum(1) + (target / _DICE_SCALE).sum(1)
    return 1 - (overlap + _DICE_EPSILON) / (total + _DICE_EPSILON)


def mask_losses(low_res: Tensor, groups: Sequence[TargetGroup], *, clip_targets: bool) -> tuple[Tensor, Tensor]:
    """BCE and DICE, each the mean over all masks; the logits are up-sampled to the size of their targets.

    Args:
        low_res: `(Q, T, h, w)` mask logits of T rows in each query frame
        groups: the targets of the T rows
        clip_targets: whether pixels that several objects cover count as covered once
    """
    bce, dice = [], []
    for group in groups:
        logits = low_res[:, group.rows].transpose(0, 1).flatten(0, 1).float()
        targets = group.masks.flatten(0, 1).float()
        if clip_targets:
            targets = targets.clamp(max=1)
        size = (targets.shape[-2], targets.shape[-1])
        if logits.shape[-2:] != size:
            logits = masks_at_size(logits[:, None], size)
        bce.append(bce_per_mask(logits, targets))
        dice.append(dice_per_mask(logits, targets))
    return torch.cat(bce).mean(), torch.cat(dice).mean()
