"""Which inputs of a network's ReLUs are so near to zero that rounding decides about their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

KINK = 1e-5
"""Nearer to zero rounding decides: what is -3.7e-6 in float64 was -8e-7 and 2.7e-6 with kernels of two processors."""


@dataclass(frozen=True)
class ReluInput:
    """A value that one call of a ReLU was given.

    Attributes:
        name: of the module
        call: number of the call, from 0
        index: of the value in the flattened input
        distance: of the value from zero
    """

    name: str
    call: int
    index: int
    distance: float

    def __str__(self) -> str:
        return f"{self.name} (call {self.call}) [{self.index}]"


@contextmanager
def watched_relus(network: nn.Module, mirror: ReluInput | None = None) -> Iterator[list[ReluInput]]:
    """Lists what was nearest to zero, and not zero, in each call of an `nn.ReLU` that a gradient goes through.

    Args:
        network: that runs meanwhile
        mirror: an input of such a call that gets the opposite sign
    """
    seen: list[ReluInput] = []
    calls: dict[str, int] = {}

    def watch(name: str, values: Tensor) -> Tensor | None:
        call = calls[name] = calls.get(name, -1) + 1
        if not values.requires_grad or not values.any():
            return None
        flat = values.detach().flatten()
        distances = flat.abs().masked_fill(flat == 0, float("inf"))
        index = int(distances.argmin())
        seen.append(ReluInput(name, call, index, float(distances[index])))
        if mirror is None or (mirror.name, mirror.call) != (name, call):
            return None
        change = values.new_zeros(values.shape)
        change.view(-1)[mirror.index] = -2 * flat[mirror.index]
        return values + change

    def hook(name: str) -> Any:
        return lambda module, args: watch(name, args[0])

    handles = [
        module.register_forward_pre_hook(hook(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.ReLU)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
