"""How well scores of frames go with what they are to predict: rank correlation, and a calibration curve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CalibrationBin:
    """Frames with similar scores.

    Attributes:
        low, high: bounds of the scores; `high` belongs to the last bin only
        count: of frames
        score: mean of their scores
        truth: mean of what they are worth
    """

    low: float
    high: float
    count: int
    score: float
    truth: float


def spearman(scores: ArrayLike, truth: ArrayLike) -> float:
    """Spearman's rank correlation, equal values sharing their mean rank; NaN where either side does not vary.

    Raises:
        ValueError: for sides of different lengths
    """
    left, right = np.asarray(scores, dtype=np.float64), np.asarray(truth, dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(f"{len(left)} scores cannot be compared with {len(right)} values")
    if len(left) < 2 or np.ptp(left) == 0 or np.ptp(right) == 0:
        return float("nan")
    ranks = rankdata(left), rankdata(right)
    return float(np.corrcoef(*ranks)[0, 1])


def spread(values: Sequence[float]) -> float:
    """The difference between the 90th and the 10th percentile, which tells whether there is an order to find."""
    low, high = np.percentile(np.asarray(values, dtype=np.float64), [10, 90])
    return float(high - low)


def calibration(scores: Iterable[float], truth: Iterable[float], bins: int = 10) -> list[CalibrationBin]:
    """The curve of mean truth over mean score, in bins of equally many frames; frames with one score stay together.

    Raises:
        ValueError: for sides of different lengths, and less than one bin
    """
    left, right = np.asarray(list(scores), dtype=np.float64), np.asarray(list(truth), dtype=np.float64)
    if left.shape != right.shape:
        raise ValueError(f"{len(left)} scores cannot be compared with {len(right)} values")
    if bins < 1:
        raise ValueError(f"bins is {bins}; it must be at least 1")
    if not len(left):
        return []
    edges = np.unique(np.quantile(left, np.linspace(0, 1, bins + 1)))
    place = np.clip(np.searchsorted(edges, left, side="right") - 1, 0, max(len(edges) - 2, 0))
    return [
        CalibrationBin(
            low=float(edges[number]),
            high=float(edges[min(number + 1, len(edges) - 1)]),
            count=int((place == number).sum()),
            score=float(left[place == number].mean()),
            truth=float(right[place == number].mean()),
        )
        for number in np.unique(place)
    ]
