"""The expressions of a sample: read from any prompt field, numbered, added, and given attributes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any

import fiftyone as fo
import fiftyone.core.expressions as foe
from fiftyone import ViewField as F

from fiftyone_refvos.fields.media import num_frames
from fiftyone_refvos.fields.samples import FieldError, Place, RawLabel, locate, read_label, replace_label
from fiftyone_refvos.fields.schema import (
    EXPRESSIONS,
    LISTS,
    declare_expressions,
    holds_labels,
    label_path,
    prompt_type,
)
from fiftyone_refvos.masklet import Expression


def read_expressions(sample: fo.Sample, prompt_field: str = EXPRESSIONS) -> list[Expression]:
    """The expressions that a field asks for in a sample, each with its id.

    The field may hold text, a list of texts, Classifications or TemporalDetections, or one such label. Labels
    without `expression_id` are given the next free one in the dataset; texts are added to
    `sample.expressions`. Of a view that filters labels, and of a clip that was made of one, only the shown
    expressions are read.

    Args:
        sample: a sample of a dataset, a view or a clips view
        prompt_field: the sample field to read

    Raises:
        FieldError: if the field does not exist, is not set, or holds an empty text or the same id twice
    """
    place = locate(sample)
    kind = prompt_type(place.dataset, prompt_field, owner=place)
    if kind in (str, list):
        (texts,) = place.values(prompt_field)
        if texts is None:
            raise _unset(place, prompt_field)
        return _add(place, [texts] if kind is str else texts, origin=prompt_field)
    stored = read_label(place, prompt_field)
    if stored is None:
        raise _unset(place, prompt_field)
    labels = labels_of(stored)
    number_labels(place, prompt_field, labels)
    shown = _shown_ids(sample, prompt_field)
    expressions = [
        Expression(label["expression_id"], _checked_text(place, prompt_field, label.get("label")))
        for label in labels
        if shown is None or str(label["_id"]) in shown
    ]
    twice = [id_ for id_, times in Counter(expression.id for expression in expressions).items() if times > 1]
    if twice:
        raise FieldError(
            f"{place}: two labels of {prompt_field!r} have the expression_id {twice[0]!r}; give each its own"
        )
    return expressions


def add_expressions(
    sample: fo.Sample, texts: str | Iterable[str], *, field: str = EXPRESSIONS, kind: str = "prompt"
) -> list[Expression]:
    """Adds typed texts to the expressions of a sample, and returns one expression per different text.

    A text that the field has already, of whatever kind, is that expression; a new one gets the next free id.

    Args:
        sample: a sample of a dataset, a view or a clips view; expressions belong to the whole video
        texts: one text or many; white space around them does not count
        field: the field of TemporalDetections (Classifications for images) to add to
        kind: what the new expressions are marked as

    Raises:
        FieldError: for an empty text, or a field that holds something else
    """
    return _add(locate(sample), [texts] if isinstance(texts, str) else texts, field=field, kind=kind)


def write_expression_attributes(
    sample: fo.Sample, attributes: Mapping[str, Mapping[str, Any]], *, field: str = EXPRESSIONS
) -> None:
    """Sets attributes of expressions, in the order in which they are given: one small write per attribute.

    Args:
        sample: the sample
        attributes: values by expression id by name of the attribute, e.g. `{"glus_eval_J": {"0": 0.7}}`;
            their names should be declared
        field: the field with the expressions

    Raises:
        FieldError: for an unknown expression id
    """
    place = locate(sample)
    set_attributes(place, field, labels_by_id(place, field), attributes)


def set_attributes(
    place: Place, field: str, labels: Mapping[str, RawLabel], attributes: Mapping[str, Mapping[str, Any]]
) -> None:
    """As `write_expression_attributes`, for `labels` that were read."""
    path = label_path(place.dataset, field)
    for name, values in attributes.items():
        if unknown := sorted(values.keys() - labels.keys()):
            raise FieldError(
                f"{place}: {field!r} has no expression {unknown[0]!r}, only {sorted(labels)}; "
                "add_expressions adds one"
            )
        changes = [
            {"sample_id": place.sample_id, "label_id": str(labels[id_]["_id"]), "value": value}
            for id_, value in values.items()
        ]
        place.dataset.set_label_values(f"{path}.{name}", changes)


def show_expressions(samples: fo.Dataset | fo.DatasetView, field: str, label_ids: Iterable[str]) -> fo.DatasetView:
    """A view of the samples with certain labels of an expressions field, which shows no other ones.

    Other fields stay as they are; `select_labels` would empty them, so that the App could show no masks.
    """
    chosen = F("_id").is_in([foe.ObjectId(id_) for id_ in label_ids])
    return samples.filter_labels(field, chosen)


def labels_by_id(place: Place, field: str) -> dict[str, RawLabel]:
    """The raw labels of the numbered expressions of the whole video by expression id, {} if unset."""
    if not holds_labels(place.dataset, field):
        return {}
    labels = labels_of(read_label(place, field))
    return {label["expression_id"]: label for label in labels if label.get("expression_id") is not None}


def text_of(label: RawLabel) -> str:
    """The text of a raw label, as expressions have it; "" if it has none."""
    return (label.get("label") or "").strip()


def labels_of(stored: RawLabel | None) -> list[RawLabel]:
    """The raw labels inside a raw label list; a single label is a list of one."""
    if stored is None:
        return []
    inner = {kind.__name__: name for kind, name in LISTS.items()}[stored["_cls"]]
    # FiftyOne deletes a list from the database when the last label in it is removed.
    return (stored.get(inner) or []) if inner else [stored]


def _add(
    place: Place, texts: Iterable[str], *, field: str = EXPRESSIONS, kind: str = "prompt", origin: str = ""
) -> list[Expression]:
    texts = list(dict.fromkeys(_checked_text(place, origin or field, text) for text in texts))
    declare_expressions(place.dataset, field)
    document = prompt_type(place.dataset, field, owner=place)
    inner = LISTS[document]
    if inner is None:
        raise FieldError(f"{place}: {field!r} holds one {document.__name__}, to which no expression can be added")
    while True:  # until no other process adds one between our look and our write
        stored = read_label(place, field)
        labels = labels_of(stored)
        number_labels(place, field, labels)
        known = {text_of(label): label["expression_id"] for label in reversed(labels)}
        new = [text for text in texts if text not in known]
        known |= dict(zip(new, free_ids(labels), strict=False))
        added = [new_label(place, text, known[text], kind) for text in new]
        label = {"_cls": document.__name__, inner: labels + added}
        if not new or replace_label(place, field, stored, label):
            return [Expression(known[text], text) for text in texts]


def new_label(place: Place, text: str, expression_id: str, kind: str) -> RawLabel:
    """The raw label of a new expression, which holds for the whole video."""
    if place.is_video:
        support = [1, num_frames(place)]
        return fo.TemporalDetection(label=text, support=support, expression_id=expression_id, kind=kind).to_dict()
    return fo.Classification(label=text, expression_id=expression_id, kind=kind).to_dict()


def number_labels(place: Place, field: str, labels: list[RawLabel]) -> None:
    """Gives the labels without an expression id the next free ones, here and in the database."""
    without = [label for label in labels if label.get("expression_id") is None]
    if not without:
        return
    declare_expressions(place.dataset, field)
    for label, expression_id in zip(without, free_ids(labels), strict=False):
        label["expression_id"] = expression_id
    changes = [
        {"sample_id": place.sample_id, "label_id": str(label["_id"]), "value": label["expression_id"]}
        for label in without
    ]
    place.dataset.set_label_values(f"{label_path(place.dataset, field)}.expression_id", changes)


def free_ids(labels: list[RawLabel]) -> Iterator[str]:
    """Numbers above all that are taken, from "0" on as in the published datasets."""
    taken = [int(label["expression_id"]) for label in labels if str(label.get("expression_id")).isdecimal()]
    return map(str, count(max(taken, default=-1) + 1))


def _shown_ids(sample: fo.Sample, field: str) -> set[str] | None:
    """The ids of the labels that a view shows of a field; None where it does not show the field at all."""
    if field not in sample.field_names:
        return None
    value = sample[field]
    if value is None:
        return set()
    inner = LISTS[type(value)]
    return {label.id for label in (value[inner] if inner else [value])}


def _checked_text(place: Place, field: str, text: object) -> str:
    if not isinstance(text, str) or not text.strip():
        raise FieldError(f"{place}: an expression in {field!r} is empty: write what to look for, or remove it")
    return text.strip()


def _unset(place: Place, field: str) -> FieldError:
    return FieldError(
        f"{place}: the field {field!r} is not set: set it, or leave the sample out by view.exists({field!r})"
    )
