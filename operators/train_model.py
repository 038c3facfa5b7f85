"""The operator that fine-tunes a model: form, one call of `fiftyone_refvos.train`, report with the curves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types

from fiftyone_refvos.models.registry import DEFAULT_MODEL
from fiftyone_refvos.training.train import train

from . import model_form, reports, train_form
from .base import LibraryOperator, Samples
from .forms import can_schedule
from .masklet_fields import GROUND_TRUTH
from .progress import Tell
from .train_form import Choice

_LOAD_ADAPTER = "@fiftyone-refvos/refvos/load_adapter"
_POINTS = 400  # of a curve, at most: results are documents of the database


class TrainModel(LibraryOperator[Choice]):
    """Fine-tunes a model on the expressions and masks of videos.

    From Python, after `import fiftyone.operators as foo`:

        train = foo.get_operator("@fiftyone-refvos/refvos/train_model")
        train(dataset, "/trainings/dogs", model="glus-s", steps=500, validation="share", delegate=True)
    """

    NAME = "train_model"
    LABEL = "Train model"
    DESCRIPTION = "Fine-tune a model on the expressions and masks of videos"
    NOTHING_DONE = "The training failed"
    COUNTED = "steps"

    def __call__(
        self,
        sample_collection: Samples,
        folder: str | os.PathLike[str],
        *,
        model: str = DEFAULT_MODEL,
        masklets_field: str = GROUND_TRUTH,
        expressions_field: str | None = None,
        min_iou: float | None = None,
        no_target: bool = False,
        steps: int | None = None,
        batch_size: int | None = None,
        accumulation: int | None = None,
        learning_rate: float | None = None,
        validate_every: int | None = None,
        save_every: int | None = None,
        patience: int | None = None,
        precision: str | None = None,
        validation: str | None = None,
        validation_share: float | None = None,
        validation_field: str | None = None,
        checkpoint: str | None = None,
        clip_path: str | None = None,
        delegate: bool = False,
    ) -> Any:
        """Runs or schedules the operator. In notebooks prefer `fiftyone_refvos.train`.

        Args:
            sample_collection: a video dataset, or a view of its samples
            folder: gets all that is written; one that holds this training goes on
            model: its name in the zoo
            masklets_field: the frame field with the masks to learn, without `frames.`
            expressions_field: the sample field with the expressions
            min_iou: learn only from frames whose pseudo-label reaches it
            no_target: whether expressions that mean nothing are learnt, too
            steps, batch_size, accumulation, learning_rate, validate_every, save_every, patience, precision: as
                `fiftyone_refvos.TrainingConfig` has them
            validation: "none", "share", or "view:" and the name of a saved view
            validation_share: of the target, to be held out
            validation_field: the frame field with the true masks to validate with
            checkpoint: a folder to load instead of the published weights
            clip_path: a CLIP folder to load instead of the published one
            delegate: whether to schedule the run for `fiftyone delegated launch` instead of running it now

        Returns:
            as `LibraryOperator.launch`
        """
        params = {
            "folder": os.path.abspath(folder),
            "model": model,
            "masklets_field": masklets_field,
            "expressions_field": expressions_field,
            "min_iou": min_iou,
            "no_target": no_target,
            "steps": steps,
            "batch_size": batch_size,
            "accumulation": accumulation,
            "learning_rate": learning_rate,
            "validate_every": validate_every,
            "save_every": save_every,
            "patience": patience,
            "precision": precision,
            "validation": validation,
            "validation_share": validation_share,
            "validation_field": validation_field,
            "checkpoint": checkpoint,
            "clip_path": clip_path,
            "run_now": not delegate,
        }
        return self.launch(sample_collection, params, delegate=delegate)

    def resolve_execution_options(self, ctx: foo.ExecutionContext) -> foo.ExecutionOptions:
        """As for segmenting: where the App can schedule, large models are to be scheduled unless asked not to."""
        schedule = (
            model_form.is_large(ctx.params.get("model") or DEFAULT_MODEL)
            and can_schedule()
            and not ctx.params.get("run_now")
        )
        return foo.ExecutionOptions(allow_immediate_execution=not schedule, allow_delegated_execution=True)

    def read(self, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        return Choice.of(params, dataset)

    def build_form(self, inputs: types.Object, samples: Samples, choice: Choice) -> None:
        train_form.build(inputs, samples, choice)

    def run_name(self, choice: Choice) -> str:
        return f"{choice.model} → {choice.folder}"

    def first_step(self, choice: Choice) -> str:
        return f"Loading {choice.model}, and reading '{choice.masklets_field}'"

    def last_step(self, samples: Samples, result: Mapping[str, Any]) -> str:
        return f"{result['steps']} {self.COUNTED}"

    def work(self, samples: Samples, choice: Choice, tell: Tell) -> dict[str, Any]:
        if choice.folder is None or choice.masklets_field is None:  # forms do not let it pass
            raise ValueError("choose a folder for the training, and a field with masks to learn")
        training, validation = choice.split(samples)
        trained = train(
            training,
            choice.model,
            folder=choice.folder,
            config=choice.config,
            validation_view=validation,
            masklets_field=choice.masklets_field,
            validation_field=choice.validation_field or choice.masklets_field,
            expressions_field=choice.expressions_field,
            min_iou=choice.min_iou,
            checkpoint=choice.checkpoint,
            clip_path=choice.clip_path,
            progress=tell,
        )
        return {
            "model": trained.model,
            "base": {"checkpoint": choice.checkpoint, "clip_path": choice.clip_path},
            "folder": str(trained.folder),
            "adapter": str(trained.adapter),
            "checkpoint": str(trained.checkpoint),
            "plot": str(trained.plot),
            "steps": trained.steps,
            "validation": None if trained.validation is None else f"{trained.validation:.4f}",
            "validated_step": trained.validated_step,
            "stopped_because": trained.stopped_because,
            "data": [{"source": name, "report": report} for name, report in trained.reports.items()],
            "curves": curves(trained.folder),
        }

    def build_report(self, outputs: types.Object, result: Mapping[str, Any]) -> None:
        done = f"{result['model']} was trained for {result['steps']} steps"
        outputs.view("title", types.Success(label=f"{done}: the adapter is in {result['adapter']}"))
        layout = {"title": "Losses", "xaxis": {"title": "step"}, "yaxis": {"title": "loss"}, "height": 360}
        if result["validation"] is not None:
            layout |= {"yaxis2": {"title": "J&F", "overlaying": "y", "side": "right", "range": [0, 1]}}
        outputs.plot("curves", data=result["curves"], layout=layout)
        labels = {"checkpoint": "Merged checkpoint", "plot": "Picture of the curves"}
        if result["validation"] is not None:
            labels |= {"validation": "J&F of the saved parameters", "validated_step": "After step"}
        reports.add_counts(outputs, labels)
        reports.add_table(outputs, "data", {"source": "Trained on", "report": ""})
        base = {name: path for name, path in result["base"].items() if path is not None}
        params = {"model": result["model"], "adapters_folder": result["folder"], **base}
        outputs.view(
            "load_adapter",
            types.Button(label="Segment with it", operator=_LOAD_ADAPTER, params=params, prompt=True),
        )


def curves(folder: Path, measure: str = "J&F") -> list[dict[str, Any]]:
    """The losses and validations of a training as traces of plotly; `measure` is what was validated."""
    # here: matplotlib and tensorboard take seconds, and listing operators should not
    from fiftyone_refvos.training.logs import METRICS, read_rows

    rows = read_rows(folder / METRICS)
    shown = rows[:: max(1, -(-len(rows) // _POINTS))]
    names = sorted({name for row in shown for name in row.losses})
    traces: list[dict[str, Any]] = [
        {
            "name": name,
            "mode": "lines",
            "x": [row.step for row in shown if name in row.losses],
            "y": [row.losses[name] for row in shown if name in row.losses],
        }
        for name in names
    ]
    validations = [(row.step, row.validation) for row in rows if row.validation is not None]
    if validations:
        x, y = map(list, zip(*validations, strict=True))
        traces.append({"name": f"validation {measure}", "mode": "lines+markers", "yaxis": "y2", "x": x, "y": y})
    return traces
