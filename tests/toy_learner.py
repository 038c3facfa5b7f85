"""A learner in milliseconds, for the training loop: dropout, choices by the generators, a memory of past batches."""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fiftyone_refvos.training.config import TrainingConfig

os.environ["ACCELERATE_USE_CPU"] = "true"  # results are compared bit for bit, also where there is a GPU

CONFIG = TrainingConfig(
    steps=8, batch_size=4, accumulation=2, learning_rate=1e-2, warmup_steps=2, save_every=3, validate_every=2
)


@dataclasses.dataclass
class ToyBatch:
    """Numbers to learn, and the names that they have in messages."""

    inputs: Tensor
    targets: Tensor
    names: list[str]

    def to(self, device: torch.device) -> ToyBatch:
        return dataclasses.replace(self, inputs=self.inputs.to(device), targets=self.targets.to(device))


class ToyLearner:
    """Regression with all that a resumed run can get wrong.

    Attributes:
        network: a frozen layer, layers that train, dropout, and a layer that never gets a gradient
        batches: how many were drawn
        broken_from: inputs are infinite from this draw on
    """

    def __init__(
        self, *, width: int = 8, dropout: float = 0.3, remembers: bool = True, broken_from: int | None = None
    ) -> None:
        torch.manual_seed(0)
        layers = {
            "frozen": nn.Linear(4, width),
            "hidden": nn.Linear(width, width),
            "drop": nn.Dropout(dropout),
            "out": nn.Linear(width, 1),
            "unused": nn.Linear(2, 2),
        }
        self.network = nn.ModuleDict(layers)
        self.network["frozen"].requires_grad_(False)
        self.remembers, self.broken_from, self.batches = remembers, broken_from, 0
        self._bank: list[Tensor] = []

    def draw(self, rng: np.random.Generator) -> ToyBatch:
        inputs = torch.from_numpy(rng.normal(size=(4, 4))).float()
        if self.broken_from is not None and self.batches >= self.broken_from:
            inputs[0] = torch.inf
        self.batches += 1
        return ToyBatch(inputs, inputs.sum(1, keepdim=True).sin(), [f"video{n}" for n in rng.integers(0, 99, 2)])

    def losses(self, batch: ToyBatch, rng: np.random.Generator) -> Mapping[str, Tensor]:
        layers = self.network
        hidden = layers["drop"](layers["hidden"](layers["frozen"](batch.inputs)).relu())
        losses = {"fit": F.mse_loss(layers["out"](hidden), batch.targets)}
        if (
            self.remembers and len(self._bank) > 2
        ):  # as the contrastive loss: not from the start, against what is remembered
            chosen = self._bank[int(rng.integers(len(self._bank)))]
            losses["pull"] = random.uniform(0.1, 0.2) * np.random.uniform(0.5, 1) * F.mse_loss(hidden.mean(0), chosen)
        self._bank = [*self._bank, hidden.mean(0).detach()][-5:]
        return {**losses, "total": torch.stack(list(losses.values())).sum()}

    def sample_ids(self, batch: ToyBatch) -> Sequence[str]:
        return batch.names

    def state(self) -> Mapping[str, Any]:
        return {"bank": list(self._bank)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._bank = list(state["bank"])

    def parameters(self) -> dict[str, Tensor]:
        """A copy of all parameters by name."""
        return {name: each.detach().clone() for name, each in self.network.named_parameters()}

    def validation(self) -> float:
        """More is better; consumes random numbers, as a real one may."""
        assert not self.network.training
        return -float(self.parameters()["out.weight"].abs().sum()) - 1e-3 * random.random()
