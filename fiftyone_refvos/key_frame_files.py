"""Key frames, scores and pseudo-labels in the files of GLUS: read into a dataset, and written for other programs.

`{"<video>_<expression id>": <number in the name of the frame>}`    key frames, one file
`<video>/<expression id>.json`                                      pseudo-labels: a list, one number per frame
`<video>/<expression id>/<frame>.json`                              scores: `{"iou": <number>}`
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `import fiftyone_refvos` should not
    import fiftyone as fo

_LISTED = 5  # names in a message


@dataclass
class KeyFrameImport:
    """What was read of a file or folder.

    Attributes:
        field: what the attributes of the expressions are named after
        num_expressions: that something was written for
        num_missing: expressions of the samples that the file has nothing of
        unknown: what the file names and no sample has
    """

    field: str
    num_expressions: int = 0
    num_missing: int = 0
    unknown: list[str] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"{self.num_expressions} expressions read for {self.field!r}; {self.num_missing} have nothing there"]
        if self.unknown:
            names = ", ".join(self.unknown[:_LISTED])
            lines.append(f"  {len(self.unknown)} entries are of no expression of these samples: {names}")
        return "\n".join(lines)


def import_key_frames(
    samples: fo.Dataset | fo.DatasetView,
    path: str | os.PathLike[str],
    field: str,
    *,
    expressions_field: str = "expressions",
) -> KeyFrameImport:
    """Reads the key frames of a file as GLUS publishes them into `<field>_key_frame` of the expressions.

    A value is the number in the name of a frame, and no index: 15 is the frame `00015.jpg`, even if it is the fourth
    of the video. The frames of a video file are counted from 0. All is checked before anything is written. Former key
    frames of these expressions are replaced, with their scores.

    Args:
        samples: a video dataset, or a view of its samples
        path: the JSON file
        field: what the attributes are named after
        expressions_field: the sample field with the expressions

    Raises:
        DatasetError: for a file that cannot be read, no entry of these samples, an entry of two expressions, numbers
            that no frame of the video has, and values that are no whole numbers, with the entry
    """
    from fiftyone_refvos import fields, run_records
    from fiftyone_refvos.datasets.files import DatasetError

    stored = _read(Path(path))
    if not isinstance(stored, dict):
        raise DatasetError(f"{path} holds no JSON object of key frames, '<video>_<expression id>' to a frame number")
    fields.check_label_field(field)
    report, found = KeyFrameImport(field), {}
    ours: set[str] = set()
    for sample, name in _videos(samples):
        known = {f"{name}_{each.id}": each.id for each in fields.read_expressions(sample, expressions_field)}
        if twice := sorted(ours & known.keys() & stored.keys()):
            raise DatasetError(f"{path}: two expressions are {twice[0]!r}: import the videos one by one")
        present = {id_: stored[key] for key, id_ in known.items() if key in stored}
        numbers = _frame_numbers(fields.frame_names(sample)) if present else {}
        found[sample.id] = {id_: _index(value, numbers, f"{path}, {name}_{id_}") for id_, value in present.items()}
        report.num_expressions += len(present)
        report.num_missing += len(known) - len(present)
        ours |= known.keys()
    report.unknown = sorted(stored.keys() - ours)
    _check_some(report, stored, path)
    fields.declare_key_frames(samples, field, expressions_field=expressions_field)
    run_records.record(samples._root_dataset, run_records.selection_key(field), {"name": "import_key_frames"})
    for sample_id, keys in found.items():
        if keys:
            fields.write_key_frames(samples[sample_id], field, keys, {}, expressions_field=expressions_field)
    return report


def import_pseudo_labels(
    samples: fo.Dataset | fo.DatasetView,
    folder: str | os.PathLike[str],
    field: str,
    *,
    expressions_field: str = "expressions",
) -> KeyFrameImport:
    """Reads label files, `<video>/<expression id>.json`, into `<field>_ious` of the expressions.

    An expression without a file has no labels, and is not trained on. All files are checked before anything is
    written.

    Args:
        samples: a video dataset, or a view of its samples
        folder: with the files, as `PseudoLabels.export` and GLUS write them
        field: what the attributes are named after
        expressions_field: the sample field with the expressions

    Raises:
        DatasetError: for files that cannot be read, hold another number of labels than the video has frames, or
            anything but numbers in [0, 1] and null
    """
    from fiftyone_refvos import fields
    from fiftyone_refvos.datasets.files import DatasetError

    root = Path(folder)
    if not root.is_dir():
        raise DatasetError(f"there is no folder {root}: give the one with a folder of label files for every video")
    fields.check_label_field(field)
    files = {str(path.relative_to(root).with_suffix("")): path for path in root.rglob("*.json")}
    report, found, known = KeyFrameImport(field), {}, set()
    for sample, name in _videos(samples):
        count, lists = len(fields.frame_names(sample)), {}
        for each in fields.read_expressions(sample, expressions_field):
            key = f"{name}/{each.id}"
            known.add(key)
            if key in files:
                lists[each.id] = _labels(files[key], count)
            else:
                report.num_missing += 1
        found[sample.id] = lists
        report.num_expressions += len(lists)
    report.unknown = sorted(files.keys() - known)
    _check_some(report, files, folder)
    fields.declare_frame_list(samples, field, "ious", expressions_field=expressions_field)
    for sample_id, lists in found.items():
        if lists:
            fields.write_frame_list(samples[sample_id], field, "ious", lists, expressions_field=expressions_field)
    return report


def export_key_frames(
    samples: fo.Dataset | fo.DatasetView,
    path: str | os.PathLike[str],
    field: str,
    *,
    expressions_field: str = "expressions",
    overwrite: bool = False,
) -> int:
    """Writes the key frames of a field for `--score_json` of GLUS, and returns how many.

    Raises:
        FileExistsError: if the file exists, without `overwrite`
        DatasetError: if no expression has a key frame, two have the same name, or a frame has no number as its name
    """
    from fiftyone_refvos import fields
    from fiftyone_refvos.datasets.files import DatasetError

    contents: dict[str, int] = {}
    for sample, name in _videos(samples):
        names = fields.frame_names(sample)
        for id_, index in fields.read_key_frames(sample, field, expressions_field=expressions_field).items():
            key = f"{name}_{id_}"
            if key in contents:
                raise DatasetError(f"two expressions would be {key!r} in {path}: export the videos one by one")
            if not (names[index].isascii() and names[index].isdecimal()):
                raise DatasetError(f"the key frame of {key!r} is called {names[index]!r}, but GLUS wants a number")
            contents[key] = int(names[index])
    if not contents:
        raise DatasetError(f"no expression has a key frame in {field!r}: select or import some")
    _write({Path(path): json.dumps(contents, indent=2) + "\n"}, overwrite)
    return len(contents)


def export_frame_scores(
    samples: fo.Dataset | fo.DatasetView,
    folder: str | os.PathLike[str],
    field: str,
    *,
    expressions_field: str = "expressions",
    overwrite: bool = False,
) -> int:
    """Writes a file with the score of every frame, as the published selector does, and returns how many.

    Raises:
        FileExistsError: if a file exists, without `overwrite`; nothing is written then
        DatasetError: if no frame has a score, or an expression has them for another number of frames
    """
    from fiftyone_refvos import fields
    from fiftyone_refvos.datasets.files import DatasetError

    contents = {}
    for sample, name in _videos(samples):
        names = fields.frame_names(sample)
        lists = fields.read_frame_list(sample, field, "key_frame_scores", expressions_field=expressions_field)
        for id_, values in lists.items():
            if len(values) != len(names):
                raise DatasetError(
                    f"expression {id_!r} of {name} has scores of {len(values)} frames in {field!r}, but the video "
                    f"has {len(names)}: select key frames again"
                )
            for frame, value in zip(names, values, strict=True):
                if value is not None:
                    contents[Path(folder, name, id_, f"{frame}.json")] = json.dumps({"iou": value})
    if not contents:
        raise DatasetError(f"no frame has a score in {field!r}: select key frames before")
    _write(contents, overwrite)
    return len(contents)


def _videos(samples: fo.Dataset | fo.DatasetView) -> Iterator[tuple[fo.Sample, str]]:
    from fiftyone_refvos.fields import FieldError
    from fiftyone_refvos.fields.scores import media_name

    if samples.media_type != "video" or samples._dataset._is_generated:
        raise FieldError("key frames belong to whole videos: pass a video dataset, or a view of its samples")
    for sample_id in samples.values("id"):
        sample = samples[sample_id]
        yield sample, media_name(sample)


def _frame_numbers(names: Sequence[str]) -> dict[int, int]:
    """The index of the frame with each number."""
    return {int(name): t for t, name in reversed([*enumerate(names)]) if name.isascii() and name.isdecimal()}


def _index(value: Any, numbers: dict[int, int], what: str) -> int:
    from fiftyone_refvos.datasets.files import DatasetError

    if not isinstance(value, int) or isinstance(value, bool):
        raise DatasetError(f"{what}: the key frame is {value!r}, not the whole number in the name of a frame")
    if value not in numbers:
        known = f"{min(numbers)} to {max(numbers)} ({len(numbers)} frames)" if numbers else "no numbers"
        raise DatasetError(
            f"{what}: there is no frame {value}, the names of the frames are {known}; values are the numbers in the "
            "names of frames, not indices"
        )
    return numbers[value]


def _labels(path: Path, count: int) -> list[float | None]:
    from fiftyone_refvos.datasets.files import DatasetError

    values = _read(path)
    if not isinstance(values, list) or len(values) != count:
        found = f"{len(values)} labels" if isinstance(values, list) else "no list of labels"
        raise DatasetError(f"{path} holds {found}, but the video has {count} frames: make the labels again")
    for frame, value in enumerate(values):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and not (number and not math.isnan(value) and 0 <= value <= 1):
            raise DatasetError(f"{path}: the label of frame {frame} is {value!r}, not a number in [0, 1] or null")
    return [None if value is None else float(value) for value in values]


def _check_some(report: KeyFrameImport, stored: dict[str, Any], path: str | os.PathLike[str]) -> None:
    from fiftyone_refvos.datasets.files import DatasetError

    if not report.num_expressions:
        theirs = ", ".join(sorted(stored)[:_LISTED]) or "none"
        raise DatasetError(f"{path} has nothing of these samples: its entries are {theirs}")


def _read(path: Path) -> Any:
    from fiftyone_refvos.datasets.files import DatasetError

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DatasetError(f"{path} cannot be read as JSON ({error}): check the path, or restore the file") from error


def _write(contents: dict[Path, str], overwrite: bool) -> None:
    present = [path for path in contents if path.exists()]
    if present and not overwrite:
        raise FileExistsError(f"{present[0]} exists: choose another place, or pass overwrite=True")
    for path, text in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
