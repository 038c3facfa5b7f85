"""How failures live in samples: a kind on every expression, and where it happens as TemporalDetections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import fiftyone as fo

from fiftyone_refvos.fields.expressions import labels_by_id, set_attributes, text_of
from fiftyone_refvos.fields.samples import FieldError, RawLabel, locate, read_label, root_dataset, write_label
from fiftyone_refvos.fields.schema import EXPRESSIONS, declare, declare_all, declare_expressions, label_path

_ATTRIBUTES: dict[str, type[fo.Field]] = {
    "expression_id": fo.StringField,
    "expression": fo.StringField,
    "severity": fo.FloatField,
    "switch_frame": fo.IntField,
    "other_object_id": fo.StringField,
}


@dataclass(frozen=True)
class FailureLabel:
    """What is to be written of one expression.

    Attributes:
        kind: what is wrong, "none" if nothing is
        runs: the first and last frame index, from 0 and inclusive, of every stretch where it happens
        severity: in [0, 1]
        switch_frame: frame index, from 0, of an identity switch
        other_object_id: the object that was found instead
    """

    kind: str
    runs: Sequence[tuple[int, int]] = ()
    severity: float = 0.0
    switch_frame: int | None = None
    other_object_id: str | None = None


def kind_field(eval_key: str) -> str:
    """The name of the attribute of expressions with the kind."""
    return f"{eval_key}_failure"


def runs_field(eval_key: str) -> str:
    """The name of the sample field with the TemporalDetections."""
    return f"{eval_key}_failures"


def declare_failures(
    samples: fo.Dataset | fo.DatasetView, eval_key: str, *, expressions_field: str = EXPRESSIONS
) -> None:
    """Declares all that `write_failures` uses; does nothing where it is declared.

    Raises:
        FieldError: for anything but videos, or if one of the names holds something else
    """
    dataset = root_dataset(samples)
    if dataset.media_type != "video":
        raise FieldError(
            f"failures are stretches of videos, but dataset {dataset.name!r} holds {dataset.media_type or 'no'} "
            "samples: pass a video dataset or a view of it"
        )
    declare_expressions(dataset, expressions_field)
    declare(dataset, f"{label_path(dataset, expressions_field)}.{kind_field(eval_key)}", fo.StringField)
    field = runs_field(eval_key)
    stored = dataset.get_field(field)
    if stored is None:
        dataset.add_sample_field(field, fo.EmbeddedDocumentField, embedded_doc_type=fo.TemporalDetections)
    elif getattr(stored, "document_type", None) is not fo.TemporalDetections:
        raise FieldError(
            f"dataset {dataset.name!r}: {field!r} does not hold TemporalDetections, but is where failures go: "
            "choose another eval_key, or rename the field"
        )
    declare_all(dataset, {f"{field}.detections.{name}": (kind, None) for name, kind in _ATTRIBUTES.items()})


def write_failures(
    sample: fo.Sample,
    eval_key: str,
    failures: Mapping[str, FailureLabel | None],
    *,
    expressions_field: str = EXPRESSIONS,
) -> None:
    """Writes the failures of expressions, in place of what was there of them; other expressions keep theirs.

    Args:
        sample: a sample of a dataset or a view, whose schema is declared
        eval_key: the prefix of the fields
        failures: by expression id; None says that an expression could not be judged
        expressions_field: the field with the expressions

    Raises:
        FieldError: for an unknown expression id
    """
    place = locate(sample)
    labels = labels_by_id(place, expressions_field)
    set_attributes(
        place,
        expressions_field,
        labels,
        {kind_field(eval_key): {id_: failure and str(failure.kind) for id_, failure in failures.items()}},
    )
    stored = read_label(place, runs_field(eval_key)) or {"_cls": "TemporalDetections", "detections": []}
    kept = labels.keys() - failures.keys()  # those of expressions that are no more go too
    detections = [each for each in stored.get("detections") or () if each.get("expression_id") in kept]
    for id_, failure in failures.items():
        if failure is not None:
            detections += _detections(id_, text_of(labels[id_]), failure)
    write_label(place, runs_field(eval_key), {**stored, "detections": detections})


def _detections(expression_id: str, text: str, failure: FailureLabel) -> list[RawLabel]:
    switch = failure.switch_frame
    return [
        fo.TemporalDetection(
            label=str(failure.kind),
            support=[first + 1, last + 1],
            expression_id=expression_id,
            expression=text,
            severity=failure.severity,
            switch_frame=None if switch is None else switch + 1,
            other_object_id=failure.other_object_id,
        ).to_dict()
        for first, last in failure.runs
    ]
