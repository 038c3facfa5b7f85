"""The mask losses of MLLMSeg: focal and DICE, on probabilities at the size of the image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_ALPHA = 0.25
_GAMMA = 2
_SMOOTHING = 1.0
_EPSILON = 1e-8


def focal_per_mask(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Focal loss `(n,)`, the mean over the pixels of each mask `(n, H, W)`.

    As published, its cross-entropy takes the probabilities for logits, and so applies the sigmoid a second time.
    """
    entropy = F.binary_cross_entropy_with_logits(probabilities, targets, reduction="none")
    right = probabilities * targets + (1 - probabilities) * (1 - targets)
    weight = _ALPHA * targets + (1 - _ALPHA) * (1 - targets)
    return (weight * (1 - right) ** _GAMMA * entropy).flatten(1).mean(1)


def dice_per_mask(probabilities: Tensor, targets: Tensor) -> Tensor:
    """DICE loss `(n,)` of each mask `(n, H, W)`."""
    overlap = (probabilities * targets).flatten(1).sum(1)
    total = probabilities.flatten(1).sum(1) + targets.flatten(1).sum(1)
    return 1 - (2 * overlap + _SMOOTHING) / (total + _SMOOTHING)


def soft_iou_per_mask(probabilities: Tensor, targets: Tensor) -> Tensor:
    """IoU `(n,)` of probabilities and masks `(n, H, W)`, which is logged and not learned from."""
    overlap = (probabilities * targets).flatten(1).sum(1)
    union = probabilities.flatten(1).sum(1) + targets.flatten(1).sum(1) - overlap
    return (overlap + _EPSILON) / (union + _EPSILON)


def token_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy of logits `(n, vocabulary)` and the tokens `(n,)` that come next; 0 without any."""
    if not len(labels):
        return logits.sum() * 0.0
    return F.cross_entropy(logits.float(), labels)


def mean_over_masks(values: Tensor) -> Tensor:
    """The published mean, whose divisor is never 0."""
    return values.sum() / (len(values) + _EPSILON)


def with_absent(values: Tensor, absent: int, value: float) -> Tensor:
    """Values of masks, and that of expressions without a target, whose masks and probabilities are all 0."""
    return torch.cat([values, values.new_full((absent,), value)])
