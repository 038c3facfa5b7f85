"""The fields and attributes of expressions and masklets, declared once, before many workers write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import fiftyone as fo
import fiftyone.core.media as fom

from fiftyone_refvos.fields.samples import FieldError, root_dataset

EXPRESSIONS = "expressions"
Kind = tuple[type[fo.Field], type[fo.Field] | None]
"""What a field holds, and what its items are if it holds a list."""

# Where the labels lie inside a label of each type that may hold expressions.
LISTS: dict[type[fo.Label], str | None] = {
    fo.TemporalDetections: "detections",
    fo.Classifications: "classifications",
    fo.TemporalDetection: None,
    fo.Classification: None,
}

_EXPRESSION_ATTRIBUTES = {"expression_id": fo.StringField, "kind": fo.StringField}
_MASKLET_ATTRIBUTES = {
    "expression_id": fo.StringField,
    "object_id": fo.StringField,
    "key_frame_score": fo.FloatField,
    "iou": fo.FloatField,
}
# What is known of an expression once its masklet is written, as `<masklet field>_<name>`.
RESULT_ATTRIBUTES: dict[str, Kind] = {
    "no_target": (fo.BooleanField, None),
    "score": (fo.FloatField, None),
    "key_frame": (fo.IntField, None),
    "frames": (fo.ListField, fo.IntField),
    "text": (fo.StringField, None),
}
# One number per frame of the video, or null, as `<field>_<name>` of an expression: a frame without a mask has no
# label that could carry it. Declared by what writes them.
FRAME_LISTS = ("ious", "key_frame_scores", "agreements")
# All that is said of the masks of an expression by others than what wrote them, and goes with them.
SAID_OF_MASKS = (*FRAME_LISTS, "agreement")


def expressions_field(samples: fo.Dataset | fo.DatasetView, prompt_field: str) -> str:
    """The field with the expressions of a prompt field: itself if it holds labels, else `expressions`.

    Raises:
        FieldError: if there is no such field, or it can hold no prompts
    """
    dataset = root_dataset(samples)
    prompt_type(dataset, prompt_field)
    return prompt_field if holds_labels(dataset, prompt_field) else EXPRESSIONS


def prompt_type(dataset: fo.Dataset, field: str, *, owner: object = None) -> type:
    """`str`, `list` (of str) or one of the label types that may hold expressions.

    Args:
        dataset: the dataset
        field: the sample field
        owner: what errors name; the dataset by default
    """
    owner = owner or f"dataset {dataset.name!r}"
    stored = dataset.get_field(field)
    if stored is None:
        fields = [name for name, kind in dataset.get_field_schema().items() if _prompt_type(kind) is not None]
        raise FieldError(
            f"{owner} has no field {field!r} to take expressions from: name one that holds text, a list of "
            f"texts, Classifications or TemporalDetections, such as {', '.join(fields) or '(there is none)'}"
        )
    kind = _prompt_type(stored)
    if kind is None:
        raise FieldError(
            f"{owner}: the field {field!r} holds {_describe(stored)}, but expressions come as text, a list "
            "of texts, Classifications or TemporalDetections"
        )
    return kind


def holds_labels(dataset: fo.Dataset, field: str) -> bool:
    """Whether a field is there and holds labels that can be expressions, not plain text."""
    stored = dataset.get_field(field)
    return stored is not None and _prompt_type(stored) in LISTS


def label_path(dataset: fo.Dataset, field: str) -> str:
    """The path of the labels of an expressions field, e.g. `expressions.detections`."""
    inner = LISTS[prompt_type(dataset, field)]
    return f"{field}.{inner}" if inner else field


def declare_expressions(dataset: fo.Dataset, field: str = EXPRESSIONS) -> None:
    """Declares a field of expressions and their `expression_id` and `kind`, unless it is declared.

    Raises:
        FieldError: for a dataset without samples, or if the field holds anything else
    """
    if dataset.get_field(field) is None:
        kind = fo.TemporalDetections if _is_video(dataset) else fo.Classifications
        dataset.add_sample_field(field, fo.EmbeddedDocumentField, embedded_doc_type=kind)
    prompt_type(dataset, field)
    if not holds_labels(dataset, field):
        raise FieldError(
            f"dataset {dataset.name!r}: the field {field!r} holds plain text, which cannot carry ids: "
            f"rename it with dataset.rename_sample_field({field!r}, 'prompt') and use it as prompt field"
        )
    path = label_path(dataset, field)
    declare_all(dataset, {f"{path}.{name}": (kind, None) for name, kind in _EXPRESSION_ATTRIBUTES.items()})


def check_label_field(field: str) -> None:
    """Refuses a name that FiftyOne could not use everywhere: as a field, in attributes, and as a key of a run.

    Raises:
        FieldError: for anything but letters, digits and underscores, with a letter first
    """
    if not (field.isascii() and field.isidentifier()) or field.startswith("_"):
        raise FieldError(
            f"{field!r} cannot be a label field: use letters, digits and underscores, with a letter first, such as "
            "'glus_tiny'"
        )


def declare_masklet_schema(
    samples: fo.Dataset | fo.DatasetView, field: str, *, expressions_field: str = EXPRESSIONS
) -> None:
    """Declares all that writing masklets into `field` uses, so that nothing changes the schema afterwards.

    Two processes that change the schema at once can lose a field: declare here, then start workers. Does
    nothing where all is declared.

    Args:
        samples: a dataset, or any view of one; the whole dataset is declared
        field: the name of the frame field (of the sample field for images) for the masklets
        expressions_field: the field with the expressions

    Raises:
        FieldError: for a dataset without samples, or if one of the names holds something else
    """
    dataset = root_dataset(samples)
    declare_expressions(dataset, expressions_field)
    prefix = "frames." if _is_video(dataset) else ""
    declare_detections(dataset, prefix + field)
    masks, path = f"{prefix}{field}.detections", label_path(dataset, expressions_field)
    attributes = {f"{masks}.{name}": (kind, None) for name, kind in _MASKLET_ATTRIBUTES.items()}
    declare_all(dataset, attributes | {f"{path}.{field}_{name}": kind for name, kind in RESULT_ATTRIBUTES.items()})


def declare_floats(dataset: fo.Dataset, paths: Iterable[str]) -> None:
    """Declares numbers at paths of samples, labels and frames, unless they are declared.

    Raises:
        FieldError: if one of the paths holds something else
    """
    declare_all(dataset, dict.fromkeys(paths, (fo.FloatField, None)))


def declare(dataset: fo.Dataset, path: str, kind: type[fo.Field], subfield: type[fo.Field] | None = None) -> None:
    """Declares one field or attribute, as `declare_all`."""
    declare_all(dataset, {path: (kind, subfield)})


def declare_all(dataset: fo.Dataset, kinds: Mapping[str, Kind]) -> None:
    """Declares fields and attributes, unless they are declared; none of them if one path holds something else.

    FiftyOne reads and writes the schema of the whole dataset in every call, so the attributes of a label are one.

    Args:
        dataset: the dataset
        kinds: by the path of a field, a frame field or an attribute of labels, what it holds, and what a list holds

    Raises:
        FieldError: if a path holds something else
    """
    missing: dict[str, dict[str, Kind]] = {}
    for path, (kind, subfield) in kinds.items():
        stored = dataset.get_field(path)
        if stored is None:
            parent, _, name = path.rpartition(".")
            missing.setdefault(parent, {})[name] = kind, subfield
        elif not isinstance(stored, kind):
            raise FieldError(
                f"dataset {dataset.name!r}: {path!r} holds {_describe(stored)}, but has to be a {kind.__name__}: "
                "rename it or choose another label field"
            )
    for parent, attributes in missing.items():
        if parent in ("", "frames"):
            for name, (kind, subfield) in attributes.items():
                _add(dataset, f"{parent}.{name}".strip("."), kind, **({"subfield": subfield} if subfield else {}))
        else:
            _add_attributes(dataset, parent, attributes)


def declare_detections(dataset: fo.Dataset, path: str) -> None:
    """Declares a field of lists of masks, unless it is declared.

    Raises:
        FieldError: if the path holds something else
    """
    stored = dataset.get_field(path)
    if stored is None:
        _add(dataset, path, fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    elif getattr(stored, "document_type", None) is not fo.Detections:
        raise FieldError(
            f"dataset {dataset.name!r}: {path!r} holds {_describe(stored)}, not Detections: "
            "choose another label field"
        )


def frame_prefix(dataset: fo.Dataset) -> str:
    """What paths of masks begin with: those of videos lie in frames, those of images in the sample."""
    return "" if dataset.media_type == fom.IMAGE else "frames."


def masklet_path(dataset: fo.Dataset, field: str) -> str:
    """The path of a label field: of the frames of videos, of the sample for images.

    Raises:
        FieldError: for a name that is such a path already
    """
    if field.startswith("frames."):
        raise FieldError(f"masklets are named without 'frames.': {field.removeprefix('frames.')!r}, not {field!r}")
    return frame_prefix(dataset) + field


def masklet_fields(samples: fo.Dataset | fo.DatasetView) -> list[str]:
    """The label fields that may hold masks, without `frames.`: those of Detections, of frames or of images."""
    video = samples.media_type == fom.VIDEO
    schema = samples.get_frame_field_schema() if video else samples.get_field_schema()
    return [name for name, each in (schema or {}).items() if getattr(each, "document_type", None) is fo.Detections]


def has_results(dataset: fo.Dataset, field: str, expressions_field: str) -> bool:
    """Whether `declare_masklet_schema` was here; labels of other origin do not say when they are complete."""
    return (
        holds_labels(dataset, expressions_field)
        and dataset.get_field(f"{label_path(dataset, expressions_field)}.{field}_text") is not None
    )


def _is_video(dataset: fo.Dataset) -> bool:
    if dataset.media_type not in (fom.VIDEO, fom.IMAGE):
        raise FieldError(
            f"dataset {dataset.name!r} has the media type {dataset.media_type}, not video or image: "
            "add its samples before you declare fields"
        )
    return dataset.media_type == fom.VIDEO


def _add(dataset: fo.Dataset, path: str, kind: type[fo.Field], **options: Any) -> None:
    if path.startswith("frames."):
        dataset.add_frame_field(path.removeprefix("frames."), kind, **options)
    else:
        dataset.add_sample_field(path, kind, **options)


def _add_attributes(dataset: fo.Dataset, path: str, attributes: Mapping[str, Kind]) -> None:
    """Adds attributes to the labels at a path, all of them at once."""
    labels = dataset.get_field(path)
    in_list = isinstance(labels, fo.ListField)
    options = {
        "embedded_doc_type": (labels.field if in_list else labels).document_type,
        "fields": [_attribute(name, *kind) for name, kind in attributes.items()],
    }
    if in_list:
        _add(dataset, path, fo.ListField, subfield=fo.EmbeddedDocumentField, **options)
    else:
        _add(dataset, path, fo.EmbeddedDocumentField, **options)


def _attribute(name: str, kind: type[fo.Field], subfield: type[fo.Field] | None) -> fo.Field:
    field = kind(subfield()) if subfield else kind()
    field.name = name
    return field


def _prompt_type(stored: fo.Field) -> type | None:
    if isinstance(stored, fo.StringField):
        return str
    if isinstance(stored, fo.ListField) and isinstance(stored.field, fo.StringField | None):
        return list  # what its items are FiftyOne does not know if the first list that it saw was empty
    document = getattr(stored, "document_type", None)
    return document if document in LISTS else None


def _describe(stored: fo.Field) -> str:
    return getattr(stored, "document_type", type(stored)).__name__
