"""Inputs of ReLUs next to zero: the nearest is found, and mirrored it has the gradient of the other side."""

from __future__ import annotations

import torch
from torch import nn

from fiftyone_refvos.verify.relus import ReluInput, watched_relus

VALUES = torch.tensor([[3.0, -2e-6, 0.0], [1.0, -1.0, 2.0]])


def gradient(network: nn.Module, mirror: ReluInput | None = None) -> tuple[torch.Tensor, list[ReluInput]]:
    """Gradient of the sum of all outputs, for two calls on the same values, and what was watched."""
    values = VALUES.clone().requires_grad_()
    with watched_relus(network, mirror) as inputs:
        (network(values) + network(values)).sum().backward()
    assert values.grad is not None
    return values.grad, inputs


def test_value_next_to_zero_is_found_in_every_call_and_zeros_are_none() -> None:
    grad, inputs = gradient(nn.Sequential(nn.Identity(), nn.ReLU(inplace=False)))
    assert [(each.name, each.call, each.index) for each in inputs] == [("1", 0, 1), ("1", 1, 1)]
    assert abs(inputs[0].distance - 2e-6) < 1e-12
    assert grad.tolist() == [[2, 0, 0], [2, 0, 2]]


def test_mirrored_value_of_one_call_gets_the_gradient_of_the_other_side() -> None:
    network = nn.Sequential(nn.Identity(), nn.ReLU())
    _, (_, second) = gradient(network)
    grad, _ = gradient(network, second)
    assert grad.tolist() == [[2, 1, 0], [2, 0, 2]]
    assert gradient(network)[0].tolist() == [[2, 0, 0], [2, 0, 2]]  # nothing stays behind


def test_input_of_zeros_has_no_value_next_to_zero() -> None:
    network = nn.ReLU()
    with watched_relus(network) as inputs:
        network(torch.zeros(2, 3))
    assert [each.distance for each in inputs] == [float("inf")]
