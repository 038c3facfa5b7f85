"""Token merging without weights: clusters around density peaks (DPC-KNN), as Chat-UniVi merges visual tokens.

A token is a centre where many others are near (its density) and the next denser token is far (its distance).
Equal values are told apart by the order of the tokens: the earlier one is the denser centre, and the nearer one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

NEIGHBOURS = (5, 3, 3)  # of the three levels
NOISE = 1e-6  # what random numbers in [0, 1) are multiplied with


@dataclass(frozen=True)
class MergedTokens:
    """The tokens of F images after merging.

    Attributes:
        tokens: `(F, K0 + K1 + K2, C)`, level after level, each ordered by its centres, the clearest first
        labels: of each level `(F, N)`, the cluster of each token that the level was given
    """

    tokens: Tensor
    labels: list[Tensor]


def num_clusters(rate: float, num_tokens: int) -> int:
    """How many clusters a rate means: above 1 it is their number, up to 1 their share of the tokens."""
    return max(math.ceil(rate if rate > 1 else num_tokens * rate), 1)


def level_sizes(rates: Sequence[float], num_tokens: int) -> list[int]:
    """The number of tokens before each level, and after the last one."""
    sizes = [num_tokens]
    for rate in rates:
        sizes.append(num_clusters(rate, sizes[-1]))
    return sizes


def cluster(tokens: Tensor, clusters: int, neighbours: int, noise: Tensor | None = None) -> Tensor:
    """Assigns tokens to clusters.

    Args:
        tokens: `(B, N, C)`
        clusters: how many there are to be, at most N
        neighbours: how many tokens make a density, the token itself included; of few clusters fewer do
        noise: `(B, N)` random numbers in [0, 1), which tell equal densities apart

    Returns:
        `(B, N)` the cluster of each token, from 0
    """
    if neighbours > clusters:
        neighbours = min(3, max(clusters // 2, 1))
    tokens = tokens.float()
    # the exact distances: those by matrix product have errors that decide between near ties, and vary with B
    distances = torch.cdist(tokens, tokens, compute_mode="donot_use_mm_for_euclid_dist") / tokens.shape[-1] ** 0.5
    nearest = distances.topk(min(neighbours, tokens.shape[1]), dim=-1, largest=False).values
    density = (-nearest.square().mean(-1)).exp()
    if noise is not None:
        density = density + noise.to(density) * NOISE
    denser = density[:, None, :] > density[:, :, None]
    farthest = distances.amax(dim=(1, 2))[:, None, None]
    separation = torch.where(denser, distances, farthest).amin(-1)
    centres = (density * separation).argsort(dim=-1, descending=True, stable=True)[:, :clusters]
    to_centres = distances.gather(1, centres[..., None].expand(-1, -1, tokens.shape[1]))
    labels = to_centres.argmin(1)
    own = torch.arange(clusters, device=labels.device).expand_as(centres)
    return labels.scatter(1, centres, own)


def merge(tokens: Tensor, labels: Tensor, clusters: int) -> Tensor:
    """The mean token of each cluster, `(B, clusters, C)` in float32."""
    members = torch.nn.functional.one_hot(labels, clusters).float()
    sums = members.transpose(1, 2) @ tokens.float()
    return sums / (members.sum(1)[..., None] + 1e-6)


def merge_levels(features: Tensor, rates: Sequence[float], noise: Tensor | None = None) -> MergedTokens:
    """Merges the patch features of each image, level by level, each level the tokens of the one before.

    Args:
        features: `(F, N, C)`
        rates: of each level
        noise: `(F, M)` random numbers in [0, 1), M the tokens that all levels together are given
    """
    sizes = level_sizes(rates, features.shape[1])
    noises = noise.split(sizes[:-1], dim=1) if noise is not None else [None] * len(rates)
    tokens, levels, labels = features, [], []
    for neighbours, clusters, own_noise in zip(NEIGHBOURS, sizes[1:], noises, strict=True):
        labels.append(cluster(tokens, clusters, neighbours, own_noise))
        tokens = merge(tokens, labels[-1], clusters)
        levels.append(tokens)
    return MergedTokens(torch.cat(levels, dim=1), labels)
