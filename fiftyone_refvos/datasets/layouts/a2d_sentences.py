"""A2D-Sentences: sentences about the actors of A2D; masks in a few frames of each video, as HDF5."""

from __future__ import annotations

import csv
import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fiftyone_refvos.datasets.files import DatasetError, as_number, inside
from fiftyone_refvos.datasets.layout import Layout, record_or_problem
from fiftyone_refvos.datasets.masks import to_rle
from fiftyone_refvos.datasets.records import (
    Annotations,
    ExpressionRecord,
    FileMedia,
    MediaRecord,
    ObjectRecord,
    Size,
)
from fiftyone_refvos.masklet import RLE
from fiftyone_refvos.video import open_video

logger = logging.getLogger(__name__)

VIDEOS = "Release/videoset.csv"
SENTENCES = "text_annotations/a2d_annotation.txt"
MISSED = "text_annotations/a2d_missed_videos.txt"
SPLITS = ("train", "test")  # 0 and 1 in the last column of the list of videos
MAX_INSTANCES = 1000  # a file that says more is damaged, and would fill the memory
FILTERS = ("DEFLATE", "SHUFFLE", "FLETCHER32", "SZIP", "NBIT", "SCALEOFFSET", "LZF")  # HDF5's own and h5py's

# The two digits of a label of A2D.
ACTORS = ("adult", "baby", "ball", "bird", "car", "cat", "dog")
ACTIONS = ("climbing", "crawling", "eating", "flying", "jumping", "rolling", "running", "walking", "none")


