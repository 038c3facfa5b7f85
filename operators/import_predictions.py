"""The operator that imports what other programs predict: form, one call of `fiftyone_refvos`, report."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.message import GeneratedMessage

from fiftyone_refvos.fields import EXPRESSIONS
from fiftyone_refvos.fields.scores import media_names
from fiftyone_refvos.import_predictions import PredictionFormat, import_predictions, open_predictions
from fiftyone_refvos.predictions.result_files import Sa2VAResults, YouTubeVISResults
from fiftyone_refvos.predictions.submission import TOP, SubmissionArchive

from . import forms, label_fields, paths, reports
from .base import LibraryOperator, Samples
from .masklet_fields import expression_fields
from .progress import Tell

AUTO = "auto"
_LISTED = 3  # names of videos in a message
_KINDS: dict[type, str] = {
    SubmissionArchive: "a zipped submission",
    Sa2VAResults: "results of Sa2VA",
    YouTubeVISResults: "a YouTube-VIS file",
}


@dataclass(frozen=True)
class Choice:
    """What the form, or a caller from Python, has chosen.

    Attributes:
        params: as they came
        path: of the predictions
        format: None to recognise it
        annotations: for YouTube-VIS results, the file with the names of their videos
    """

    params: Mapping[str, Any]
    path: Path | None
    format: PredictionFormat | None
    annotations: Path | None
    label_field: str
    expressions_field: str
    overwrite: bool
    skip_failures: bool

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Choice:
        """Reads the parameters of the operator."""
        path, chosen = paths.given(params, "path"), params.get("format")
        return cls(
            params=params,
            path=path,
            format=None if chosen == AUTO else chosen,
            annotations=paths.given(params, "annotations"),
            label_field=params.get("label_field") or _field_of(path),
            expressions_field=params.get("expressions_field") or EXPRESSIONS,
            overwrite=bool(params.get("overwrite")),
            skip_failures=bool(params.get("skip_failures")),
        )


class ImportPredictions(LibraryOperator[Choice]):
    """Writes the masks of another program into a frame field, as if a model had run here.

    From Python, after `import fiftyone.operators as foo`:

        import_predictions = foo.get_operator("@fiftyone-refvos/refvos/import_predictions")
        import_predictions(dataset, "/results/submission.zip", "theirs", delegate=True)
    """

    NAME = "import_predictions"
    LABEL = "Import predictions"
    DESCRIPTION = "Masks of other programs: submissions, results of Sa2VA, YouTube-VIS files"
    NOTHING_DONE = "The import failed"

    def __call__(
        self,
        sample_collection: Samples,
        path: str | os.PathLike[str],
        label_field: str | None = None,
        *,
        format: PredictionFormat | None = None,
        annotations: str | os.PathLike[str] | None = None,
        expressions_field: str = EXPRESSIONS,
        overwrite: bool = False,
        skip_failures: bool = False,
        delegate: bool = False,
    ) -> Any:
        """Runs or schedules the operator. In notebooks prefer `fiftyone_refvos.import_predictions`.

        Args:
            sample_collection: a video dataset, or a view of its samples
            path: a folder, zip or JSON file
            label_field: frame field for the masklets; by default it is called as the file
            format: of the file; by default it is recognised
            annotations: for YouTube-VIS results, the file with the names of their videos and categories
            expressions_field: the field with the expressions
            overwrite: remove what the label field holds of these samples, also where the file has nothing for it
            skip_failures: go on after a video that cannot be read, and list it in the report
            delegate: whether to schedule the run for `fiftyone delegated launch` instead of running it now

        Returns:
            as `LibraryOperator.launch`
        """
        params = {
            "path": os.path.abspath(path),
            "label_field": label_field,
            "format": format,
            "annotations": None if annotations is None else os.path.abspath(annotations),
            "expressions_field": expressions_field,
            "overwrite": overwrite,
            "skip_failures": skip_failures,
        }
        return self.launch(sample_collection, params, delegate=delegate)

    def read(self, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        return Choice.of(params)

    def build_form(self, inputs: types.Object, samples: Samples, choice: Choice) -> None:
        if not forms.are_videos(inputs, samples, "given masklets"):
            return
        dataset = samples._root_dataset  # no public name leads there from a clips view
        fields = expression_fields(dataset)
        if not fields:
            forms.error(inputs, "expressions_field", "The dataset has no expressions that predictions could be of")
            return
        _add_source(inputs, samples, choice)
        default = EXPRESSIONS if EXPRESSIONS in fields else fields[0]
        if len(fields) > 1 or choice.expressions_field not in fields:
            names = {name: name for name in fields}
            forms.dropdown(inputs, "expressions_field", names, default=default, label="Expressions")
        if label_fields.add(inputs, dataset, choice.label_field):
            label_fields.add_overwrite(
                inputs,
                dataset,
                choice.label_field,
                is_same=lambda former: former.get("path") == str(choice.path),
                goes_on="It is read again.",
                overwrite=choice.overwrite,
            )
        inputs.bool("skip_failures", label="Go on after a video that cannot be read, and list it", default=False)
        forms.add_schedule_notice(inputs)

    def run_name(self, choice: Choice) -> str:
        return f"{choice.path} → {choice.label_field}"

    def first_step(self, choice: Choice) -> str:
        return f"Reading {choice.path}"

    def work(self, samples: Samples, choice: Choice, tell: Tell) -> dict[str, Any]:
        if choice.path is None:
            raise ValueError("the path of the predictions is not said")
        report = import_predictions(
            samples,
            choice.path,
            choice.label_field,
            format=choice.format,
            annotations=choice.annotations,
            expressions_field=choice.expressions_field,
            overwrite=choice.overwrite,
            skip_failures=choice.skip_failures,
            progress=tell,
        )
        return {
            "label_field": report.label_field,
            "num_videos": report.num_videos,
            "num_expressions": report.num_expressions,
            "num_missing": report.num_missing,
            "num_unknown": len(report.unknown_videos),
            "num_failed": len(report.failures),
            "failures": reports.failure_rows((failure.filepath, failure.error) for failure in report.failures),
        }

    def update_app(
        self, ctx: foo.ExecutionContext, choice: Choice, result: dict[str, Any]
    ) -> Iterator[GeneratedMessage]:
        yield ctx.ops.set_active_fields(sorted({*ctx.active_fields, f"frames.{choice.label_field}"}))

    def build_report(self, outputs: types.Object, result: Mapping[str, Any]) -> None:
        written = f"{result['num_expressions']} masklets written into 'frames.{result['label_field']}'"
        complete = not (result["failures"] or result["num_missing"] or result["num_unknown"])
        outputs.view("title", (types.Success if complete else types.Warning)(label=written))
        labels = {
            "num_videos": "Videos that got masklets",
            "num_missing": "Expressions of these videos that the file has nothing of",
            "num_unknown": "Videos of the file that are not in the target",
            "num_failed": "Videos that failed",
        }
        reports.add_counts(outputs, labels)
        reports.add_failures(outputs, result)


def _field_of(path: Path | None) -> str:
    """The name of a field for a file: `sub-1.zip` becomes `sub_1`."""
    name = re.sub(r"\W+", "_", path.stem if path else "", flags=re.ASCII).strip("_")
    return name if name and not name[0].isdigit() else f"predictions_{name}".strip("_")


def _add_source(inputs: types.Object, samples: Samples, choice: Choice) -> None:
    """Adds the file and its format, and says what is in it."""
    problem = paths.missing(choice.path) if choice.path else None
    paths.add(
        inputs,
        "path",
        choice.params,
        label="Predictions, on the server: a folder, zip or JSON file",
        error=problem,
        required=True,
    )
    formats = {AUTO: "recognised by itself", **{name: name for name in get_args(PredictionFormat)}}
    forms.dropdown(inputs, "format", formats, default=AUTO, label="Format", space=6)
    if choice.path is None or problem:
        return
    is_json = choice.path.is_file() and choice.path.suffix.lower() == ".json"
    wrong = paths.missing(choice.annotations) if choice.annotations else None
    if is_json or choice.annotations:
        paths.add(
            inputs,
            "annotations",
            choice.params,
            label="Annotations, for YouTube-VIS results alone: the file with the names of their videos",
            error=wrong,
        )
    if not wrong:
        _add_preview(inputs, samples, choice.path, choice)


def _add_preview(inputs: types.Object, samples: Samples, path: Path, choice: Choice) -> None:
    names = set(media_names(samples))
    if path.is_dir():  # not searched: while a path is typed it is "/" and "/home", too
        found = frozenset(name for name in names if (path / name).is_dir() or (path / TOP / name).is_dir())
        text = f"a submission with folders for {len(found):,} of the {len(names):,} videos of the target"
    else:
        kind, videos = _opened(path, choice.format, choice.annotations, _state(path), _state(choice.annotations))
        if isinstance(videos, str):
            forms.error(inputs, "preview", videos)
            return
        found = videos & names
        text = f"{kind} of {len(videos):,} videos, {len(found):,} of the {len(names):,} of the target"
    if found:
        inputs.view("preview", types.Notice(label=f"Recognised: {text}"))
    else:
        inputs.view("preview", types.Warning(label=f"Recognised: {text}, such as {_some(names)}"))


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:_LISTED]) or "none"


@lru_cache(maxsize=4)
def _opened(
    path: Path, format: PredictionFormat | None, annotations: Path | None, *states: object
) -> tuple[str, frozenset[str] | str]:
    """The kind of a file and the names of its videos, or what is wrong; read once, not at every keystroke."""
    try:
        source = open_predictions(path, format, annotations)
        return _KINDS[type(source)], frozenset(source.videos())
    except (ValueError, OSError) as error:
        return "", str(error)


def _state(path: Path | None) -> tuple[int, int] | None:
    """What changes when a file does."""
    if path is None:
        return None
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns
