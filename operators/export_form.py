"""The form of the operator that exports masklets: what, as what, where to, and what is in the way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import eta.core.utils as etau
import fiftyone as fo
from fiftyone import ViewField as F
from fiftyone.operators import types

from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.exporter import MaskletExporter, exporter_for
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.reading import SPLITS
from fiftyone_refvos.exports.registry import FORMATS
from fiftyone_refvos.fields import EXPRESSIONS, FieldError
from fiftyone_refvos.fields.schema import label_path, masklet_fields

from . import forms, paths
from .base import Samples
from .masklet_fields import expression_fields

MEDIA = {"copy": "copy images and videos", "symlink": "link to them", "none": "labels alone"}
_EXPORT_MEDIA: dict[str, bool | str] = {"copy": True, "symlink": "symlink", "none": False}
_MEASURED = 8  # videos whose files are looked at to tell the size of all
_BY_TAG = "by its tag"


@dataclass(frozen=True)
class Choice:
    """What the form, or a caller from Python, has chosen.

    Attributes:
        params: as they came
        format: a name of FORMATS; None if it is still to be chosen
        field: the field with the masklets, without `frames.`
        export_dir: the folder, for archives also the file
        export_media: a key of MEDIA
        split: of all samples; None for that of their tags
    """

    params: Mapping[str, Any]
    format: str | None
    field: str | None
    expressions_field: str
    export_dir: Path | None
    export_media: str
    split: str | None
    overwrite: bool

    @classmethod
    def of(cls, params: Mapping[str, Any], dataset: fo.Dataset) -> Choice:
        """Reads the parameters of the operator; a field that is the only one need not be chosen."""
        split, known = params.get("split"), masklet_fields(dataset)
        return cls(
            params=params,
            format=params.get("format"),
            field=params.get("masklets_field") or (known[0] if len(known) == 1 else None),
            expressions_field=params.get("expressions_field") or EXPRESSIONS,
            export_dir=paths.given(params, "export_dir"),
            export_media=params.get("export_media") or "copy",
            split=None if split == _BY_TAG else split,
            overwrite=bool(params.get("overwrite")),
        )

    @property
    def format_cls(self) -> type[Format] | None:
        """The chosen format; None if there is none of that name."""
        return FORMATS.get(self.format or "")

    @property
    def exporter(self) -> MaskletExporter:
        """What exports as chosen.

        Raises:
            ExportError: if no format is chosen
        """
        if self.format_cls is None:
            raise ExportError(f"there is no format {self.format!r}: choose one of {', '.join(FORMATS)}")
        exporter = exporter_for(self.format_cls)(
            export_dir=None if self.export_dir is None else str(self.export_dir),
            masklets_field=self.field,
            expressions_field=self.expressions_field,
            split=self.split,
            export_media=_EXPORT_MEDIA[self.export_media],
        )
        exporter.overwrite = self.overwrite
        return exporter


def build(inputs: types.Object, samples: Samples, choice: Choice) -> None:
    """Adds all inputs to a form."""
    known, expressions = masklet_fields(samples), expression_fields(samples._root_dataset)
    if not known or not expressions:
        forms.error(inputs, "masklets_field", "The target has no field with masks of expressions to export")
        return
    formats = {name: each for name, each in FORMATS.items() if samples.media_type in each.media_types}
    forms.dropdown(
        inputs,
        "format",
        {name: each.title for name, each in formats.items()},
        default=None,
        required=True,
        label="Format",
        descriptions={name: each.description for name, each in formats.items()},
    )
    if choice.format_cls is not None:
        inputs.view(
            "format_notice", types.Notice(label=f"{choice.format_cls.title}: {choice.format_cls.description}")
        )
    forms.dropdown(
        inputs,
        "masklets_field",
        {name: name for name in known},
        default=choice.field,
        required=choice.field is None,
        label="Masklets",
        space=6,
    )
    if len(expressions) > 1:
        names = {name: name for name in expressions}
        default = EXPRESSIONS if EXPRESSIONS in expressions else expressions[0]
        forms.dropdown(inputs, "expressions_field", names, default=default, label="Expressions", space=6)
    splits = {_BY_TAG: "that of its tags, else train", **{name: name for name in SPLITS}}
    forms.dropdown(inputs, "split", splits, default=_BY_TAG, label="Split of every sample", space=6)
    if choice.format_cls is not None and choice.format_cls.archive is None:
        forms.dropdown(inputs, "export_media", MEDIA, default="copy", label="Images and videos", space=6)
    _add_folder(inputs, samples, choice)
    forms.add_schedule_notice(inputs)


def _add_folder(inputs: types.Object, samples: Samples, choice: Choice) -> None:
    """Adds the folder, what is in the way of the export, and how large it is."""
    archive = choice.format_cls.archive if choice.format_cls else None
    problem = _path_problem(choice.export_dir, archive) if choice.export_dir else None
    label = "Folder to write, on the server"
    paths.add(
        inputs,
        "export_dir",
        choice.params,
        label=f"{label}, or the file to write instead of {archive} in it" if archive else label,
        error=problem,
        folder=True,
        required=True,
    )
    if choice.export_dir is None or problem or choice.format_cls is None or choice.field is None:
        return
    target = choice.export_dir
    if archive is not None and target.suffix != Path(archive).suffix:
        target /= archive
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        _add_overwrite(inputs, target)
    try:
        choice.exporter.check(samples)
    except (ExportError, FieldError) as error:
        forms.error(inputs, "check", str(error))
        return
    counts = _count(samples, choice)
    if counts.num_without:
        forms.error(
            inputs,
            "check",
            f"{counts.num_without:,} of the {len(samples):,} samples have no masks in '{choice.field}', not even "
            "empty ones: choose a view of the others, such as those with the tag of another split",
        )
        return
    inputs.view("preview", types.Notice(label=f"{target}: {_summary(samples, choice, counts)}"))


def _path_problem(path: Path, archive: str | None) -> str | None:
    if archive is not None and path.suffix == Path(archive).suffix:
        return paths.problem(path) or paths.unwritable(path.parent)
    return paths.unwritable(path)


def _add_overwrite(inputs: types.Object, target: Path) -> None:
    held = f"with the {len([*target.iterdir()]):,} files and folders in it" if target.is_dir() else "which is a file"
    label = f"Overwrite: delete {target}, {held}, once the export is complete"
    inputs.bool("overwrite", label=label, default=False)


def _summary(samples: Samples, choice: Choice, counts: _Counts) -> str:
    text = f"{len(samples):,} samples, {counts.num_expressions:,} expressions, {counts.num_masks:,} masks"
    if choice.format_cls is None or choice.format_cls.archive is not None or choice.export_media != "copy":
        return text
    size = etau.to_human_bytes_str(_media_bytes(samples), decimals=1)
    return f"{text}; the images and videos that they are of take about {size}"


@dataclass(frozen=True)
class _Counts:
    """What is exported; `num_without` are samples that no format can hold."""

    num_expressions: int
    num_masks: int
    num_without: int


def _count(samples: Samples, choice: Choice) -> _Counts:
    view = json.dumps(samples.view()._serialize(), default=str, sort_keys=True)
    modified = str(samples.max("last_modified_at"))
    return _counted(samples._root_dataset.name, view, choice.field or "", choice.expressions_field, modified)


@lru_cache(maxsize=8)
def _counted(name: str, view: str, field: str, expressions_field: str, modified: str) -> _Counts:
    """To look at all frames takes seconds for many masks, which is too long for every keystroke."""
    dataset = fo.load_dataset(name)
    samples = fo.DatasetView._build(dataset, json.loads(view))
    num_expressions = samples.count(label_path(dataset, expressions_field))
    if samples.media_type != fo.core.media.VIDEO:
        without = len(samples) - len(samples.exists(field))
        return _Counts(num_expressions, samples.count(f"{field}.detections"), without)
    annotated = samples.values(F("frames").filter(F(f"{field}.detections") != None).length())  # noqa: E711
    return _Counts(num_expressions, samples.count(f"frames.{field}.detections"), annotated.count(0))


def _media_bytes(samples: Samples) -> int:
    """What images and videos take, from the files of some samples."""
    some = samples[:_MEASURED]
    folders = samples.has_field("frames_dir")
    listed = some.values(["filepath", "frames_dir", "frame_names"]) if folders else (some.values("filepath"),)
    found = [_files_bytes(*values) for values in zip(*listed, strict=True)]
    return round(sum(found) / max(1, len(found)) * len(samples))


def _files_bytes(filepath: str, frames_dir: str | None = None, frame_names: list[str] | None = None) -> int:
    files = [Path(frames_dir) / name for name in frame_names or ()] if frames_dir else [Path(filepath)]
    return sum(file.stat().st_size for file in files if file.is_file())
