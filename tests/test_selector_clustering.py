"""Token merging: which tokens form a cluster, how ties fall, and what the levels give."""

from __future__ import annotations

import pytest
import torch

from fiftyone_refvos.models.selector.clustering import cluster, level_sizes, merge, merge_levels, num_clusters


def test_tokens_join_the_nearest_of_the_densest_centres() -> None:
    tokens = torch.tensor([[[0.0, 0], [5, 5], [0.1, 0], [0, 0.1], [5.1, 5], [0.1, 0.1]]])
    labels = cluster(tokens, 2, 2)
    assert labels[0, [0, 2, 3, 5]].unique().numel() == 1
    assert labels[0, 1] == labels[0, 4] != labels[0, 0]
    merged = merge(tokens, labels, 2)
    torch.testing.assert_close(merged[0, labels[0, 0]], torch.tensor([0.05, 0.05]), atol=1e-5, rtol=0)
    torch.testing.assert_close(merged[0, labels[0, 1]], torch.tensor([5.05, 5.0]), atol=1e-5, rtol=0)


def test_a_rate_is_a_number_above_one_and_a_share_up_to_it() -> None:
    assert [num_clusters(rate, 20) for rate in (64, 1.5, 1.0, 0.25, 0.06, 0.01)] == [64, 2, 20, 5, 2, 1]
    assert level_sizes((64, 32, 16), 256) == [256, 64, 32, 16]


def test_images_are_merged_each_on_its_own() -> None:
    features = torch.randn(3, 64, 8, generator=torch.Generator().manual_seed(0))
    together = merge_levels(features, (16, 8, 4))
    assert together.tokens.shape == (3, 28, 8)
    assert [tuple(labels.shape) for labels in together.labels] == [(3, 64), (3, 16), (3, 8)]
    for number in range(3):
        alone = merge_levels(features[number : number + 1], (16, 8, 4))
        torch.testing.assert_close(alone.tokens[0], together.tokens[number])
        for ours, theirs in zip(alone.labels, together.labels, strict=True):
            assert torch.equal(ours[0], theirs[number])


def test_equal_tokens_keep_their_order_and_every_centre_its_own_cluster() -> None:
    assert cluster(torch.zeros(1, 6, 4), 3, 3).tolist() == [[0, 1, 2, 0, 0, 0]]


def test_noise_decides_between_equal_densities() -> None:
    tokens = torch.tensor([[[0.0], [1], [2], [3], [4], [5]]])
    noise = torch.tensor([[0.0, 0, 0, 0, 0, 0.9]])
    assert cluster(tokens, 2, 1)[0, 0] == 0  # the first of equal ones
    assert cluster(tokens, 2, 1, noise)[0, 5] == 0  # the only one without a denser neighbour


@pytest.mark.parametrize(("clusters", "neighbours"), [(4, 5), (2, 5), (1, 3)])
def test_few_clusters_take_fewer_neighbours(clusters: int, neighbours: int) -> None:
    tokens = torch.randn(2, 12, 3, generator=torch.Generator().manual_seed(1))
    fewer = min(3, max(clusters // 2, 1))
    assert torch.equal(cluster(tokens, clusters, neighbours), cluster(tokens, clusters, fewer))
