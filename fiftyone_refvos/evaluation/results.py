"""What an evaluation of masklets found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.core.evaluation as foe
import fiftyone.core.utils as fou
import numpy as np
from numpy.typing import NDArray

from fiftyone_refvos.evaluation.run import MaskletEvaluation, MaskletEvaluationConfig


@dataclass(frozen=True, eq=False)
class FrameScores:
    """J and F of an expression, frame by frame, also where nothing was predicted.

    Attributes:
        frames: `(T,) int64` frame numbers, from 1
        J: `(T,) float64` region similarity, in [0, 1]
        F: `(T,) float64` boundary similarity, in [0, 1]
    """

    frames: NDArray[np.int64]
    J: NDArray[np.float64]
    F: NDArray[np.float64]


class MaskletEvaluationResults(foe.EvaluationResults):
    """The results of `rv.evaluate`.

    Attributes:
        expressions: for every evaluated expression a dict of `sample_id`, `filepath`, `expression_id`, `text`,
            `J`, `F`, `JF` in [0, 1] (means over its frames), `num_frames`, `predicted` (False where there was no
            masklet, which counts as 0), `has_target` (whether any true mask has a pixel) and `type_id`
        summary: what the protocol reports: `protocol`, `percent`, `dataset`, `groups`, `units`, `left_out`
        extras: `N-acc` and `T-acc`, by a definition of our own
        failures: a dict of `sample_id`, `filepath` and `error` for every video that was left out
        frame_data: packed frame scores, see `frame_scores`
    """

    measure = "JF"  # of the rows of `expressions`, by which they are plotted

    def __init__(
        self,
        samples: fo.Dataset | fo.DatasetView,
        config: MaskletEvaluationConfig,
        key: str,
        *,
        expressions: Sequence[Mapping[str, Any]],
        summary: Mapping[str, Any],
        extras: Mapping[str, float],
        failures: Sequence[Mapping[str, str]],
        frame_data: Sequence[str],
        backend: MaskletEvaluation | None = None,
    ) -> None:
        super().__init__(samples, config, key, backend=backend)
        self.expressions = [dict(row) for row in expressions]
        self.summary = dict(summary)
        self.extras = dict(extras)
        self.failures = [dict(failure) for failure in failures]
        self.frame_data = list(frame_data)

    def metrics(self) -> dict[str, float]:
        """The values for the dataset: those of the protocol (`J`, `F`, `J&F`, …), and `N-acc` and `T-acc`."""
        return {**self.summary["dataset"], **self.extras}

    def report(self) -> dict[str, Any]:
        """All that is reported: protocol, values for the dataset and for its groups, and how much was counted."""
        return {
            "protocol": self.summary["protocol"],
            "percent": self.summary["percent"],
            "metrics": self.metrics(),
            "groups": {name: dict(values) for name, values in self.summary["groups"].items()},
            "num_videos": len({row["sample_id"] for row in self.expressions}),
            "num_expressions": len(self.expressions),
            "num_unpredicted": sum(not row["predicted"] for row in self.expressions),
            "num_frames": sum(row["num_frames"] for row in self.expressions),
            "num_failures": len(self.failures),
        }

    def print_report(self, digits: int = 4) -> None:
        """Prints the report as a table: the dataset first, then its groups."""
        report = self.report()
        rows = {"dataset": report["metrics"], **report["groups"]}
        names = list(dict.fromkeys(name for values in rows.values() for name in values))
        width = max(len(row) for row in rows)
        columns = [max(len(name), digits + 4) for name in names]
        print(f"protocol {report['protocol']}, {'percent' if report['percent'] else 'fractions'}")
        print(" " * width, *(f"{name:>{column}}" for name, column in zip(names, columns, strict=True)))
        for row, values in rows.items():
            numbers = (_number(values.get(name), digits) for name in names)
            print(f"{row:<{width}}", *(f"{n:>{column}}" for n, column in zip(numbers, columns, strict=True)))
        print(self._counted(report))
        for failure in self.failures:
            print(f"  failed: {failure['error']}")

    def plot(self, **layout: Any) -> Any:
        """A plotly figure of the J&F (IoU for images) of every expression, worst first; hovering shows its text.

        Args:
            **layout: keyword arguments for plotly's `update_layout`
        """
        import plotly.graph_objects as go

        rows = sorted(self.expressions, key=lambda row: row[self.measure])
        heights = [row[self.measure] for row in rows]
        hover = [self._hover(row) for row in rows]
        name = "J&F" if self.measure == "JF" else "IoU"
        figure = go.Figure(go.Bar(y=heights, text=hover, hoverinfo="y+text", textposition="none"))
        figure.update_layout(title=f"{name} per expression ({self.key})", xaxis_title="expression", yaxis_title=name)
        figure.update_layout(yaxis_range=[0, 1], **layout)
        return figure

    def frame_scores(self, sample_id: str, expression_id: str) -> FrameScores:
        """J and F of one expression in every evaluated frame.

        Raises:
            KeyError: if the expression was not evaluated
        """
        for row, data in zip(self.expressions, self.frame_data, strict=True):
            if (row["sample_id"], row["expression_id"]) == (sample_id, expression_id):
                frames, J, F = fou.deserialize_numpy_array(data, ascii=True)
                return FrameScores(frames.astype(np.int64), J, F)
        raise KeyError(f"expression {expression_id!r} of sample {sample_id} was not evaluated in {self.key!r}")

    def _counted(self, report: Mapping[str, Any]) -> str:
        return (
            f"{report['num_expressions']} expressions of {report['num_videos']} videos in {report['num_frames']} "
            f"frames, {report['num_unpredicted']} without prediction; {report['num_failures']} videos failed"
        )

    def _hover(self, row: Mapping[str, Any]) -> str:
        return f"{row['text']}<br>{row['filepath']}<br>J {row['J']:.4f}, F {row['F']:.4f}"

    @classmethod
    def _from_dict(
        cls,
        d: dict[str, Any],
        samples: fo.Dataset | fo.DatasetView,
        config: MaskletEvaluationConfig,
        key: str,
        **kwargs: Any,
    ) -> MaskletEvaluationResults:
        names = ("expressions", "summary", "extras", "failures", "frame_data")
        return cls(samples, config, key, **{name: d[name] for name in names}, **kwargs)


class ImageEvaluationResults(MaskletEvaluationResults):
    """The results of `rv.evaluate` on images.

    Attributes:
        expressions: for every evaluated expression a dict of `sample_id`, `filepath`, `expression_id`, `text`, `iou`
            in [0, 1], `intersection` and `union` in pixels, `has_target`, and `no_target`, what the model says
        summary: as for videos, without groups and units
        extras: none; the protocols have N-acc and T-acc themselves
        failures: as for videos
    """

    measure = "iou"

    def report(self) -> dict[str, Any]:
        """All that is reported: protocol, values for the dataset, and how much was counted."""
        return {
            "protocol": self.summary["protocol"],
            "percent": self.summary["percent"],
            "metrics": self.metrics(),
            "groups": {},
            "num_images": len({row["sample_id"] for row in self.expressions}),
            "num_expressions": len(self.expressions),
            "num_no_target": sum(not row["has_target"] for row in self.expressions),
            "num_failures": len(self.failures),
        }

    def _counted(self, report: Mapping[str, Any]) -> str:
        return (
            f"{report['num_expressions']} expressions of {report['num_images']} images, {report['num_no_target']} "
            f"without target; {report['num_failures']} images failed"
        )

    def _hover(self, row: Mapping[str, Any]) -> str:
        return f"{row['text']}<br>{row['filepath']}"


def pack_frames(frames: Sequence[int], J: NDArray[np.float64], F: NDArray[np.float64]) -> str:
    """Frame scores as compressed text, exact to the last bit."""
    packed: str = fou.serialize_numpy_array(np.stack([np.array(frames, dtype=np.float64), J, F]), ascii=True)
    return packed


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
