"""Which inputs of a network's ReLUs are so near to zero that rounding decides about their gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

KINK = 1e-5  # kernels of two processors differ by some 1e-6 here


@dataclass(frozen=True)
class ReluInput:
    """The value nearest to zero, and not zero, among all that one call of a ReLU was given.

    Attributes:
        name: of the module
        call: number of the call, from 0
        index: of the value in the flattened input
        distance: of the value from zero; infinite where all are zero
    """

    name: str
    call: int
    index: int
    distance: float


@contextmanager
def watched_relus(network: nn.Module, mirror: ReluInput | None = None) -> Iterator[list[ReluInput]]:
    """Lists the inputs nearest to zero while a network runs; that of `mirror` gets the opposite sign."""
    seen: list[ReluInput] = []
    calls: dict[str, int] = {}

    def watch(name: str, values: Tensor) -> Tensor | None:
        call = calls[name] = calls.get(name, -1) + 1
        flat = values.detach().abs().flatten()
        index = int(flat.masked_fill(flat == 0, float("inf")).argmin())
        seen.append(ReluInput(name, call, index, float(flat[index]) or float("inf")))
        if mirror is None or (mirror.name, mirror.call) != (name, call):
            return None
        change = values.new_zeros(values.shape)
        change.view(-1)[mirror.index] = -2 * values.detach().flatten()[mirror.index]
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
