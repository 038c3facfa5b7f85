"""Masks of another program into a field: to browse, to evaluate and to vote with.

file or folder -> per video the masks of its expressions -> one bulk write per video.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from fiftyone_refvos.masklet import RLE, Expression, Masklet, encode
from fiftyone_refvos.segment import Failure, Progress

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `import fiftyone_refvos` should not
    import fiftyone as fo

    from fiftyone_refvos.fields.samples import Place, RawLabel
    from fiftyone_refvos.predictions.source import Prediction, PredictionSource, Wanted

PredictionFormat = Literal["submission", "sa2va", "youtube-vis"]

_LISTED = 5  # names in a message


@dataclass
class ImportReport:
    """What was imported.

    Attributes:
        label_field: where the masklets are
        num_videos: videos that got masklets
        num_expressions: masklets that were written
        num_missing: expressions of these videos that the file has nothing of
        unknown_videos: names in the file that no sample has
        failures: videos that could not be read, each with its reason; nothing was written for them
    """

    label_field: str
    num_videos: int = 0
    num_expressions: int = 0
    num_missing: int = 0
    unknown_videos: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.num_expressions} masklets of {self.num_videos} videos written to 'frames.{self.label_field}'; "
            f"{self.num_missing} expressions of these videos have no prediction"
        ]
        if self.unknown_videos:
            names = ", ".join(self.unknown_videos[:_LISTED])
            lines.append(f"  {len(self.unknown_videos)} videos of the file are not in the dataset: {names}")
        lines += [f"  failed: {failure.filepath}: {failure.error}" for failure in self.failures]
        return "\n".join(lines)


def import_predictions(
    samples: fo.Dataset | fo.DatasetView,
    path: str | os.PathLike[str],
    label_field: str,
    *,
    format: PredictionFormat | None = None,
    annotations: str | os.PathLike[str] | None = None,
    expressions_field: str = "expressions",
    overwrite: bool = False,
    skip_failures: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> ImportReport:
    """Writes the masks that another program has made into `frames.<label_field>`, as if a model had run here.

    Videos are found by name: `sample.video_name`, else the name of the folder of frames, or of the video file.
    Expressions are found by their id, in YouTube-VIS files by their text. What the file does not have is left as it
    is, unless it is overwritten, and counted in the report.

    Args:
        samples: a video dataset, or a view of its samples
        path: a submission (folder or zip, `[Annotations/]<video>/<expression>/<frame>.png`), Sa2VA's `results.json`,
            or a YouTube-VIS file of results or annotations
        label_field: frame field for the masklets
        format: of the file; by default it is recognised
        annotations: for YouTube-VIS results, the file with the names of their videos and categories
        expressions_field: the field with the expressions
        overwrite: remove what the label field holds of these samples, also where the file has nothing for it
        skip_failures: go on after a video that cannot be read, and list it in the report
        progress: called while the import goes on

    Raises:
        DatasetError: for files that cannot be read, frames that are missing, masks of another size, with their names;
            and if no video of the file is in `samples`
        FieldError: for fields of other types, and images
        FieldExistsError: if the label field holds something else
    """
    from fiftyone_refvos import fields, run_records
    from fiftyone_refvos.datasets.files import DatasetError
    from fiftyone_refvos.fields.scores import samples_of_videos

    source = open_predictions(path, format, annotations)
    ids = list(samples_of_videos(samples))
    dataset = samples._root_dataset
    fields.check_label_field(label_field)
    fields.expressions_field(dataset, expressions_field)
    importer = _Importer(source, label_field, expressions_field, ImportReport(label_field), overwrite)
    found = importer.names(dataset, ids)
    unknown = source.videos() - {name for names in found.values() for name in names}
    importer.report.unknown_videos = sorted(unknown)
    if unknown == source.videos():
        ours = ", ".join(sorted(names[0] for names in found.values())[:_LISTED])
        theirs = ", ".join(sorted(unknown)[:_LISTED])
        raise DatasetError(f"no video of {path} is in the dataset: it has {theirs or 'none'}, the dataset has {ours}")
    identity = {"name": "imported", "path": str(Path(path).absolute()), "format": type(source).__name__}
    if overwrite:
        run_records.check_overwrite(samples, label_field, identity)
    else:
        run_records.check_field(dataset, label_field, identity)
    fields.declare_masklet_schema(samples, label_field, expressions_field=expressions_field)
    run_records.register(dataset, label_field, identity)
    if overwrite:
        # The masks themselves go once a video has been read: one that fails keeps what it had.
        fields.mark_all_unfinished(dataset.select(ids), label_field, expressions_field=expressions_field)
    for number, sample_id in enumerate(ids, start=1):
        if progress is not None:
            progress(Progress(number, len(ids), (number - 1) / len(ids)))
        try:
            importer.add(dataset[sample_id], found[sample_id])
        except ValueError as error:
            if not skip_failures:
                raise
            importer.report.failures.append(Failure(sample_id, dataset[sample_id].filepath, str(error)))
    if progress is not None:
        progress(Progress(len(ids), len(ids), 1.0))
    return importer.report


def open_predictions(
    path: str | os.PathLike[str],
    format: PredictionFormat | None = None,
    annotations: str | os.PathLike[str] | None = None,
) -> PredictionSource:
    """Opens a folder or file of predictions; most of it is read when it is asked for.

    Raises:
        DatasetError: if there is no such file, or it cannot be read
    """
    from fiftyone_refvos.datasets.files import DatasetError
    from fiftyone_refvos.predictions.result_files import Sa2VAResults, YouTubeVISResults, is_sa2va
    from fiftyone_refvos.predictions.submission import SubmissionArchive, SubmissionFolder

    path = Path(path)
    if not path.exists():
        raise DatasetError(f"there is no file or folder {path}: check the path of the predictions")
    if format not in (None, *get_args(PredictionFormat)):
        raise DatasetError(f"unknown format {format!r} of predictions, only: {', '.join(get_args(PredictionFormat))}")
    if format == "submission" or (format is None and (path.is_dir() or path.suffix.lower() == ".zip")):
        return SubmissionFolder(path) if path.is_dir() else SubmissionArchive(path)
    if path.is_dir():
        raise DatasetError(f"{path} is a folder, but {format} predictions are one JSON file: give the file")
    if format == "sa2va" or (format is None and annotations is None and is_sa2va(path)):
        return Sa2VAResults(path)
    return YouTubeVISResults(path, None if annotations is None else Path(annotations))


@dataclass
class _Importer:
    """Writes one video after the other."""

    source: PredictionSource
    label_field: str
    expressions_field: str
    report: ImportReport
    overwrite: bool

    def names(self, dataset: fo.Dataset, ids: list[str]) -> dict[str, tuple[str, ...]]:
        """How a file may call each video: by its name, and in ReasonVOS by source, name and object."""
        from fiftyone_refvos.fields.scores import media_name

        found = {}
        for sample_id in ids:
            sample = dataset[sample_id]
            name = media_name(sample)
            folders = [
                folder for label in self._labels(sample).values() for folder in _reasonvos(sample, name, label)
            ]
            found[sample_id] = (name, *(folder.rpartition("/")[0] for folder in folders))
        return found

    def add(self, sample: fo.Sample, names: tuple[str, ...]) -> None:
        """Writes what there is of a video.

        Raises:
            DatasetError: for what cannot be read
        """
        from fiftyone_refvos import fields

        predictions = {wanted: self.source.read(wanted) for wanted in self._wanted(sample, names[0])}
        present = {wanted: prediction for wanted, prediction in predictions.items() if prediction is not None}
        if self.overwrite:  # also what the file does not have: masks of two programs cannot be told apart
            view = sample.dataset.select(sample.id)
            fields.clear_field(view, self.label_field, expressions_field=self.expressions_field)
        if not present:
            return
        masklets = [_masklet(wanted, prediction) for wanted, prediction in present.items()]
        fields.write_masklets(sample, self.label_field, masklets, expressions_field=self.expressions_field)
        self.report.num_videos += 1
        self.report.num_expressions += len(present)
        self.report.num_missing += len(predictions) - len(present)

    def _wanted(self, sample: fo.Sample, name: str) -> list[Wanted]:
        from fiftyone_refvos.fields import frame_source, read_expressions
        from fiftyone_refvos.predictions.source import Wanted

        source = frame_source(sample)
        stored = sample["frame_names"] if sample.has_field("frame_names") else None
        frames = [Path(each).stem for each in stored] if stored else [f"{t:05d}" for t in range(len(source))]
        labels = self._labels(sample)
        return [
            Wanted(
                name,
                expression.id,
                expression.text,
                (f"{name}/{expression.id}", *_reasonvos(sample, name, labels[expression.id])),
                tuple(frames),
                source.size,
            )
            for expression in read_expressions(sample, self.expressions_field)
        ]

    def _labels(self, sample: fo.Sample) -> dict[str, RawLabel]:
        from fiftyone_refvos.fields.expressions import labels_by_id
        from fiftyone_refvos.fields.samples import locate

        place: Place = locate(sample)
        return labels_by_id(place, self.expressions_field)


def _reasonvos(sample: fo.Sample, name: str, label: RawLabel) -> list[str]:
    """Where programs put an expression of ReasonVOS, of which several objects share one id."""
    exp_id, objects = label.get("exp_id"), label.get("object_ids")
    if exp_id is None or not objects or not sample.has_field("source"):
        return []
    return [f"{sample['source']}_{name}_{objects[0]}/{exp_id}", f"{name}/{exp_id}"]


def _masklet(wanted: Wanted, prediction: Prediction) -> Masklet:
    empty: RLE = encode(np.zeros((1, *wanted.size), dtype=bool))[0]
    count = len(wanted.frames)
    found: list[Any] = [any(rle is not None for rle in rles) for rles in prediction.masks]
    scores = np.array(
        [
            [score if rle is not None else 0.0 for rle, score in zip(rles, prediction.scores, strict=True)]
            for rles in prediction.masks
        ]
    )
    return Masklet(
        Expression(wanted.expression_id, wanted.text),
        wanted.size,
        tuple(range(count)),
        tuple(tuple(rle or empty for rle in rles) for rles in prediction.masks),
        scores.astype(np.float32).reshape(count, len(prediction.scores)),
        np.array(found, dtype=bool),
    )
