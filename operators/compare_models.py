"""The operator that compares two evaluations: form, one call of `fiftyone_refvos.compare`, report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import fiftyone as fo
from fiftyone.operators import types

from fiftyone_refvos.comparison import Comparison, compare

from . import forms, reports
from .base import LibraryOperator, Samples
from .masklet_fields import describe, evaluations
from .progress import Tell
from .show_view import add_view_button, keep_view

Measure = Literal["JF", "J", "F", "iou"]
MEASURES = {"JF": "J&F", "J": "J", "F": "F"}
IMAGE_MEASURES = {"iou": "IoU"}
NUM_REGRESSIONS = 20


@dataclass(frozen=True)
class Choice:
    """Which evaluations are compared; None where there is none to choose."""

    old_key: str | None
    new_key: str | None
    measure: Measure
    num_regressions: int


class CompareModels(LibraryOperator[Choice]):
    """Says which expressions a model does better and worse than another one.

    From Python, after `import fiftyone.operators as foo`:

        compare = foo.get_operator("@fiftyone-refvos/refvos/compare_models")
        compare(dataset, "old_eval", "new_eval")
    """

    NAME = "compare_models"
    LABEL = "Compare models"
    DESCRIPTION = "What one evaluation of masklets wins and loses against another"
    NOTHING_DONE = "Nothing was compared"

    def __call__(
        self,
        sample_collection: Samples,
        old_key: str,
        new_key: str,
        *,
        measure: Measure | None = None,
        num_regressions: int = NUM_REGRESSIONS,
        delegate: bool = False,
    ) -> Any:
        """Runs or schedules the operator. In notebooks prefer `fiftyone_refvos.compare`.

        Args:
            sample_collection: a dataset of videos or images, or a view of its samples
            old_key: the evaluation to compare with
            new_key: the one that wins or loses
            measure: what is compared; by default J&F of videos, the IoU of images
            num_regressions: how many of the largest losses to show
            delegate: whether to schedule the run for `fiftyone delegated launch` instead of running it now

        Returns:
            as `LibraryOperator.launch`
        """
        params = {"old_key": old_key, "new_key": new_key, "measure": measure, "num_regressions": num_regressions}
        return self.launch(sample_collection, params, delegate=delegate)

    def read(self, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        known = list(evaluations(dataset))
        new = params.get("new_key") or next((key for key in known if key != params.get("old_key")), None)
        given = params.get("num_regressions")
        return Choice(
            old_key=params.get("old_key") or next((key for key in known if key != new), None),
            new_key=new,
            measure=cast(Measure, params.get("measure") or ("JF" if dataset.media_type == "video" else "iou")),
            num_regressions=NUM_REGRESSIONS if given is None else int(given),
        )

    def build_form(self, inputs: types.Object, samples: Samples, choice: Choice) -> None:
        if not forms.are_videos_or_images(inputs, samples, "compared"):
            return
        known = evaluations(samples._root_dataset)
        if len(known) < 2:
            there_are = f"there is only {', '.join(known)}" if known else "there are none"
            forms.error(
                inputs,
                "evaluations",
                f"Two evaluations of masklets are needed, but {there_are}: Evaluate masklets makes them",
            )
            return
        keys = {key: key for key in known}
        descriptions = {key: describe(config) for key, config in known.items()}
        for name, label, chosen in (("old_key", "Old", choice.old_key), ("new_key", "New", choice.new_key)):
            forms.dropdown(
                inputs,
                name,
                keys,
                default=chosen,
                label=label,
                descriptions=descriptions,
                description=descriptions.get(chosen or ""),
                space=6,
                invalid=name == "new_key" and choice.old_key == choice.new_key,
                error_message="Choose two different evaluations",
            )
        _warn_of_differences(inputs, choice, known)
        measures = MEASURES if samples.media_type == "video" else IMAGE_MEASURES
        forms.dropdown(inputs, "measure", measures, default=next(iter(measures)), label="Measure", space=6)
        inputs.int(
            "num_regressions",
            label="Number of regressions to show",
            default=NUM_REGRESSIONS,
            min=1,
            view=types.FieldView(space=6),
        )

    def run_name(self, choice: Choice) -> str:
        return f"{choice.old_key} → {choice.new_key}"

    def first_step(self, choice: Choice) -> str:
        return "Comparing"

    def work(self, samples: Samples, choice: Choice, tell: Tell) -> dict[str, Any]:
        known = evaluations(samples._root_dataset)
        old, new = str(choice.old_key), str(choice.new_key)
        comparison = compare(
            samples, old, new, measure=choice.measure, expressions_field=known[new].expressions_field
        )
        view = comparison.regressions(choice.num_regressions) if comparison.losses else None
        return {
            "old_key": old,
            "new_key": new,
            "measure": (MEASURES | IMAGE_MEASURES)[choice.measure],
            "saved_view": keep_view(samples, f"{new}: worse than {old}", view),
            "wins": len(comparison.wins),
            "losses": len(comparison.losses),
            "ties": comparison.num_ties,
            "num_unpaired": comparison.num_unpaired,
            "mean_delta": f"{comparison.mean_delta:+.4f}",
            "regressions": _rows(comparison, choice.num_regressions),
        }

    def build_report(self, outputs: types.Object, result: Mapping[str, Any]) -> None:
        counts = f"{result['wins']} wins, {result['losses']} losses, {result['ties']} ties"
        title = f"'{result['new_key']}' against '{result['old_key']}' by {result['measure']}: {counts}"
        outputs.view("title", types.Warning(label=title) if result["losses"] else types.Success(label=title))
        labels = {
            "mean_delta": f"Mean change of {result['measure']}",
            "num_unpaired": "Expressions that only one of them has scored",
        }
        reports.add_counts(outputs, labels)
        if result["regressions"]:
            columns = {"text": "Expression", "video": "File", "old": "Old", "new": "New", "delta": "Change"}
            reports.add_table(outputs, "regressions", columns, label="Largest regressions")
        add_view_button(outputs, result, "Show the regressions")


def _warn_of_differences(inputs: types.Object, choice: Choice, known: Mapping[str, Any]) -> None:
    """Scores against different masks cannot be compared, though nothing stops it."""
    truths = {config.gt_field for key, config in known.items() if key in (choice.old_key, choice.new_key)}
    if len(truths) > 1:
        notice = f"They were measured against different masks: {' and '.join(sorted(map(repr, truths)))}"
        inputs.view("truth_notice", types.Warning(label=notice))


def _rows(comparison: Comparison, limit: int) -> list[dict[str, str]]:
    losses = comparison.losses[:limit]
    shown = comparison.samples.select([each.sample_id for each in losses])
    files = dict(zip(*shown.values(["id", "filepath"]), strict=True))
    return [
        {
            "text": each.text,
            "video": Path(files[each.sample_id]).name,
            "old": f"{each.a:.4f}",
            "new": f"{each.b:.4f}",
            "delta": f"{each.delta:+.4f}",
        }
        for each in losses
    ]