class A2DSentences(Layout):
    """`Release/{videoset.csv,clips320H}` and `text_annotations/{a2d_annotation.txt,a2d_annotation_with_instances}`.

    Of the videos of A2D those that have sentences and are not in the list of missed ones. An instance counts in the
    frames whose file has it, as in the published lists of single frames.
    """

    name = "a2d-sentences"
    title = "A2D-Sentences"
    partial_truth = True

    def splits(self) -> tuple[str, ...]:
        if not (self.root / VIDEOS).is_file() or not (self.root / SENTENCES).is_file():
            return ()
        try:
            there = {split for _, split in self._videos()}
        except DatasetError:
            return SPLITS  # it is such a folder; what is wrong with it is told when it is read
        return tuple(split for split in SPLITS if split in there)

    def records(self, split: str) -> Sequence[MediaRecord]:
        _h5py()
        videos = self._videos()
        sentences = self._sentences()
        missed = _lines(self.root / MISSED) if (self.root / MISSED).is_file() else set()
        if strange := sentences.keys() - {name for name, _ in videos} - missed:
            logger.warning("%s has no video %r, of which there are sentences", self.root / VIDEOS, min(strange))
        return [
            record_or_problem(name, split, partial(self._record, name, split, sentences[name]))
            for name, of in videos
            if of == split and name in sentences and name not in missed
        ]

    def _videos(self) -> list[tuple[str, str]]:
        """Name and split of every video of A2D."""
        path = self.root / VIDEOS
        found: dict[str, str] = {}
        for number, row in _rows(path):
            if len(row) < 2 or row[-1].strip() not in ("0", "1"):
                raise DatasetError(f"{path}, line {number}: the last column is not the split, 0 or 1")
            found.setdefault(row[0], SPLITS[int(row[-1])])
        return list(found.items())

    def _sentences(self) -> dict[str, list[tuple[str, str]]]:
        """Id of the instance and sentence by video."""
        path = self.root / SENTENCES
        found: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for number, row in _rows(path):
            if row[:2] == ["video_id", "instance_id"]:
                continue
            where = f"{path}, line {number}"
            if len(row) < 3 or any("\n" in each for each in row):
                raise DatasetError(f"{where} is not video_id,instance_id,query, or has a quote that is not closed")
            text = ",".join(row[2:])  # more columns are commas in a sentence without quotes
            found[row[0]].append((str(as_number(row[1].strip(), f"{where}: the instance")), text))
        return dict(found)

    def _record(self, name: str, split: str, sentences: Sequence[tuple[str, str]]) -> MediaRecord:
        path = inside(self.root / "Release" / "clips320H", f"{name}.mp4")
        folder = inside(self.root / "text_annotations" / "a2d_annotation_with_instances", name)
        return MediaRecord(
            name=name,
            split=split,
            media=FileMedia(path),
            expressions=tuple(
                ExpressionRecord(str(n), text, (instance,)) for n, (instance, text) in enumerate(sentences)
            ),
            read_annotations=partial(_read, folder, path, tuple(instance for instance, _ in sentences)),
        )


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DatasetError(
            "the masks of A2D-Sentences are HDF5 files: run `pip install 'fiftyone-refvos[datasets]'`, which brings "
            f"h5py ({error})"
        ) from error
    return h5py


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file that are not empty, with the number of their last line."""
    with _text(path), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        for row in reader:
            if any(row):
                yield reader.line_num, row


def _lines(path: Path) -> set[str]:
    with _text(path):
        return {line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()}


@contextmanager
def _text(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read ({error}): download it again") from error


def _read(folder: Path, video: Path, named: Sequence[str]) -> Annotations:
    """Reads all annotated frames; `named` instances are objects even if no frame has them."""
    source = open_video(video)
    num_frames = len(source)
    files = sorted(folder.glob("*.h5"))
    if not files:
        raise DatasetError(f"{folder} has no annotations (*.h5): unpack a2d_annotation_with_instances there")
    masks: dict[str, list[RLE | None]] = {}
    annotated: dict[str, set[int]] = defaultdict(set)
    categories: dict[str, str] = {}
    frames = set()
    for path in files:
        t = as_number(path.stem, f"{path}: the number of the frame") - 1
        if not 0 <= t < num_frames:
            raise DatasetError(
                f"{path} is about frame {t + 1}, but {video} has {num_frames} frames, the first being 1"
            )
        frames.add(t)
        for instance, category, mask in _instances(path, source.size):
            masks.setdefault(instance, [None] * num_frames)[t] = to_rle(mask)
            annotated[instance].add(t)
            if category is not None:
                categories.setdefault(instance, category)
    for instance in named:
        masks.setdefault(instance, [None] * num_frames)
    objects = [
        ObjectRecord(id_, tuple(masks[id_]), category=categories.get(id_), annotated=frozenset(annotated[id_]))
        for id_ in sorted(masks, key=int)
    ]
    return Annotations(source.size, tuple(objects), annotated=frozenset(frames))


def _instances(path: Path, size: Size) -> Iterator[tuple[str, str | None, NDArray[np.bool_]]]:
    """Id, category and mask `(H, W) bool` of the instances of a frame."""
    try:
        with _h5py().File(path, "r") as file:
            ids = [int(id_) for id_ in _values(file, "instance", path)]
            masks = _array(file, "reMask", path)
            shape = masks.shape if masks.ndim == 3 else (1, *masks.shape)
            if shape != (len(ids), size[1], size[0]) or len(set(ids)) != len(ids):
                raise DatasetError(
                    f"{path}: 'reMask' is {'x'.join(map(str, masks.shape))} for the instances {ids}, but should be "
                    f"{len(ids)}x{size[1]}x{size[0]} (instances, width, height of the video)"
                )
            pixels = masks[()].reshape(shape) != 0
            labels = _values(file, "id", path) if "id" in file else []
    except DatasetError:
        raise
    except Exception as error:  # a damaged file makes h5py fail in any way
        raise DatasetError(f"{path} cannot be read ({type(error).__name__}: {error}): unpack it again") from error
    for n, id_ in enumerate(ids):
        yield str(id_), _category(labels[n]) if len(labels) == len(ids) else None, pixels[n].T


def _values(file: Any, name: str, path: Path) -> list[float]:
    array = _array(file, name, path)
    if array.size > MAX_INSTANCES:
        raise DatasetError(f"{path}: {name!r} has {array.size} entries: it is damaged")
    values: list[float] = np.ravel(array[()]).tolist()
    return values


def _array(file: Any, name: str, path: Path) -> Any:
    """An array of numbers that lies in the file itself, and needs no code but HDF5's own to be unpacked."""
    h5py = _h5py()
    if name not in file:
        raise DatasetError(f"{path} has no {name!r}, only {', '.join(sorted(file)) or 'nothing'}")
    found = file[name] if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "buif" or found.is_virtual or found.external:
        raise DatasetError(f"{path}: {name!r} is no array of numbers in the file itself")
    plist = found.id.get_create_plist()
    filters = {plist.get_filter(n)[0] for n in range(plist.get_nfilters())}
    if strange := filters - {getattr(h5py.h5z, f"FILTER_{each}") for each in FILTERS}:
        raise DatasetError(f"{path}: {name!r} needs the HDF5 filter {min(strange)}, whose code is not loaded")
    return found


def _category(label: float) -> str | None:
    actor, action = divmod(int(label), 10)
    known = 1 <= actor <= len(ACTORS) and 1 <= action <= len(ACTIONS)
    return f"{ACTORS[actor - 1]}-{ACTIONS[action - 1]}" if known else None
