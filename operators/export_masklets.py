"""The operator that exports masklets: form, one FiftyOne export, report."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import eta.core.utils as etau
import fiftyone as fo
from fiftyone.operators import types

from fiftyone_refvos.fields import EXPRESSIONS

from . import export_form, reports
from .base import LibraryOperator, Samples
from .export_form import Choice
from .progress import Tell, follow


class ExportMasklets(LibraryOperator[Choice]):
    """Writes masklets and their videos into files that other programs train on or evaluate.

    From Python, after `import fiftyone.operators as foo`:

        export = foo.get_operator("@fiftyone-refvos/refvos/export_masklets")
        export(dataset, "mevis", "glus", "/exports/mevis", delegate=True)
    """

    NAME = "export_masklets"
    LABEL = "Export masklets"
    DESCRIPTION = "Masklets as files to train on, to evaluate, or to submit"
    NOTHING_DONE = "Nothing was exported"
    COUNTED = "samples"

    def __call__(
        self,
        sample_collection: Samples,
        format: str,
        masklets_field: str,
        export_dir: str | os.PathLike[str],
        *,
        export_media: str = "copy",
        split: str | None = None,
        expressions_field: str = EXPRESSIONS,
        overwrite: bool = False,
        delegate: bool = False,
    ) -> Any:
        """Runs or schedules the operator. In notebooks prefer `dataset.export`.

        Args:
            sample_collection: a dataset, or a view of its samples
            format: a name of `fiftyone_refvos.exports.registry.FORMATS`
            masklets_field: the field with the masks, without `frames.`
            export_dir: the folder to write; for archives also the file
            export_media: "copy" or "symlink" images and videos, or "none" for labels alone
            split: of all samples; by default that of their tags
            expressions_field: the field with the expressions
            overwrite: delete what is in the folder
            delegate: whether to schedule the run for `fiftyone delegated launch` instead of running it now

        Returns:
            as `LibraryOperator.launch`
        """
        params = {
            "format": format,
            "masklets_field": masklets_field,
            "export_dir": os.path.abspath(export_dir),
            "export_media": export_media,
            "split": split,
            "expressions_field": expressions_field,
            "overwrite": overwrite,
        }
        return self.launch(sample_collection, params, delegate=delegate)

    def read(self, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        return Choice.of(params, dataset)

    def build_form(self, inputs: types.Object, samples: Samples, choice: Choice) -> None:
        export_form.build(inputs, samples, choice)

    def run_name(self, choice: Choice) -> str:
        return f"{choice.field} → {choice.export_dir}"

    def first_step(self, choice: Choice) -> str:
        return f"Writing {choice.export_dir}"

    def work(self, samples: Samples, choice: Choice, tell: Tell) -> dict[str, Any]:
        exporter = choice.exporter
        _field, target = exporter.check(samples)
        samples.export(dataset_exporter=exporter, overwrite=choice.overwrite, progress=follow(tell))
        return {
            "path": str(target),
            "field": choice.field,
            "num_samples": len(samples),
            "size": etau.to_human_bytes_str(_size(target), decimals=1),
        }

    def build_report(self, outputs: types.Object, result: Mapping[str, Any]) -> None:
        label = f"The masklets of '{result['field']}' are in {result['path']}"
        outputs.view("title", types.Success(label=label))
        reports.add_counts(outputs, {"num_samples": "Samples", "size": "On disk"})


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links count as what they are."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if not file.is_dir()]
    return sum(file.lstat().st_size for file in files)
