"""What forms about measuring list: fields with masklets and expressions, and evaluations. All from the schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fiftyone as fo
from fiftyone.operators import types

from fiftyone_refvos.evaluation.run import METHOD, MaskletEvaluationConfig
from fiftyone_refvos.fields import EXPRESSIONS, schema
from fiftyone_refvos.fields.schema import holds_labels, label_path

from . import forms
from .base import Samples

GROUND_TRUTH = "ground_truth"
PSEUDO_LABELS, KEY_FRAMES = "_ious", "_key_frame_scores"  # what lists of expressions end with


def masklet_fields(dataset: fo.Dataset) -> list[str]:
    """The fields, of frames or images, whose detections say of which expression they are, without `frames.`."""
    prefix = "frames." if dataset.media_type == fo.core.media.VIDEO else ""
    return [
        name
        for name in schema.masklet_fields(dataset)
        if dataset.get_field(f"{prefix}{name}.detections.expression_id") is not None
    ]


def expression_fields(dataset: fo.Dataset) -> list[str]:
    """The sample fields with expressions; stretches of failures name expressions too, but have no kind."""
    return [
        name
        for name in dataset.get_field_schema()
        if holds_labels(dataset, name)
        and all(dataset.get_field(f"{label_path(dataset, name)}.{each}") for each in ("expression_id", "kind"))
    ]


def named_after(dataset: fo.Dataset, expressions_field: str, ending: str) -> list[str]:
    """What the attributes of expressions that end so are named after."""
    if expressions_field not in expression_fields(dataset):
        return []
    path = label_path(dataset, expressions_field) + "."
    names = (name.removeprefix(path) for name in dataset.get_field_schema(flat=True) if name.startswith(path))
    return [name.removesuffix(ending) for name in names if name.endswith(ending)]


def evaluations(dataset: fo.Dataset) -> dict[str, MaskletEvaluationConfig]:
    """The settings of every evaluation of masklets, the latest one first."""
    infos = [dataset.get_evaluation_info(key) for key in dataset.list_evaluations(method=METHOD)]
    return {info.key: info.config for info in sorted(infos, key=lambda info: info.timestamp, reverse=True)}


@dataclass(frozen=True)
class FieldChoice:
    """Which masklets are compared with which; None where there is nothing to choose."""

    pred_field: str | None
    gt_field: str | None
    expressions_field: str | None

    @classmethod
    def of(cls, params: Mapping[str, Any], dataset: fo.Dataset) -> FieldChoice:
        """Reads the parameters of an operator; what they do not say is taken from the schema."""
        known, expressions = masklet_fields(dataset), expression_fields(dataset)
        truth = params.get("gt_field") or (GROUND_TRUTH if GROUND_TRUTH in known else None)
        predicted = params.get("pred_field") or next((name for name in known if name != truth), None)
        default = EXPRESSIONS if EXPRESSIONS in expressions else next(iter(expressions), None)
        return cls(predicted, truth, params.get("expressions_field") or default)

    @property
    def names(self) -> tuple[str, str, str]:
        """The three fields of a valid form, predicted masklets first.

        Raises:
            ValueError: if one of them is not chosen, which forms do not let pass
        """
        if self.pred_field is None or self.gt_field is None or self.expressions_field is None:
            raise ValueError("choose the fields with the masklets of a model, the true ones, and the expressions")
        return self.pred_field, self.gt_field, self.expressions_field


def add_fields(inputs: types.Object, samples: Samples, choice: FieldChoice) -> bool:
    """Adds the choice of the fields to a form, whose target holds what can be compared.

    Args:
        inputs: the form
        samples: the target
        choice: what the form says so far

    Returns:
        whether there is anything to choose; if not, the form says why
    """
    dataset = samples._root_dataset  # no public name leads there from a clips view
    known, expressions = masklet_fields(dataset), expression_fields(dataset)
    if not expressions or len(known) < 2:
        found = f"but it is: {', '.join(known)}" if known else "but there is none"
        forms.error(
            inputs,
            "fields",
            "Two fields with masklets are needed, the model's and the true ones, "
            f"{found}. Masklets are Detections with an `expression_id`; Segment expressions makes those of a model.",
        )
        return False
    fields = {name: name for name in known}
    same = choice.pred_field == choice.gt_field
    forms.dropdown(
        inputs,
        "pred_field",
        fields,
        default=choice.pred_field,
        label="Masklets of the model",
        invalid=same,
        error_message="Choose two different fields",
        space=6,
    )
    forms.dropdown(
        inputs,
        "gt_field",
        fields,
        default=choice.gt_field,
        required=choice.gt_field is None,
        label="True masklets",
        space=6,
    )
    if len(expressions) > 1:
        names = {name: name for name in expressions}
        forms.dropdown(inputs, "expressions_field", names, default=choice.expressions_field, label="Expressions")
    return True


def add_skip_failures(inputs: types.Object) -> None:
    """The choice between stopping at a video that has errors, and going on."""
    inputs.bool("skip_failures", label="Go on after a video that has errors, and leave it out", default=False)


def describe(config: MaskletEvaluationConfig) -> str:
    """An evaluation in few words."""
    return f"'{config.pred_field}' against '{config.gt_field}' by {config.protocol}"
