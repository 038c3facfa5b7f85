"""What an import would bring, told before it runs: from the meta files of a dataset, which are parsed once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.importer import importer_for
from fiftyone_refvos.datasets.layout import Layout
from fiftyone_refvos.datasets.masks import image_size
from fiftyone_refvos.datasets.playback import CACHE
from fiftyone_refvos.datasets.records import FolderMedia, MediaRecord
from fiftyone_refvos.datasets.registry import LAYOUTS, recognise

# Measured on 480p videos at 5 to 30 frames per second: between 0.03 and 0.06.
BYTES_PER_PIXEL = 0.04

_META_SUFFIXES = {".json", ".p", ".pkl", ".txt", ".mat", ".csv"}
_META_DEPTH = 3
_MEASURED = 8  # videos that tell the size of the frames of all


@dataclass(frozen=True)
class SplitFacts:
    """What one split has.

    Attributes:
        name: of the split
        num_media: videos or images
        num_frames: of all videos; an image is one, a video file counts as none as nobody has opened it
        num_expressions: of all of them
        num_with_truth: videos or images that have ground truth
    """

    name: str
    num_media: int
    num_frames: int
    num_expressions: int
    num_with_truth: int


@dataclass(frozen=True)
class Preview:
    """What the chosen splits of a dataset have.

    Attributes:
        media: "videos" or "images"
        splits: in the order in which they are imported
        encoded: (split, name) of the videos that are folders of frames, for which the App needs an mp4
        encoded_bytes: what their mp4 files take, roughly
        problems: what is wrong with single videos or images, which count nowhere else
    """

    media: str
    splits: tuple[SplitFacts, ...]
    encoded: tuple[tuple[str, str], ...]
    encoded_bytes: int
    problems: tuple[str, ...] = ()

    @property
    def num_media(self) -> int:
        """Videos or images of all splits."""
        return sum(split.num_media for split in self.splits)


def recognised(root: Path) -> dict[str, tuple[str, ...]]:
    """The splits of every layout that a folder has; () where a damaged file does not tell, as the preview does.

    Layouts may have to read files to tell themselves from others: they are asked again when a folder has changed.
    """
    return dict(_recognised(root, _folders(root)))


@lru_cache(maxsize=16)
def _recognised(root: Path, folders: tuple[object, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    return tuple((layout.name, _splits(layout(root))) for layout in recognise(root))


def _splits(layout: Layout) -> tuple[str, ...]:
    try:
        return layout.splits()
    except DatasetError:
        return ()


def _folders(root: Path) -> tuple[object, ...]:
    """What changes when files come or go in a folder and those in it."""
    with suppress(OSError), os.scandir(root) as entries:
        inner = [(each.name, each.stat().st_mtime_ns) for each in entries if each.is_dir()]
        return root.stat().st_mtime_ns, *sorted(inner)
    return ()


def preview(root: Path, layout: str, splits: Sequence[str]) -> Preview:
    """What an import would bring; parses again only what has changed.

    Raises:
        DatasetError: for missing files and ones that hold something else
    """
    found = _parsed(root, layout, tuple(splits), _fingerprint(root))
    if isinstance(found, str):
        raise DatasetError(found)
    return found


def num_cached(root: Path, cache: Path | None, encoded: Iterable[tuple[str, str]]) -> int:
    """How many of these videos have an mp4 from an earlier import."""
    folder = cache or root / CACHE
    wanted = Counter(f"{split}/{name}" for split, name in encoded)
    there = {
        # Files are called <split>/<name>.<digest>.mp4
        str(path.relative_to(folder).with_suffix("").with_suffix(""))
        for path in folder.rglob("*.*.mp4")
        if not path.name.startswith(".")
    }
    return sum(name in there for name in wanted)


@lru_cache(maxsize=4)
def _parsed(root: Path, layout: str, splits: tuple[str, ...], fingerprint: tuple[object, ...]) -> Preview | str:
    """The preview, or what is wrong: a broken file of 300 MB is not to be parsed at every keystroke either."""
    cls = LAYOUTS[layout]
    try:
        records = importer_for(cls)(root, split=splits, skip_failures=True).preview()
        return _summary(records, splits, f"{cls.media_type}s")
    except (ValueError, OSError) as error:
        return str(error)


def _summary(records: Sequence[MediaRecord], splits: Sequence[str], media: str) -> Preview:
    sound = [record for record in records if record.problem is None]
    folders = [record for record in sound if isinstance(record.media, FolderMedia)]
    return Preview(
        media,
        tuple(_facts(name, [record for record in sound if record.split == name]) for name in splits),
        tuple((record.split, record.name) for record in folders),
        round(sum(map(_num_frames, folders)) * _mean_pixels(folders) * BYTES_PER_PIXEL),
        tuple(record.problem for record in records if record.problem is not None),
    )


def _facts(name: str, records: Sequence[MediaRecord]) -> SplitFacts:
    return SplitFacts(
        name,
        len(records),
        sum(map(_num_frames, records)),
        sum(len(record.expressions) for record in records),
        sum(record.read_annotations is not None for record in records),
    )


def _num_frames(record: MediaRecord) -> int:
    return len(record.media.names) if isinstance(record.media, FolderMedia) else 0


def _mean_pixels(records: Sequence[MediaRecord]) -> float:
    """The mean number of pixels of a frame, from the first images of some videos."""
    some = records[:: max(1, len(records) // _MEASURED)]
    sizes = [
        image_size(each.media.folder / each.media.names[0]) for each in some if isinstance(each.media, FolderMedia)
    ]
    return sum(height * width for height, width in sizes) / max(1, len(sizes))


def _fingerprint(root: Path) -> tuple[object, ...]:
    """What changes when a meta file does, or folders of videos come or go; not what is inside of those."""
    found = []
    for depth in range(_META_DEPTH):
        for path in root.glob("*/" * depth + "*"):
            is_meta = path.suffix in _META_SUFFIXES and path.is_file()
            if is_meta or (depth < _META_DEPTH - 1 and path.is_dir() and path.name != CACHE):
                stat = path.stat()
                found.append((str(path), stat.st_size, stat.st_mtime_ns))
    return tuple(sorted(found))
