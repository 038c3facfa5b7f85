"""The evaluation run that FiftyOne keeps with a dataset: its settings, its fields, renaming and deleting them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import fiftyone as fo
import fiftyone.core.evaluation as foe

from fiftyone_refvos.fields.samples import root_dataset
from fiftyone_refvos.fields.schema import holds_labels, label_path

METHOD = "refvos"
PER_FRAME = ("J", "F")
PER_EXPRESSION = ("J", "F", "JF")
PER_VIDEO = ("J", "F", "JF")
# What the analysis of failures adds to a run; it goes with the run, too.
ADDED_PER_EXPRESSION = ("failure", "failure_score")
ADDED_PER_VIDEO = ("failures",)


class MaskletEvaluationConfig(foe.EvaluationMethodConfig):
    """The settings of an evaluation of masklets.

    Args:
        pred_field: the frame field with the predicted masklets, without `frames.`
        gt_field: the frame field with the true ones
        expressions_field: the sample field with the expressions
        protocol: the name of the protocol
        skip_failures: whether videos that could not be evaluated were left out
    """

    def __init__(
        self,
        pred_field: str,
        gt_field: str,
        *,
        expressions_field: str,
        protocol: str,
        skip_failures: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.pred_field = pred_field
        self.gt_field = gt_field
        self.expressions_field = expressions_field
        self.protocol = protocol
        self.skip_failures = skip_failures

    @property
    def method(self) -> str:
        """What `dataset.list_evaluations(method="refvos")` finds these by."""
        return METHOD


class MaskletEvaluation(foe.EvaluationMethod):
    """What FiftyOne calls when a run is registered, renamed or deleted."""

    config: MaskletEvaluationConfig

    def get_fields(self, samples: fo.Dataset | fo.DatasetView, key: str) -> list[str]:
        """The paths of a run that exist."""
        fields = [f"frames.{self.config.pred_field}", f"frames.{self.config.gt_field}"]
        return fields + [path for path in self.paths(samples, key) if samples.get_field(path) is not None]

    def rename(self, samples: fo.Dataset | fo.DatasetView, key: str, new_key: str) -> None:
        """Gives the fields of a run their new names."""
        dataset = root_dataset(samples)
        new = dict(zip(self.paths(dataset, key), self.paths(dataset, new_key), strict=True))
        existing = {path: name for path, name in new.items() if dataset.get_field(path) is not None}
        on_samples, on_frames = _apart(existing)
        if on_samples:
            dataset.rename_sample_fields(on_samples)
        if on_frames:
            dataset.rename_frame_fields(on_frames)

    def cleanup(self, samples: fo.Dataset | fo.DatasetView, key: str) -> None:
        """Deletes the fields of a run."""
        dataset = root_dataset(samples)
        existing = {path: path for path in self.paths(dataset, key) if dataset.get_field(path) is not None}
        on_samples, on_frames = _apart(existing)
        if on_samples:
            dataset.delete_sample_fields([*on_samples])
        if on_frames:
            dataset.delete_frame_fields([*on_frames])

    def paths(self, samples: fo.Dataset | fo.DatasetView, key: str) -> list[str]:
        """All paths that a run may have, in an order that does not depend on the key."""
        dataset, config = root_dataset(samples), self.config
        paths = [f"frames.{config.pred_field}.detections.{key}_{name}" for name in PER_FRAME]
        if holds_labels(dataset, config.expressions_field):
            labels = label_path(dataset, config.expressions_field)
            paths += [f"{labels}.{key}_{name}" for name in (*PER_EXPRESSION, *ADDED_PER_EXPRESSION)]
        return paths + [f"{key}_{name}" for name in (*PER_VIDEO, *ADDED_PER_VIDEO)]


def _apart(paths: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Paths and new names of sample fields, and those of frame fields without their prefix."""
    prefix = "frames."
    on_samples = {path: name for path, name in paths.items() if not path.startswith(prefix)}
    on_frames = {
        path.removeprefix(prefix): name.removeprefix(prefix)
        for path, name in paths.items()
        if path.startswith(prefix)
    }
    return on_samples, on_frames
