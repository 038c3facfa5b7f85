"""What the training loop asks of what it trains: batches, their losses, and what is remembered between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from torch import Tensor, nn

BatchT = TypeVar("BatchT")


class Learner(Protocol[BatchT]):
    """A network with its data and losses; the loop knows neither videos nor expressions."""

    @property
    def network(self) -> nn.Module:
        """Its parameters that require a gradient are trained, saved and told apart by their names."""

    def draw(self, rng: np.random.Generator) -> BatchT:
        """The batch of one forward pass, on the CPU.

        It follows from `rng` alone, whatever was drawn before: a resumed run draws what a run without a stop would
        have drawn. It is called in a thread, while `losses` works on the batch before.
        """

    def losses(self, batch: BatchT, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """The losses of a batch by name, weighted; "total" is their sum, and the one that is minimised.

        The batch was moved to the network's device, by its method `to` if it has one. A term that is not defined for
        a batch is left out. Choices on the way are drawn from `rng`, or from the global generators.
        """

    def sample_ids(self, batch: BatchT) -> Sequence[str]:
        """What is in a batch, for the message that its losses are not finite."""

    def state(self) -> Mapping[str, Any]:
        """What `losses` remembers from one batch to the next, as tensors, numbers, strings, lists and dicts."""

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned."""


class Forgetful:
    """The state of a `Learner` that remembers nothing from one batch to the next."""

    def state(self) -> Mapping[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """There is nothing to take over."""
