"""Inputs of ReLUs next to zero: the nearest is found, and mirrored it has the gradient of the other side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fiftyone_refvos.verify import training
from fiftyone_refvos.verify.relus import ReluInput, watched_relus
from fiftyone_refvos.verify.report import CaseReport

VALUES = torch.tensor([[3.0, -2e-6, 0.0], [1.0, -1.0, 2.0]])


class Doubled(nn.Module):
    """Makes values of leaves, which a ReLU may change in place."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return 2 * values


def gradient(network: nn.Module, mirror: ReluInput | None = None) -> tuple[torch.Tensor, list[ReluInput]]:
    """Gradient of the sum of all outputs, for two calls on the same values, and what was watched."""
    values = VALUES.clone().requires_grad_()
    with watched_relus(network, mirror) as inputs:
        (network(values) + network(values)).sum().backward()
    assert values.grad is not None
    return values.grad, inputs


def test_value_next_to_zero_is_found_in_every_call_and_zeros_are_none() -> None:
    grad, inputs = gradient(nn.Sequential(Doubled(), nn.ReLU(inplace=True)))
    assert [(each.name, each.call, each.index) for each in inputs] == [("1", 0, 1), ("1", 1, 1)]
    assert abs(inputs[0].distance - 4e-6) < 1e-12
    assert grad.tolist() == [[4, 0, 0], [4, 0, 4]]


def test_mirrored_value_of_one_call_gets_the_gradient_of_the_other_side() -> None:
    network = nn.Sequential(Doubled(), nn.ReLU(inplace=True))
    _, (_, second) = gradient(network)
    grad, _ = gradient(network, second)
    assert grad.tolist() == [[4, 2, 0], [4, 0, 4]]
    assert gradient(network)[0].tolist() == [[4, 0, 0], [4, 0, 4]]  # nothing stays behind


def test_zeros_and_calls_without_a_gradient_are_passed_over() -> None:
    network = nn.ReLU()
    with watched_relus(network) as inputs:
        network(torch.zeros(2, 3, requires_grad=True))
        network(VALUES)
        network(torch.empty(0, requires_grad=True))
    assert inputs == []


def outcome(**errors: float) -> CaseReport:
    """A report with stages of these errors, at a tolerance of 1."""
    report = CaseReport(Path("case"), "step")
    for name, error in errors.items():
        report.add_values(name, torch.tensor(error), torch.tensor(0.0), 1.0)
    return report


NEAR, NEARER, FAR = (ReluInput("act", 0, index, distance) for index, distance in ((7, 2e-6), (8, 1e-6), (9, 1e-4)))


@pytest.mark.parametrize(
    ("first", "inputs", "runs", "passed"),
    [
        ({"grad_norms": 0.5}, [NEAR], [None], True),
        ({"grad_norms": 2.0}, [NEAR], [None, NEAR], True),
        ({"grad_norms": 2.0}, [FAR, NEARER, NEAR], [None, NEARER, NEAR], True),
        ({"grad_norms": 2.0, "after_step": 2.0}, [NEARER], [None, NEARER], False),
        ({"grad_norms": 2.0, "seg_hidden": 2.0}, [NEAR], [None], False),
        ({"grad_norms": 2.0}, [FAR], [None], False),
        ({"grad_norms": 2.0}, [], [None], False),
    ],
)
def test_a_step_is_run_again_only_for_gradients_and_counts_only_if_all_agrees(
    monkeypatch: pytest.MonkeyPatch, first: dict[str, float], inputs: list[ReluInput], runs: list[Any], passed: bool
) -> None:
    """`NEAR` is the input whose other side is the right one."""
    mirrored: list[ReluInput | None] = []

    def run(case: object, mirror: ReluInput | None = None) -> tuple[CaseReport, list[ReluInput]]:
        mirrored.append(mirror)
        return outcome(grad_norms=0.1, seg_hidden=0.1) if mirror is NEAR else outcome(**first), inputs

    monkeypatch.setattr(training, "_run_step", run)
    monkeypatch.setattr(training, "read_case", lambda path: None)
    report = training.check_step(Path("case"))
    assert mirrored == runs
    assert report.passed == passed
    assert ("act (call 0) [7] mirrored" in [stage.name for stage in report.stages]) == (NEAR in runs)
