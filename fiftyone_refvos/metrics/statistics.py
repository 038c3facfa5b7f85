"""The statistics of a sequence of per-frame values, as `db_statistics` of davis2017-evaluation makes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fiftyone_refvos.metrics.video import Floats

_BINS = 4
_INDEX_VALUES = 256  # the reference keeps frame indices in 8 bits


@dataclass(frozen=True, slots=True)
class SequenceStatistics:
    """Mean, recall and decay of per-frame values.

    Attributes:
        mean: of all values
        recall: share of the values above 0.5
        decay: mean of the first quarter of the frames minus mean of the last one, as the reference computes it:
            its 8-bit frame indices make it NaN (or, far beyond, meaningless) above 256 frames
        decay_64bit: the same without that fault
    """

    mean: float
    recall: float
    decay: float
    decay_64bit: float

    def named(self, measure: str) -> dict[str, float]:
        """The four values under their names, e.g. `J`, `J-Recall`, `J-Decay`, `J-Decay-64bit`."""
        return {
            measure: self.mean,
            f"{measure}-Recall": self.recall,
            f"{measure}-Decay": self.decay,
            f"{measure}-Decay-64bit": self.decay_64bit,
        }


def db_statistics(values: Floats) -> SequenceStatistics:
    """Statistics of the values of one object, `(T,) float64`, T >= 1."""
    edges = (np.round(np.linspace(1, len(values), _BINS + 1) + 1e-10) - 1).astype(np.int64)
    return SequenceStatistics(
        mean=_nanmean(values),
        recall=float(np.mean(values > 0.5)),
        decay=_decay(values, edges % _INDEX_VALUES),
        decay_64bit=_decay(values, edges),
    )


def _decay(values: Floats, edges: np.ndarray) -> float:
    """Neighbouring quarters share their border frame."""
    first, last = values[edges[0] : edges[1] + 1], values[edges[-2] : edges[-1] + 1]
    return _nanmean(first) - _nanmean(last)


def _nanmean(values: Floats) -> float:
    values = values[~np.isnan(values)]
    return float(np.mean(values)) if values.size else float("nan")
