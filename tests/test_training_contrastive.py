"""The token bank, what is alike in it, and the contrastive loss."""

from __future__ import annotations

import math

import pytest
import torch

from fiftyone_refvos.training.config import LossConfig
from fiftyone_refvos.training.contrastive import BankEntry, TokenBank, contrastive_loss, draw_randomly, relations

ANCHOR = BankEntry("a", "0", "05", ("1",))
BANK = [
    ANCHOR,
    BankEntry("a", "1", "05", ("1",)),  # the same object in the same frame, said otherwise: positive
    BankEntry("a", "1", "06", ("1",)),  # the same object in another frame: negative as published
    BankEntry("a", "2", "05", ("1", "2")),  # more objects: negative
    BankEntry("a", "0", "06", ("1",)),  # the same expression: neither
    BankEntry("b", "1", "05", ("1",)),  # another video: negative
]


def test_what_is_positive_and_negative() -> None:
    positives, negatives = relations([ANCHOR], BANK, same_object_negatives=True)
    assert positives.tolist() == [[False, True, False, False, False, False]]
    assert negatives.tolist() == [[False, False, True, True, False, True]]
    positives, negatives = relations([ANCHOR], BANK, same_object_negatives=False)
    assert positives.tolist() == [[False, True, False, False, False, False]]
    assert negatives.tolist() == [[False, False, False, True, False, True]]


def test_bank_keeps_the_newest_and_survives_being_stored() -> None:
    bank = TokenBank(4)
    bank.append(BANK[:3], torch.arange(3.0)[:, None].requires_grad_())
    bank.append(BANK[3:], torch.arange(3.0, 6.0)[:, None])
    assert bank.entries == BANK[2:]
    assert bank.tokens[:, 0].tolist() == [2, 3, 4, 5]
    assert not bank.tokens.requires_grad
    other = TokenBank(4)
    other.load_state_dict(bank.state_dict())
    bank.append([ANCHOR], torch.tensor([[9.0]]))
    assert other.entries == BANK[2:]
    assert other.tokens[:, 0].tolist() == [2, 3, 4, 5]


def test_state_of_a_bank_can_be_saved_without_pickling_code(tmp_path) -> None:
    bank = TokenBank(4)
    bank.append(BANK[:3], torch.rand(3, 2))
    torch.save(bank.state_dict(), tmp_path / "bank.pt")
    other = TokenBank(4)
    other.load_state_dict(torch.load(tmp_path / "bank.pt", weights_only=True))
    assert other.entries == bank.entries
    assert torch.equal(other.tokens, bank.tokens)


def test_draws_are_among_what_may_be_drawn_and_cover_it() -> None:
    torch.manual_seed(0)
    positives, negatives = torch.rand(3, 40) < 0.2, torch.rand(3, 40) < 0.4
    positives[:, 0] = True
    positive, drawn = draw_randomly(positives, negatives, 500)
    assert positives[range(3), positive].all()
    for row, allowed in zip(drawn, negatives, strict=True):
        assert set(row.tolist()) == set(allowed.nonzero()[:, 0].tolist())


def two_anchors() -> tuple[list[BankEntry], torch.Tensor, TokenBank]:
    """Two expressions of one object, whose tokens are at 60 degrees, and two negatives at right angles to both."""
    bank = TokenBank(512)
    others = [BankEntry("b", "0", "01", ("1",)), BankEntry("b", "1", "02", ("2",))]
    bank.append(others, torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 5.0]]))
    tokens = torch.tensor([[2.0, 0.0, 0.0], [0.5, math.sqrt(0.75), 0.0]], requires_grad=True)
    return [ANCHOR, BANK[1]], tokens, bank


def test_loss_of_two_anchors() -> None:
    anchors, tokens, bank = two_anchors()
    config = LossConfig(negatives=2, temperature=0.5)
    outcome = contrastive_loss(anchors, tokens, bank, config, draw_randomly)
    expected = -math.log(math.exp(1) / (math.exp(1) + 2))
    assert outcome.num_positive.tolist() == [1, 1]
    assert outcome.num_negative.tolist() == [2, 2]
    assert outcome.losses.tolist() == pytest.approx([expected, expected])
    assert outcome.mean is not None
    assert outcome.mean.item() == pytest.approx(expected)
    outcome.mean.backward()
    assert tokens.grad is not None
    assert tokens.grad.abs().sum() > 0


def test_there_is_no_loss_with_too_few_negatives_or_a_single_anchor() -> None:
    anchors, tokens, bank = two_anchors()
    assert contrastive_loss(anchors, tokens, bank, LossConfig(negatives=3), draw_randomly).mean is None
    assert len(bank.entries) == 4  # it holds the tokens all the same
    lone = contrastive_loss(anchors[:1], tokens[:1], bank, LossConfig(negatives=2), draw_randomly)
    assert lone.anchors.tolist() == [0]
    assert lone.mean is None
