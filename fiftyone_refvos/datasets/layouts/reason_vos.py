"""ReasonVOS: phrases, questions and sentences that need reasoning; for evaluation alone."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fiftyone_refvos.datasets.files import DatasetError, as_ids, frame_files, inside, member, natural_key, read_json
from fiftyone_refvos.datasets.layout import Layout, record_or_problem
from fiftyone_refvos.datasets.layouts.index_png import annotation_files
from fiftyone_refvos.datasets.masks import image_size, read_binary_png
from fiftyone_refvos.datasets.records import (
    Annotations,
    ExpressionRecord,
    FolderMedia,
    MediaRecord,
    ObjectRecord,
    Size,
)
from fiftyone_refvos.masklet import RLE

META = "meta_expressions.json"
FRAME_RATE = 6.0  # the videos are of several datasets with rates of their own; only players use it


class ReasonVOS(Layout):
    """`meta_expressions.json`, `JPEGImages/<video>/<frame>.jpg`, `Annotations/<source>_<video>_<object>/<frame>.png`.

    An object is annotated, and evaluated, in the frames of which its folder has an image.
    """

    name = "reasonvos"
    title = "ReasonVOS"
    partial_truth = True

    def splits(self) -> tuple[str, ...]:
        folders = (self.root / "JPEGImages", self.root / "Annotations")
        return ("test",) if (self.root / META).is_file() and all(map(Path.is_dir, folders)) else ()

    def records(self, split: str) -> Sequence[MediaRecord]:
        meta = self.root / META
        videos = member(read_json(meta), "videos", dict, meta)
        return [
            record_or_problem(name, split, partial(self._record, split, name, video, f"{meta}, video {name!r}"))
            for name, video in videos.items()
        ]

    def _record(self, split: str, name: str, video: Any, where: str) -> MediaRecord:
        images = inside(self.root / "JPEGImages", name)
        source = member(video, "source", str, where)
        stems = as_ids(member(video, "frames", list, where), where)
        names = frame_files(images, sorted(stems, key=natural_key))
        if not names:
            raise DatasetError(f"{where} has no frames")
        expressions = _expressions(member(video, "expressions", list, where), where)
        object_ids = dict.fromkeys(id_ for each in expressions for id_ in each.object_ids or ())
        # The names of sources, videos and objects may have underscores: they are put together, never split.
        folders = {id_: inside(self.root / "Annotations", f"{source}_{name}_{id_}") for id_ in object_ids}
        return MediaRecord(
            name,
            split,
            FolderMedia(images, names, FRAME_RATE),
            expressions,
            partial(_read, folders, images, names),
            {"source": source},
        )


def _expressions(listed: list[Any], where: str) -> tuple[ExpressionRecord, ...]:
    """With ids that are unique in the video: the dataset's own, or `<object>_<its own>` where objects share one."""
    found = [_expression(value, f"{where}, expression number {n}") for n, value in enumerate(listed, start=1)]
    count = Counter(each.id for each in found)
    unique: dict[str, ExpressionRecord] = {}
    for each in found:
        id_ = each.id if count[each.id] == 1 else "_".join((*(each.object_ids or ()), each.id))
        again = (f"{id_}_{n}" for n in itertools.count(2))  # for the same object twice under one id
        while id_ in unique:
            id_ = next(again)
        unique[id_] = replace(each, id=id_)
    return tuple(unique.values())


def _expression(value: Any, where: str) -> ExpressionRecord:
    text = member(value, "exp_text", str, where)
    (exp_id,) = as_ids(member(value, "exp_id", (int, str), where), where)
    object_ids = as_ids(member(value, "obj_id", (int, str), where), where)
    attributes: dict[str, Any] = {"exp_id": exp_id}
    kind = None
    if value.get("is_sent") is not None:
        is_sentence = str(value["is_sent"]) in ("1", "True")
        attributes["is_sent"] = int(is_sentence)
        kind = "sentence" if is_sentence else "phrase"
    return ExpressionRecord(exp_id, text, object_ids, kind, attributes)


def _read(folders: dict[str, Path], images: Path, names: Sequence[str]) -> Annotations:
    size = image_size(images / names[0])
    objects = tuple(_object(id_, folder, names, size) for id_, folder in folders.items())
    annotated = frozenset[int]().union(*(each.annotated or () for each in objects))
    return Annotations(size, objects, annotated)


def _object(id_: str, folder: Path, names: Sequence[str], size: Size) -> ObjectRecord:
    files = annotation_files(folder, names)
    masks: list[RLE | None] = [None] * len(names)
    for t, path in files.items():
        masks[t] = read_binary_png(path, size)
    return ObjectRecord(id_, tuple(masks), annotated=frozenset(files))
