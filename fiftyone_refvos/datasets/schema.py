"""The fields of an imported dataset, declared before its samples come."""

from __future__ import annotations

from typing import Any

import fiftyone as fo

from fiftyone_refvos.datasets.layout import Layout
from fiftyone_refvos.datasets.records import MediaRecord
from fiftyone_refvos.fields.schema import Kind, declare_all, declare_detections, declare_expressions, label_path

_KINDS: dict[type, type[fo.Field]] = {
    bool: fo.BooleanField,
    int: fo.IntField,
    float: fo.FloatField,
    str: fo.StringField,
}
_TRUTH = ("expression_id", "object_id", "anno_id", "category")


def declare_schema(dataset: fo.Dataset, layout: Layout, gt_field: str) -> None:
    """Declares what every import writes.

    Raises:
        FieldError: if the dataset holds other media, or a field of that name something else
    """
    if dataset.media_type is None:
        dataset.media_type = layout.media_type
    declare_expressions(dataset)
    truth = f"frames.{gt_field}" if layout.media_type == "video" else gt_field
    declare_detections(dataset, truth)
    path = label_path(dataset, "expressions")
    kinds: dict[str, Kind] = {
        f"{path}.object_ids": (fo.ListField, fo.StringField),
        f"{path}.no_target": (fo.BooleanField, None),
    }
    if layout.partial_truth:
        kinds[f"{path}.{gt_field}_text"] = fo.StringField, None
        kinds[f"{path}.{gt_field}_frames"] = fo.ListField, fo.IntField
    kinds |= {f"{truth}.detections.{name}": (fo.StringField, None) for name in _TRUTH}
    if layout.media_type == "video":
        kinds["frames_dir"] = fo.StringField, None
        kinds["frame_names"] = fo.ListField, fo.StringField
        kinds["frame_size"] = fo.ListField, fo.IntField
    declare_all(dataset, kinds)


def declare_record(dataset: fo.Dataset, record: MediaRecord) -> None:
    """Declares what the expressions of a record have besides."""
    path = label_path(dataset, "expressions")
    extras: dict[str, Any] = {name: value for each in record.expressions for name, value in each.attributes.items()}
    declare_all(dataset, {f"{path}.{name}": (_KINDS[type(value)], None) for name, value in extras.items()})
