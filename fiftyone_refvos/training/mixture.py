"""Several sources of training data, each drawn from as often as its rate says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Generic, Protocol, TypeVar

import numpy as np


class NamedSource(Sized, Protocol):
    """A number of things to draw, and what messages call them together."""

    @property
    def name(self) -> str: ...


SourceT = TypeVar("SourceT", bound=NamedSource)


class SourceMixture(Generic[SourceT]):
    """Draws one of several sources.

    Args:
        sources: at least one
        rates: how often each is drawn from, in relation to the others
        holds: what the sources hold, for messages

    Raises:
        ValueError: for no source, for an empty one, or for rates that are no weights of the sources
    """

    def __init__(self, sources: Sequence[SourceT], rates: Sequence[float], *, holds: str = "videos") -> None:
        if not sources or len(sources) != len(rates):
            raise ValueError(f"{len(sources)} sources and {len(rates)} rates; give one rate per source, at least one")
        if min(rates) < 0 or not np.isfinite(rates).all() or sum(rates) <= 0:
            raise ValueError(f"the rates are {list(rates)}; they must not be negative, and one above 0")
        if empty := [source.name for source in sources if len(source) == 0]:
            raise ValueError(f"the source {empty[0]!r} has no {holds}; give it some, or leave it out")
        self._sources = list(sources)
        self._rates = np.asarray(rates, dtype=float) / sum(rates)

    def draw(self, rng: np.random.Generator) -> SourceT:
        """A source, by its rate."""
        return self._sources[rng.choice(len(self._sources), p=self._rates)]


def rates_by_name(rates: Mapping[str, float] | None, default: Mapping[str, float]) -> list[float]:
    """The rates of views in the order of `default`, which has the rate of each where none are given.

    Raises:
        ValueError: for rates of other views
    """
    if rates is not None and rates.keys() != default.keys():
        raise ValueError(f"the rates are of {sorted(rates)}, the views are {sorted(default)}; give one per view")
    return [(rates or default)[name] for name in default]
