"""Sets of frame numbers as they are stored: [first, last, first, last, …], each pair inclusive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def to_runs(numbers: Iterable[int]) -> list[int]:
    """[1, 2, 3, 7] becomes [1, 3, 7, 7]."""
    runs: list[int] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1] + 1:
            runs[-1] = number
        else:
            runs += [number, number]
    return runs


def from_runs(runs: Sequence[int]) -> set[int]:
    """[1, 3, 7, 7] becomes {1, 2, 3, 7}."""
    return {number for first, last in zip(runs[::2], runs[1::2], strict=True) for number in range(first, last + 1)}
