"""What the learners of single parts have in common: nothing is remembered from one batch to the next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class PartLearner:
    """The state of a `Learner` that has none."""

    def state(self) -> Mapping[str, Any]:
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """There is nothing to take over."""
