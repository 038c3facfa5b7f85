"""What Refer-YouTube-VOS and Ref-DAVIS17 share: `meta_expressions.json`, and one image of object ids per frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fiftyone_refvos.datasets.files import (
    DatasetError,
    as_ids,
    entries_of,
    frame_files,
    inside,
    member,
    natural_key,
    read_json,
)
from fiftyone_refvos.datasets.layout import record_or_problem
from fiftyone_refvos.datasets.masks import VOID, image_size, read_index_png, to_rle
from fiftyone_refvos.datasets.records import (
    Annotations,
    ExpressionRecord,
    FolderMedia,
    MediaRecord,
    ObjectRecord,
)
from fiftyone_refvos.masklet import RLE

Categories = Mapping[str, Mapping[str, str]]  # by video and object id


@dataclass(frozen=True)
class IndexPngSplit:
    """One split of such a dataset.

    Attributes:
        name: of the split
        images: folders that may have the folder with the frames of a video; the first that has it counts
        annotations: in the same way, of the images of object ids; if none is there, there is no ground truth
        frame_rate: of the images
        categories: what the objects are
        has_void: whether 255 marks pixels that count for nothing, and is no object
    """

    name: str
    images: Sequence[Path]
    annotations: Sequence[Path]
    frame_rate: float
    categories: Categories
    has_void: bool = False

    def records(self, videos: Mapping[str, Any], where: object) -> Sequence[MediaRecord]:
        """The videos, in the order of the file.

        Args:
            videos: the contents of `videos` in the file with the expressions
            where: that file, for errors

        Raises:
            DatasetError: if files are missing, or the contents are something else
        """
        says = any(each.get("obj_id") is not None for each in entries_of(videos, "expressions"))
        return [
            record_or_problem(name, self.name, partial(self._record, name, video, says, f"{where}, video {name!r}"))
            for name, video in videos.items()
        ]

    def _record(self, name: str, video: Any, says: bool, where: str) -> MediaRecord:
        folder = first_folder(self.images, name)
        stems = as_ids(member(video, "frames", list, where), where)
        names = frame_files(folder, sorted(stems, key=natural_key))
        if not names:
            raise DatasetError(f"{where} has no frames")
        listed = member(video, "expressions", dict, where)
        expressions = tuple(_expression(id_, value, f"{where}, expression {id_!r}") for id_, value in listed.items())
        named = {id_ for each in expressions for id_ in each.object_ids or ()}
        annotations = first_folder(self.annotations, name)
        if expressions:
            known = any(each.object_ids is not None for each in expressions) and any(
                map(Path.is_dir, self.annotations)
            )
        else:  # its objects count, too, where the split tells what its masks mean
            known = says and annotations.is_dir()
        reader = None
        if known:
            reader = partial(
                _read,
                annotations,
                folder,
                names,
                named,
                self.categories.get(name, {}),
                self.has_void,
            )
        return MediaRecord(name, self.name, FolderMedia(folder, names, self.frame_rate), expressions, reader)


def read_videos(path: Path) -> dict[str, Any]:
    """What a file with expressions or categories says of each video.

    Raises:
        DatasetError: if it is missing or holds something else
    """
    videos: dict[str, Any] = member(read_json(path), "videos", dict, path)
    return videos


def read_categories(path: Path) -> Categories:
    """The categories of the objects in a `meta.json`; {} if there is no such file.

    Raises:
        DatasetError: if it holds something else
    """
    if not path.is_file():
        return {}
    return {
        name: {
            id_: str(thing["category"])
            for id_, thing in member(video, "objects", dict, f"{path}, video {name!r}").items()
            if isinstance(thing, dict) and thing.get("category") is not None
        }
        for name, video in read_videos(path).items()
    }


def first_folder(folders: Sequence[Path], name: str) -> Path:
    """The folder of a video below the first of some folders that has it; below the first of all if none has.

    Raises:
        DatasetError: for a name that leads out of them
    """
    candidates = [inside(folder, name) for folder in folders]
    return next((path for path in candidates if path.is_dir()), candidates[0])


def _expression(id_: str, value: Any, where: str) -> ExpressionRecord:
    text = member(value, "exp", str, where)
    if value.get("obj_id") is None:
        return ExpressionRecord(id_, text)
    object_ids = as_ids(value["obj_id"], where)
    if not all(each.isascii() and each.isdecimal() for each in object_ids):
        raise DatasetError(f"{where} has the object ids {object_ids}, but pixels have whole numbers")
    return ExpressionRecord(id_, text, tuple(str(int(each)) for each in object_ids))


def _read(
    folder: Path,
    images: Path,
    names: Sequence[str],
    named: Iterable[str],
    categories: Mapping[str, str],
    has_void: bool,
) -> Annotations:
    size = image_size(images / names[0])
    if not folder.is_dir():
        raise DatasetError(f"the folder {folder} is missing: unpack the annotations of the dataset there")
    files = annotation_files(folder, names)
    masks: dict[str, list[RLE | None]] = {id_: [None] * len(names) for id_ in named}
    for t, path in files.items():
        image = read_index_png(path, size)
        for value in np.flatnonzero(np.bincount(image.ravel())):
            if value:
                masks.setdefault(str(value), [None] * len(names))[t] = to_rle(image == value)
    void = masks.pop(str(VOID), [None] * len(names)) if has_void else None
    objects = (
        ObjectRecord(id_, tuple(masks[id_]), None, categories.get(id_)) for id_ in sorted(masks, key=natural_key)
    )
    return Annotations(size, tuple(objects), frozenset(files), tuple(void) if void is not None else None)


def annotation_files(folder: Path, names: Sequence[str]) -> dict[int, Path]:
    """The annotation images of a folder by the index of their frame, which has the same name but for the suffix.

    A frame without annotation image is one that nobody annotated.

    Args:
        folder: with the annotation images
        names: of the frames

    Raises:
        DatasetError: if there are images, but none of a frame
    """
    there = {path.stem: path for path in folder.glob("*.png") if not path.name.startswith(".")}
    found = {t: there[stem] for t, name in enumerate(names) if (stem := Path(name).stem) in there}
    if there and not found:
        raise DatasetError(
            f"the images in {folder} are called {min(there)}.png …, but the frames {names[0]} …: none has a frame"
        )
    return found
