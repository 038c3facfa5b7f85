"""The evaluation run that FiftyOne keeps with a dataset: its settings, its fields, renaming and deleting them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
import fiftyone.core.evaluation as foe

from fiftyone_refvos.fields.samples import FieldError, root_dataset
from fiftyone_refvos.fields.schema import frame_prefix, holds_labels, label_path

METHOD = "refvos"


@dataclass(frozen=True)
class Measures:
    """The names of the numbers that a run writes, without its key.

    Attributes:
        per_frame: on the predicted detections
        per_expression: on the expressions
        per_sample: on the samples
    """

    per_frame: tuple[str, ...]
    per_expression: tuple[str, ...]
    per_sample: tuple[str, ...]


VIDEO_MEASURES = Measures(("J", "F"), ("J", "F", "JF"), ("J", "F", "JF"))
IMAGE_MEASURES = Measures(("iou",), ("iou",), ("iou",))
# What the analysis of failures adds to a run; it goes with the run, too.
ADDED = Measures((), ("failure",), ("failures",))


class MaskletEvaluationConfig(foe.EvaluationMethodConfig):
    """The settings of an evaluation of masklets.

    Args:
        pred_field: the frame field with the predicted masklets, without `frames.`; the sample field for images
        gt_field: the field with the true ones
        expressions_field: the sample field with the expressions
        protocol: the name of the protocol
        skip_failures: whether videos or images that could not be evaluated were left out
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
        prefix = frame_prefix(root_dataset(samples))
        fields = [f"{prefix}{self.config.pred_field}", f"{prefix}{self.config.gt_field}"]
        return fields + [path for path in self.paths(samples, key) if samples.get_field(path) is not None]

    def validate_run(self, samples: fo.Dataset | fo.DatasetView, key: str, overwrite: bool = True) -> None:
        """As every run, and refuses a key whose fields hold something else than scores."""
        super().validate_run(samples, key, overwrite=overwrite)
        dataset = root_dataset(samples)
        for path in self.score_paths(dataset, key):
            stored = dataset.get_field(path)
            if stored is not None and not isinstance(stored, fo.FloatField):
                raise FieldError(
                    f"dataset {dataset.name!r}: {path!r} holds a {type(stored).__name__}, but is where scores of "
                    f"{key!r} go: choose another eval_key, or rename the field"
                )

    def rename(self, samples: fo.Dataset | fo.DatasetView, key: str, new_key: str) -> None:
        """Gives the fields of a run their new names; failures found under that name without a run are replaced."""
        dataset = root_dataset(samples)
        new = dict(zip(self.paths(dataset, key), self.paths(dataset, new_key), strict=True))
        existing = {path: name for path, name in new.items() if dataset.get_field(path) is not None}
        failures = self._paths(dataset, key, ADDED)
        _delete(dataset, [new[path] for path in failures if _of_one_type(dataset, path, new[path])])
        on_samples, on_frames = _apart(existing)
        if on_samples:
            dataset.rename_sample_fields(on_samples)
        if on_frames:
            dataset.rename_frame_fields(on_frames)

    def cleanup(self, samples: fo.Dataset | fo.DatasetView, key: str) -> None:
        """Deletes the fields of a run."""
        dataset = root_dataset(samples)
        _delete(dataset, self.paths(dataset, key))

    def delete_scores(self, samples: fo.Dataset | fo.DatasetView, key: str) -> None:
        """Deletes the scores of a key that has no run; what the analysis of failures has written stays."""
        dataset = root_dataset(samples)
        _delete(dataset, self.score_paths(dataset, key))

    def paths(self, samples: fo.Dataset | fo.DatasetView, key: str) -> list[str]:
        """All paths that a run may have, in an order that does not depend on the key."""
        return self.score_paths(samples, key) + self._paths(samples, key, ADDED)

    def score_paths(self, samples: fo.Dataset | fo.DatasetView, key: str) -> list[str]:
        """The paths that an evaluation writes."""
        return self._paths(samples, key, measures_of(root_dataset(samples)))

    def _paths(self, samples: fo.Dataset | fo.DatasetView, key: str, measures: Measures) -> list[str]:
        dataset, config = root_dataset(samples), self.config
        prefix = frame_prefix(dataset)
        paths = [f"{prefix}{config.pred_field}.detections.{key}_{name}" for name in measures.per_frame]
        if holds_labels(dataset, config.expressions_field):
            labels = label_path(dataset, config.expressions_field)
            paths += [f"{labels}.{key}_{name}" for name in measures.per_expression]
        return paths + [f"{key}_{name}" for name in measures.per_sample]


def measures_of(dataset: fo.Dataset) -> Measures:
    """What runs write of the media of a dataset."""
    return IMAGE_MEASURES if dataset.media_type == "image" else VIDEO_MEASURES


def _delete(dataset: fo.Dataset, paths: Iterable[str]) -> None:
    """Deletes those of the fields that exist."""
    on_samples, on_frames = _apart({path: path for path in paths if dataset.get_field(path) is not None})
    if on_samples:
        dataset.delete_sample_fields([*on_samples])
    if on_frames:
        dataset.delete_frame_fields([*on_frames])


def _of_one_type(dataset: fo.Dataset, *paths: str) -> bool:
    """Whether the fields exist and hold the same."""
    fields = [dataset.get_field(path) for path in paths]
    types = {(type(field), getattr(field, "document_type", None)) for field in fields}
    return None not in fields and len(types) == 1


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
