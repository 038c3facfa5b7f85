"""Importing a published dataset into FiftyOne: layout -> records -> (encode, read masks; in threads) -> samples."""

from __future__ import annotations

import logging
import os
import random
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import fiftyone as fo
import fiftyone.core.utils as fou
import fiftyone.utils.data as foud

from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.layout import Layout
from fiftyone_refvos.datasets.playback import CACHE, playback_path, write_playback
from fiftyone_refvos.datasets.records import FileMedia, FolderMedia, MediaRecord
from fiftyone_refvos.datasets.samples import GROUND_TRUTH, Prepared, SampleBuilder
from fiftyone_refvos.datasets.schema import declare_record, declare_schema

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImportFailure:
    """A video or image that could not be imported.

    Attributes:
        split, name: which
        error: why
    """

    split: str
    name: str
    error: str


class ReferringDatasetImporter(foud.BatchDatasetImporter):
    """Imports a referring dataset: `fo.Dataset.from_dir(dataset_dir, dataset_type=rv.types.MeViS)`.

    Every sample gets `expressions`, the tag of its split, the masks `frames.ground_truth` where the split has ground
    truth (images: `ground_truth`), and for folders of frames `frames_dir`, `frame_names` and `frame_size`, by which
    models read the exact images. For the App an mp4 is encoded once, and kept.

    An import that was interrupted goes on with `dataset.add_dir(…)` and the same arguments: videos that are in the
    dataset are passed over, and so are finished mp4 files.

    Args:
        dataset_dir: the folder of the dataset, as its README shows it
        split: one split or several; by default all that are there
        cache_dir: where the mp4 files go; by default `.refvos_cache` in the folder of the dataset
        num_workers: how many videos are prepared at a time, and are in memory; by default the number of cores, 8 at
            most
        skip_failures: go on after a video that cannot be read, and list it in `failures`
        shuffle: whether to shuffle the videos
        seed: of the shuffling
        max_samples: import so many at most

    Raises:
        DatasetError: when it imports, for a folder of another layout, missing files, damaged masks, names that lead
            out of the folder, with the name of the file
    """

    layout_cls: ClassVar[type[Layout]]

    def __init__(
        self,
        dataset_dir: str | os.PathLike[str] | None = None,
        split: str | Sequence[str] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        num_workers: int | None = None,
        skip_failures: bool = False,
        shuffle: bool = False,
        seed: int | None = None,
        max_samples: int | None = None,
    ) -> None:
        super().__init__(dataset_dir=dataset_dir, shuffle=shuffle, seed=seed, max_samples=max_samples)
        self.split = split
        self.cache_dir = cache_dir
        self.num_workers = num_workers or min(os.cpu_count() or 1, 8)
        self.skip_failures = skip_failures
        self.failures: list[ImportFailure] = []

    def import_samples(
        self, dataset: fo.Dataset, tags: Iterable[str] | None = None, progress: Any = None
    ) -> list[str]:
        """Adds the samples to a dataset; returns their ids."""
        layout = self._layout()
        records = self._without(self._chosen(layout), dataset)
        if not records:
            logger.info("there is nothing to import: all videos are in dataset %r", dataset.name)
            return []
        declare_schema(dataset, layout, GROUND_TRUTH)
        ids = []
        with fou.ProgressBar(total=len(records), progress=progress) as bar:
            for record, prepared in bar(self._prepared(records, layout)):
                if prepared is None:
                    continue
                prepared.sample.tags += [tag for tag in tags or () if tag not in prepared.sample.tags]
                declare_record(dataset, record)
                ids.append(prepared.add_to(dataset))
        if self.failures:
            logger.warning(
                "%d of %d could not be imported: %s", len(self.failures), len(records), self.failures[0].error
            )
        return ids

    def preview(self) -> list[MediaRecord]:
        """What would be imported into an empty dataset; reads no masks and no images.

        Raises:
            DatasetError: as `import_samples`
        """
        return self._chosen(self._layout())

    def _layout(self) -> Layout:
        if self.dataset_dir is None or not Path(self.dataset_dir).is_dir():
            raise DatasetError(
                f"there is no folder {self.dataset_dir}: give the folder of the dataset as dataset_dir"
            )
        return self.layout_cls(Path(self.dataset_dir).absolute())

    def _chosen(self, layout: Layout) -> list[MediaRecord]:
        records = [record for split in layout.chosen_splits(self.split) for record in layout.records(split)]
        if not self.skip_failures and (problems := [each.problem for each in records if each.problem]):
            more = f" ({len(problems)} videos or images have problems; skip_failures leaves them out)"
            raise DatasetError(problems[0] + (more if len(problems) > 1 else ""))
        if self.shuffle:
            random.Random(self.seed).shuffle(records)
        return records[: self.max_samples]

    def _without(self, records: list[MediaRecord], dataset: fo.Dataset) -> list[MediaRecord]:
        """Those that an earlier, interrupted import has not added.

        Datasets that share images, as RefCOCO and RefCOCO+ do, are told apart by their expressions.
        """
        if not len(dataset):
            return records
        known: dict[tuple[str, str], list[set[tuple[str, str]]]] = defaultdict(list)
        wanted = {(record.name, str(_source(record)), record.split) for record in records}
        unfinished = []
        for sample_id, names, expressions, paths, tags in _stored(dataset):
            keys = {(path, tag) for path in paths for tag in tags}
            if expressions is not None:
                for key in keys:
                    known[key].append(_texts(expressions))
            elif any((name, *key) in wanted for name in names for key in keys):
                unfinished.append(sample_id)  # it was being added when an earlier import was cut off
        dataset.delete_samples(unfinished)
        return [
            record
            for record in records
            if not any(_same(record, texts) for texts in known.get((str(_source(record)), record.split), ()))
        ]

    def _prepared(
        self, records: Sequence[MediaRecord], layout: Layout
    ) -> Iterator[tuple[MediaRecord, Prepared | None]]:
        """Prepares `num_workers` videos ahead, and yields them in order; None for one that failed."""
        builder = SampleBuilder(layout.media_type == "video", layout.partial_truth)
        cache = Path(self.cache_dir).absolute() if self.cache_dir else layout.root / CACHE
        waiting: deque[tuple[MediaRecord, Future[Prepared]]] = deque()
        pool = ThreadPoolExecutor(self.num_workers, thread_name_prefix="import")
        rest = iter(records)
        try:
            for record in islice(rest, self.num_workers):
                waiting.append((record, pool.submit(_prepare, record, builder, cache)))
            while waiting:
                record, future = waiting.popleft()
                prepared = self._finished(record, future)
                for following in islice(rest, 1):
                    waiting.append((following, pool.submit(_prepare, following, builder, cache)))
                yield record, prepared
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _finished(self, record: MediaRecord, future: Future[Prepared]) -> Prepared | None:
        try:
            return future.result()
        except ValueError as error:  # DatasetError, VideoError
            if not self.skip_failures:
                raise
            self.failures.append(ImportFailure(record.split, record.name, str(error)))
            return None


