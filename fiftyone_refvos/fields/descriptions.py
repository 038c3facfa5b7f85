"""How generated expressions live in samples: with what they rest on, and a record of every object that was described.

An expression carries its stage and the answers behind it. The record of its object, in the sample field
`<masklet field>_descriptions`, is also there where no expression came of it; it is written last, and is what makes a
run resumable.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import fiftyone as fo

from fiftyone_refvos.fields.expressions import free_ids, labels_of, new_label, number_labels, text_of
from fiftyone_refvos.fields.media import num_frames
from fiftyone_refvos.fields.runs import to_runs
from fiftyone_refvos.fields.samples import (
    FieldError,
    Place,
    RawLabel,
    locate,
    read_label,
    replace_label,
    root_dataset,
    write_label,
)
from fiftyone_refvos.fields.schema import (
    EXPRESSIONS,
    Kind,
    declare_all,
    declare_expressions,
    has_results,
    label_path,
    prompt_type,
)
from fiftyone_refvos.masklet import Expression

GENERATED = "generated"
"""The `kind` of expressions that were written by a chat model."""

State = Literal["described", "rejected", "failed", "pending"]

_ON_EXPRESSIONS: dict[str, Kind] = {
    "described_field": (fo.StringField, None),
    "object_ids": (fo.ListField, fo.StringField),
    "no_target": (fo.BooleanField, None),
    "stage": (fo.StringField, None),
    "verdict": (fo.StringField, None),
    "stage_answers": (fo.ListField, fo.DictField),
}
_ON_RECORDS: dict[str, Kind] = {
    "object_id": (fo.StringField, None),
    "expression_ids": (fo.ListField, fo.StringField),
    "stages": (fo.ListField, fo.StringField),
    "stage_answers": (fo.ListField, fo.DictField),
    "error": (fo.StringField, None),
    "anew": (fo.BooleanField, None),
}
_ON_MASKS: dict[str, Kind] = dict.fromkeys(("expression_id", "object_id", "category"), (fo.StringField, None))


@dataclass(frozen=True)
class ObjectRecord:
    """What is known of the description of one object.

    Attributes:
        object_id: of the object
        state: "described", "rejected" (there is no expression), "failed" or "pending" (to be asked again)
        answers: of the chat model, as plain values, in the order of the steps
        expressions: the ids of the expressions that were made, by stage
        error: why it failed
        anew: whether new expressions take the place of the former ones also where the answers are the same, and
            somebody has corrected the text since
    """

    object_id: str
    state: State
    answers: tuple[Mapping[str, Any], ...] = ()
    expressions: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None
    anew: bool = False


@dataclass(frozen=True)
class GeneratedExpression:
    """One expression that is to be written.

    Attributes:
        stage: at which it was made
        text: what it says
        verdict: of the check of its object
        answers: of the chat model that it rests on, as plain values
    """

    stage: str
    text: str
    verdict: str | None
    answers: tuple[Mapping[str, Any], ...]


def records_field(masklets_field: str) -> str:
    """The name of the sample field with the records of a field of masks."""
    return f"{masklets_field}_descriptions"


def declare_descriptions(
    samples: fo.Dataset | fo.DatasetView, masklets_field: str, *, expressions_field: str = EXPRESSIONS
) -> None:
    """Declares all that describing writes; does nothing where it is declared.

    Raises:
        FieldError: if one of the names holds something else
    """
    dataset, records = root_dataset(samples), records_field(masklets_field)
    declare_expressions(dataset, expressions_field)
    document = prompt_type(dataset, expressions_field)
    if document is not fo.TemporalDetections:
        raise FieldError(
            f"dataset {dataset.name!r}: {expressions_field!r} holds {document.__name__}, to which no expressions of "
            "videos can be added: choose another expressions_field"
        )
    stored = dataset.get_field(records)
    if stored is None:
        dataset.add_sample_field(records, fo.EmbeddedDocumentField, embedded_doc_type=fo.TemporalDetections)
    elif getattr(stored, "document_type", None) is not fo.TemporalDetections:
        raise FieldError(
            f"dataset {dataset.name!r}: {records!r} does not hold TemporalDetections, but is where the records of "
            "descriptions go: rename the field"
        )
    path = label_path(dataset, expressions_field)
    kinds = {f"{path}.{name}": kind for name, kind in _ON_EXPRESSIONS.items()}
    kinds |= {f"{records}.detections.{name}": kind for name, kind in _ON_RECORDS.items()}
    kinds |= {f"frames.{masklets_field}.detections.{name}": kind for name, kind in _ON_MASKS.items()}
    declare_all(dataset, kinds)


def read_records(sample: fo.Sample, masklets_field: str) -> dict[str, ObjectRecord]:
    """The records of a sample by object id."""
    labels = labels_of(read_label(locate(sample), records_field(masklets_field)))
    return {
        label["object_id"]: ObjectRecord(
            object_id=label["object_id"],
            state=label["label"],
            answers=tuple(label.get("stage_answers") or ()),
            expressions=dict(zip(label.get("stages") or (), label.get("expression_ids") or (), strict=True)),
            error=label.get("error"),
            anew=bool(label.get("anew")),
        )
        for label in labels
    }


def write_record(sample: fo.Sample, masklets_field: str, record: ObjectRecord, *, frames: Sequence[int]) -> None:
    """Writes the record of an object, in place of its former one.

    Args:
        sample: a sample of a dataset or a view
        masklets_field: the field with the masks
        record: of the object
        frames: indices from 0 of the frames that show it
    """
    place, name = locate(sample), records_field(masklets_field)
    stored = read_label(place, name) or {"_cls": "TemporalDetections", "detections": []}
    detection = fo.TemporalDetection(
        label=record.state,
        support=[frames[0] + 1, frames[-1] + 1] if frames else [1, num_frames(place)],
        object_id=record.object_id,
        expression_ids=list(record.expressions.values()),
        stages=list(record.expressions),
        stage_answers=[dict(answer) for answer in record.answers],
        error=record.error,
        anew=record.anew,
    )
    others = [each for each in labels_of(stored) if each.get("object_id") != record.object_id]
    write_label(place, name, {**stored, "detections": [*others, detection.to_dict()]})


def mark_pending(dataset: fo.Dataset, masklets_field: str, objects: Mapping[str, Collection[str]]) -> None:
    """Makes objects be asked about anew; their expressions stay until there are new ones.

    Args:
        dataset: with records
        masklets_field: the field with the masks
        objects: object ids by sample id; those without a record are asked about in any case
    """
    if not objects:
        return
    path = f"{records_field(masklets_field)}.detections"
    found = dataset.select(list(objects)).values(["id", f"{path}.id", f"{path}.object_id"])
    labels = [
        {"sample_id": sample_id, "label_id": label_id}
        for sample_id, label_ids, object_ids in zip(*found, strict=True)
        for label_id, object_id in zip(label_ids or (), object_ids or (), strict=True)
        if object_id in objects[sample_id]
    ]
    # The label first: what lost its answers and is not pending would count as done.
    for name, value in (("label", "pending"), ("anew", True), ("stage_answers", [])):
        dataset.set_label_values(f"{path}.{name}", [{**label, "value": value} for label in labels])


def count_records(samples: fo.Dataset | fo.DatasetView, masklets_field: str) -> int:
    """How many objects of samples have a record."""
    name = records_field(masklets_field)
    return int(samples.count(f"{name}.detections")) if root_dataset(samples).get_field(name) is not None else 0


def generated_expressions(
    sample: fo.Sample, masklets_field: str, *, expressions_field: str = EXPRESSIONS
) -> dict[str, dict[str, str]]:
    """The ids of the expressions that were generated for the objects of a field, by object id and stage."""
    return _generated(labels_of(read_label(locate(sample), expressions_field)), masklets_field)


def write_generated(
    sample: fo.Sample,
    masklets_field: str,
    object_id: str,
    generated: Sequence[GeneratedExpression],
    *,
    frames: Sequence[int],
    anew: bool = False,
    expressions_field: str = EXPRESSIONS,
) -> dict[str, Expression]:
    """Writes the expressions of an object in one step, in place of its former ones.

    That of a stage keeps its id, so that masklets of models which were made for another text turn stale; where it
    rests on the same answers it stays as it is, since somebody may have corrected it, unless it is to be written
    `anew`. Former ones of other stages go.

    Args:
        sample: a sample of a dataset or a view
        masklets_field: the field with its masks
        object_id: of the object
        generated: at most one expression per stage; none removes the former ones
        frames: indices from 0 of the frames that show it
        anew: see above
        expressions_field: the field with the expressions

    Returns:
        the expressions as they are now, by stage
    """
    place = locate(sample)
    while True:  # until no other process adds one between our look and our write
        stored = read_label(place, expressions_field)
        number_labels(place, expressions_field, labels_of(stored))
        labels = list(labels_of(stored))
        positions = {label["expression_id"]: position for position, label in enumerate(labels)}
        mine = _generated(labels, masklets_field).get(object_id, {})
        free, written = free_ids(labels), {}
        for each in generated:
            attributes = _attributes(place, masklets_field, object_id, each, expressions_field, frames)
            id_ = mine.get(each.stage)
            if id_ is None:
                id_ = next(free)
                label = new_label(place, each.text, id_, GENERATED) | attributes
                labels.append(label)
            else:
                label = labels[positions[id_]]
                if anew or label.get("stage_answers") != attributes["stage_answers"]:
                    label = labels[positions[id_]] = label | attributes
            written[each.stage] = Expression(id_, text_of(label))
        gone = set(mine.values()) - {expression.id for expression in written.values()}
        detections = [label for label in labels if label["expression_id"] not in gone]
        if replace_label(place, expressions_field, stored, {"_cls": "TemporalDetections", "detections": detections}):
            return written


def _generated(labels: Sequence[RawLabel], masklets_field: str) -> dict[str, dict[str, str]]:
    """As `generated_expressions`. One that somebody has given other objects is not ours any more."""
    found: dict[str, dict[str, str]] = {}
    for label in labels:
        named = label.get("object_ids") or []
        if label.get("kind") == GENERATED and label.get("described_field") == masklets_field and len(named) == 1:
            found.setdefault(named[0], {})[label["stage"]] = label["expression_id"]
    return found


def _attributes(
    place: Place,
    masklets_field: str,
    object_id: str,
    generated: GeneratedExpression,
    expressions_field: str,
    frames: Sequence[int],
) -> RawLabel:
    attributes: RawLabel = {
        "label": generated.text,
        "described_field": masklets_field,
        "object_ids": [object_id],
        "no_target": False,
        "stage": generated.stage,
        "verdict": generated.verdict,
        "stage_answers": [dict(answer) for answer in generated.answers],
    }
    if has_results(
        place.dataset, masklets_field, expressions_field
    ):  # expressions tell which frames their masks cover
        attributes[f"{masklets_field}_text"] = generated.text
        attributes[f"{masklets_field}_frames"] = to_runs(frame + 1 for frame in frames)
    return attributes
