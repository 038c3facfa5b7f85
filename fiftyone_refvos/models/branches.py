"""Prompts that begin alike: the shared beginning runs once, and what differs goes through in one sequence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import DynamicCache


@dataclass(frozen=True)
class Branches:
    """T trees of prompts that go through the language model in one sequence after a shared beginning.

    A tree is a trunk, which is the beginning of E branches; each branch sees the shared beginning, its trunk and
    itself. All trees have branches of the same lengths.

    Attributes:
        trunks: `(T, trunk, D)` input embeddings
        leaves: `(length, D)` input embeddings of the rest of each of the E branches, which may be empty
    """

    trunks: Tensor
    leaves: list[Tensor]

    @property
    def tree_length(self) -> int:
        """Positions of one tree."""
        return self.trunks.shape[1] + sum(len(leaf) for leaf in self.leaves)

    def embeds(self) -> Tensor:
        """`(1, T * tree, D)`, tree after tree, each its trunk and then its leaves."""
        leaves = torch.cat(self.leaves).expand(len(self.trunks), -1, -1)
        return torch.cat([self.trunks, leaves], dim=1).flatten(0, 1)[None]

    def places(self) -> tuple[Tensor, Tensor, Tensor]:
        """The positions of one tree: their order in a prompt, their branch (-1: trunk), the end of each branch."""
        trunk = self.trunks.shape[1]
        order, branch, last = [torch.arange(trunk)], [torch.full((trunk,), -1)], []
        end = trunk
        for number, leaf in enumerate(self.leaves):
            order.append(torch.arange(trunk, trunk + len(leaf)))
            branch.append(torch.full((len(leaf),), number))
            end += len(leaf)
            last.append(end - 1 if len(leaf) else trunk - 1)
        return torch.cat(order), torch.cat(branch), torch.tensor(last)


def run_branches(
    language_model: nn.Module, prefix: DynamicCache, branches: Branches, *, every_layer: bool = False
) -> list[Tensor]:
    """Runs a language model over branches after their shared beginning.

    Args:
        language_model: a stock decoder without head
        prefix: keys and values of the shared beginning; left as they were
        branches: what comes after it
        every_layer: give the states before and after every layer, not only the last one

    Returns:
        Hidden states `(T, tree, D)`, the last of them after the final norm
    """
    device = branches.trunks.device
    order, branch, _ = (places.to(device) for places in branches.places())
    count, length, start = len(branches.trunks), branches.tree_length, prefix.get_seq_length()
    seen = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    seen &= (branch[None] == -1) | (branch[None] == branch[:, None])
    beginning = torch.ones(count * length, start, dtype=torch.bool, device=device)
    mask = torch.cat([beginning, torch.block_diag(*[seen] * count).bool()], dim=1)
    output = language_model(
        inputs_embeds=branches.embeds(),
        attention_mask=mask[None, None],
        position_ids=(start + order).repeat(count)[None],
        past_key_values=prefix,
        use_cache=True,
        output_hidden_states=every_layer,
    )
    prefix.crop(-count * length)
    states = output.hidden_states if every_layer else [output.last_hidden_state]
    return [state[0].unflatten(0, (count, length)) for state in states]


def split_trunk(branches: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    """What several lists of ids begin with alike, and the rest of each."""
    alike = 0
    for ids in zip(*branches, strict=False):
        if len(set(ids)) > 1:
            break
        alike += 1
    return branches[0][:alike], [ids[alike:] for ids in branches]