def importer_for(layout_cls: type[Layout]) -> type[ReferringDatasetImporter]:
    """The importer of a layout, as `get_dataset_importer_cls` of a FiftyOne dataset type returns it."""
    return type(f"{layout_cls.__name__}Importer", (ReferringDatasetImporter,), {"layout_cls": layout_cls})


def _stored(dataset: fo.Dataset) -> Iterator[tuple[str, list[Any], Any, list[Any], list[str]]]:
    """Id, names, expressions, paths and tags of every sample."""
    fields = ("id", "video_name", "image_name", "expressions", "filepath", "frames_dir", "tags")
    known = [name for name in fields if dataset.has_field(name)]
    for values in zip(*dataset.values(known, _raw=True), strict=True):
        found = dict.fromkeys(fields) | dict(zip(known, values, strict=True))
        names, paths = [found["video_name"], found["image_name"]], [found["filepath"], found["frames_dir"]]
        yield str(found["id"]), names, found["expressions"], paths, found["tags"] or []


def _texts(expressions: Any) -> set[tuple[str, str]]:
    """Id and text of every expression of a sample, of the raw labels."""
    labels = expressions.get("detections") or expressions.get("classifications") or ()
    return {(label.get("expression_id"), label.get("label")) for label in labels}


def _same(record: MediaRecord, texts: set[tuple[str, str]]) -> bool:
    """Whether a sample with these expressions, to which some may have been added, is that of a record."""
    ours = {(each.id, each.text) for each in record.expressions}
    return not ours or not texts or bool(ours & texts)


def _source(record: MediaRecord) -> Path:
    return record.media.folder if isinstance(record.media, FolderMedia) else record.media.path


def _prepare(record: MediaRecord, builder: SampleBuilder, cache: Path) -> Prepared:
    if record.problem is not None:
        raise DatasetError(record.problem)
    if isinstance(record.media, FileMedia):
        return builder.build(record, record.media.path)
    path = playback_path(cache, record.split, record.name, record.media)
    write_playback(path, record.media)
    return builder.build(record, path)
