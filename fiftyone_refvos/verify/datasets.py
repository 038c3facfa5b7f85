"""Dataset folders: imported into FiftyOne, read back, and compared with their `expected_counts.json`."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fiftyone_refvos.datasets.registry import recognise
from fiftyone_refvos.verify import dataset_figures
from fiftyone_refvos.verify.report import CaseReport

if TYPE_CHECKING:
    import fiftyone as fo

    from fiftyone_refvos.datasets.layout import Layout

EXPECTED = "expected_counts.json"


@dataclass(frozen=True)
class Parsed:
    """One imported video or image, as it was read back from FiftyOne.

    Attributes:
        name, split: of the video
        size: (H, W) of the frames
        frames: their T names without suffix; numbers from 1 for a video file
        expressions: attributes by expression id, with `text`
        areas: pixels of the union of an expression by expression id, `(T,)`, None where it is not annotated
        objects: pixels of every object by object id, `(T,)`, 0 where nothing is annotated
        anno_ids: object id by annotation id
        annotated: indices of the annotated frames
        void, foreground: pixels, `(T,)`
        fields: the fields of the sample
    """

    name: str
    split: str
    size: tuple[int, int]
    frames: tuple[str, ...]
    expressions: dict[str, dict[str, Any]]
    areas: dict[str, list[int | None]]
    objects: dict[str, list[int]]
    anno_ids: dict[str, str]
    annotated: frozenset[int]
    void: list[int]
    foreground: list[int]
    fields: dict[str, Any]


def is_case(path: Path) -> bool:
    """Whether a folder is a dataset with the counts that it is expected to have."""
    return (path / EXPECTED).is_file() and bool(recognise(path))


def check(path: Path) -> CaseReport:
    """Imports every dataset of a folder and compares all that `expected_counts.json` says."""
    expected = json.loads((path / EXPECTED).read_text(encoding="utf-8"))
    layouts = recognise(path)
    report = CaseReport(path, f"dataset {', '.join(layout.title for layout in layouts)}")
    parsed: dict[str, list[Parsed]] = {}
    for layout in layouts:
        with report.stage(f"import of {layout.title}"), _imported(path, layout) as dataset:
            parsed[layout.name] = [_parse(sample) for sample in dataset]
    dataset_figures.compare(report, expected, parsed)
    return report


@contextmanager
def _imported(path: Path, layout: type[Layout]) -> Iterator[fo.Dataset]:
    import fiftyone as fo

    from fiftyone_refvos.datasets.importer import importer_for

    dataset = fo.Dataset()
    with tempfile.TemporaryDirectory() as cache:
        try:
            importer = importer_for(layout)(path, cache_dir=cache)
            importer.import_samples(dataset, progress=False)
            yield dataset
        finally:
            dataset.delete()


def _parse(sample: fo.Sample) -> Parsed:
    from fiftyone_refvos.fields import read_masklets
    from fiftyone_refvos.fields.expressions import labels_by_id
    from fiftyone_refvos.fields.media import frame_source
    from fiftyone_refvos.fields.samples import locate

    is_video = sample.media_type == "video"
    source = frame_source(sample)
    count = len(source)
    names = sample["frame_names"] if sample.has_field("frame_names") and sample["frame_names"] else None
    truth = sample.has_field("ground_truth") or (is_video and "ground_truth" in sample.frames.field_names)
    masklets = read_masklets(sample, "ground_truth", exact=True) if truth else []
    areas: dict[str, list[int | None]] = {}
    for masklet in masklets:
        at = {frame: int(masklet.union(frame).sum()) for frame in masklet.frames}
        areas[masklet.expression.id] = [at.get(frame) for frame in range(count)]
    labels = labels_by_id(locate(sample), "expressions")
    found = _masks(sample, count, is_video)
    return Parsed(
        name=sample["video_name" if is_video else "image_name"],
        split=sample.tags[0],
        size=source.size,
        frames=tuple(Path(name).stem for name in names) if names else tuple(str(t + 1) for t in range(count)),
        expressions={id_: {**label, "text": label["label"]} for id_, label in labels.items()},
        areas=areas,
        fields={name: sample[name] for name in sample.field_names},
        **found,
    )


def _masks(sample: fo.Sample, count: int, is_video: bool) -> dict[str, Any]:
    """Pixels of all that is stored, counted in the crops themselves."""
    objects: dict[str, list[int]] = defaultdict(lambda: [0] * count)
    anno_ids: dict[str, str] = {}
    pixels = {"void": [0] * count, "foreground": [0] * count}
    annotated = set()
    holders = {number - 1: frame for number, frame in sample.frames.items()} if is_video else {0: sample}
    for t, holder in holders.items():
        for name, counts in pixels.items():
            if holder.has_field(name) and holder[name] is not None:
                counts[t] = sum(int(each.mask.sum()) for each in holder[name].detections)
        labels = holder["ground_truth"] if holder.has_field("ground_truth") else None
        if labels is None:
            continue
        annotated.add(t)
        for detection in labels.detections:
            objects[detection.object_id][t] = int(detection.mask.sum())
            if detection.anno_id is not None:
                anno_ids[detection.anno_id] = detection.object_id
    return {"objects": dict(objects), "anno_ids": anno_ids, "annotated": frozenset(annotated), **pixels}
