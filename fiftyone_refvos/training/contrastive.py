"""The object contrastive loss: [SEG] tokens of one object are alike, those of different ones are not."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from fiftyone_refvos.training.config import LossConfig

# From positives `(A, N)` and negatives `(A, N)` in the bank, and a count: the index of a positive `(A,)` and of
# that many negatives `(A, count)` for each of A anchors.
Draw = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


class BankEntry(NamedTuple):
    """Whose token it is.

    Attributes:
        video: unique over all sources
        expression: id in its video
        frame: name in its video
        objects: sorted ids of the objects that are meant
    """

    video: str
    expression: str
    frame: str
    objects: tuple[str, ...]


class TokenBank:
    """The newest tokens of all videos, oldest first.

    Args:
        size: most tokens that are kept
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.entries: list[BankEntry] = []
        self.tokens = torch.empty(0, 0)

    def append(self, entries: Sequence[BankEntry], tokens: Tensor) -> None:
        """Adds tokens `(n, d)`, without their gradient, and drops the oldest beyond the size."""
        old = self.tokens.to(tokens.device, torch.float32)
        new = tokens.detach().float()
        self.tokens = torch.cat([old, new] if self.entries else [new])[-self.size :]
        self.entries = [*self.entries, *entries][-self.size :]

    def state_dict(self) -> dict[str, Any]:
        """What a run needs to go on: a tensor, and plain lists."""
        return {
            "tokens": self.tokens.clone(),
            "entries": [[*entry[:3], list(entry.objects)] for entry in self.entries],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""
        self.tokens = state["tokens"].clone()
        self.entries = [BankEntry(v, e, f, tuple(objects)) for v, e, f, objects in state["entries"]]


@dataclass(frozen=True)
class ContrastiveOutcome:
    """The loss of A anchors.

    Attributes:
        num_positive, num_negative: `(A,)` bank entries that each could draw
        anchors: those that have a loss, ascending
        losses: theirs
        mean: over them; None where fewer than two have one, as in the published program
    """

    num_positive: Tensor
    num_negative: Tensor
    anchors: Tensor
    losses: Tensor
    mean: Tensor | None

    def detach(self) -> ContrastiveOutcome:
        """The same without gradient."""
        return replace(self, losses=self.losses.detach(), mean=None if self.mean is None else self.mean.detach())


def contrastive_loss(
    anchors: Sequence[BankEntry], tokens: Tensor, bank: TokenBank, config: LossConfig, draw: Draw
) -> ContrastiveOutcome:
    """Adds the anchors to the bank, and compares each with one positive and many negatives from it.

    Args:
        anchors: whose the tokens are
        tokens: `(A, d)`, through which the gradient flows
        bank: of the run
        config: temperature, and what is a negative
        draw: which of the positives and negatives are taken
    """
    bank.append(anchors, tokens)
    positives, negatives = relations(anchors, bank.entries, same_object_negatives=config.same_object_negatives)
    num_positive, num_negative = positives.sum(1), negatives.sum(1)
    eligible = ((num_positive > 0) & (num_negative >= config.negatives)).nonzero()[:, 0]
    if not len(eligible):
        return ContrastiveOutcome(num_positive, num_negative, eligible, torch.empty(0), None)
    positive, drawn = draw(positives[eligible], negatives[eligible], config.negatives)
    compared = torch.cat([positive[:, None], drawn], dim=1).to(tokens.device)
    chosen = tokens[eligible.to(tokens.device)].float()
    cosines = F.normalize(chosen, dim=1) @ F.normalize(bank.tokens, dim=1).T
    logits = cosines.gather(1, compared) / config.temperature
    losses = logits.logsumexp(1) - logits[:, 0]
    return ContrastiveOutcome(
        num_positive, num_negative, eligible, losses, losses.mean() if len(eligible) >= 2 else None
    )


def relations(
    anchors: Sequence[BankEntry], bank: Sequence[BankEntry], *, same_object_negatives: bool
) -> tuple[Tensor, Tensor]:
    """Which of N bank entries are positives and which are negatives of each of A anchors, `(A, N) bool` on the CPU.

    A positive is the same objects in the same frame, said by another expression; of the rest, everything is a
    negative but what the same expression says of the same video.
    """
    video = _equal([a.video for a in anchors], [b.video for b in bank])
    expression = video & _equal([a.expression for a in anchors], [b.expression for b in bank])
    frame = video & _equal([a.frame for a in anchors], [b.frame for b in bank])
    objects = video & _equal([a.objects for a in anchors], [b.objects for b in bank])
    positives = frame & objects & ~expression
    negatives = ~positives & ~expression
    return positives, negatives if same_object_negatives else negatives & ~objects


def draw_randomly(positives: Tensor, negatives: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """One positive and `count` negatives with replacement per anchor, by torch's generator of the CPU."""
    positive = torch.multinomial(positives.float(), 1)[:, 0]
    return positive, torch.multinomial(negatives.float(), count, replacement=True)


def _equal(left: Sequence[Hashable], right: Sequence[Hashable]) -> Tensor:
    numbers: dict[Hashable, int] = {}
    first, second = (
        torch.tensor([numbers.setdefault(value, len(numbers)) for value in side]) for side in (left, right)
    )
    return first[:, None] == second
