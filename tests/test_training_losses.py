"""The mask losses over rows whose targets have different sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from fiftyone_refvos.training.batch import TargetGroup
from fiftyone_refvos.training.losses import bce_per_mask, dice_per_mask, mask_losses


def test_losses_are_means_over_all_masks_at_the_size_of_their_targets() -> None:
    torch.manual_seed(0)
    low_res = torch.randn(2, 3, 16, 16)
    small = torch.randint(0, 3, (1, 2, 16, 16), dtype=torch.uint8)
    large = torch.randint(0, 2, (2, 2, 20, 31), dtype=torch.uint8)
    groups = (TargetGroup(torch.tensor([1]), small), TargetGroup(torch.tensor([0, 2]), large))
    bce, dice = mask_losses(low_res, groups, clip_targets=False)
    expected = []
    for query in range(2):
        for row, target in ((0, large[0]), (1, small[0]), (2, large[1])):
            logits = F.interpolate(low_res[query, row][None, None], target.shape[1:], mode="bilinear")[0, 0]
            wanted = target[query].float()
            probability = logits.sigmoid()
            overlap = 2 * (probability * wanted).sum() / 1000 + 1e-6
            expected.append(
                (
                    F.binary_cross_entropy_with_logits(logits, wanted).item(),
                    (1 - overlap / ((probability.sum() + wanted.sum()) / 1000 + 1e-6)).item(),
                )
            )
    assert bce.item() == pytest.approx(sum(b for b, _ in expected) / 6, rel=1e-5)
    assert dice.item() == pytest.approx(sum(d for _, d in expected) / 6, rel=1e-5)


def test_targets_are_clipped_only_where_that_is_asked_for() -> None:
    logits = torch.randn(1, 1, 4, 4)
    twice = (TargetGroup(torch.tensor([0]), torch.full((1, 1, 4, 4), 2, dtype=torch.uint8)),)
    once = (TargetGroup(torch.tensor([0]), torch.ones(1, 1, 4, 4, dtype=torch.uint8)),)
    as_published = mask_losses(logits, twice, clip_targets=False)
    assert mask_losses(logits, twice, clip_targets=True) == mask_losses(logits, once, clip_targets=False)
    assert as_published[0] < mask_losses(logits, once, clip_targets=False)[0]
    assert as_published[0].item() == pytest.approx((F.softplus(logits) - 2 * logits).mean().item(), rel=1e-5)


def test_empty_target_has_a_dice_loss_near_one() -> None:
    logits, nothing = torch.zeros(1, 8, 8), torch.zeros(1, 8, 8)
    assert dice_per_mask(logits, nothing).item() == pytest.approx(1 - 1e-6 / 0.032, abs=1e-6)
    assert bce_per_mask(logits, nothing).item() == pytest.approx(0.693147, abs=1e-5)
