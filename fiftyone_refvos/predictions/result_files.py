"""Result files: Sa2VA's `results.json`, and YouTube-VIS results."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

from fiftyone_refvos.datasets.files import DatasetError, member, read_json
from fiftyone_refvos.datasets.json_index import JsonIndex
from fiftyone_refvos.predictions.source import Prediction, Wanted, rle_per_frame


class Sa2VAResults:
    """`{video: {expression id: {"prediction_masks": [RLE per frame], …}}}`, read video by video."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._content = JsonIndex(path)

    def videos(self) -> set[str]:
        """The names of the videos."""
        return set(self._content)

    def read(self, wanted: Wanted) -> Prediction | None:
        """The masks of an expression, one object."""
        expressions = self._content.get(wanted.video)
        if expressions is None:
            return None
        if not isinstance(expressions, dict):
            raise DatasetError(f"{self.path}: video {wanted.video!r} holds no expressions")
        entry = expressions.get(wanted.expression_id)
        if entry is None:
            return None
        where = f"{self.path}, video {wanted.video!r}, expression {wanted.expression_id!r}"
        named = entry.get("frames") if isinstance(entry, dict) else None
        if isinstance(named, list) and [Path(str(name)).stem for name in named] != list(wanted.frames):
            raise DatasetError(f"{where}: its frames {named[:3]}… are others than those of the dataset")
        masks = rle_per_frame(member(entry, "prediction_masks", list, where), wanted, where)
        return Prediction(tuple((mask,) for mask in masks), (1.0,))


class YouTubeVISResults:
    """YouTube-VIS results, `[{video_id, category_id, score, segmentations}]`, or a whole YouTube-VIS file.

    The names of videos and categories are in the annotation file; an expression gets the results of the category with
    its text. A whole file needs no other.

    Args:
        path: the results
        annotations: the file with `videos` and `categories`; None if `path` has them
    """

    def __init__(self, path: Path, annotations: Path | None = None) -> None:
        self.path = path
        content = read_json(path, (dict, list))
        if isinstance(content, list) and annotations is None:
            raise DatasetError(
                f"{path} has numbers for videos and categories: pass annotations=, the file with their names"
            )
        facts = content if annotations is None else read_json(annotations)
        where = annotations or path
        self._videos = {_video_name(video, where): video["id"] for video in member(facts, "videos", list, where)}
        names = {member(each, "name", str, where): each["id"] for each in member(facts, "categories", list, where)}
        self._categories = {_comparable(name): id_ for name, id_ in names.items()} | names
        entries = content if isinstance(content, list) else member(content, "annotations", list, path)
        self._entries: dict[tuple[Any, Any], list[Any]] = defaultdict(list)
        for entry in entries:
            key = (member(entry, "video_id", (int, str), path), member(entry, "category_id", (int, str), path))
            self._entries[key].append(entry)

    def videos(self) -> set[str]:
        """The names of the videos with results."""
        having = {video_id for video_id, _ in self._entries}
        return {name for name, id_ in self._videos.items() if id_ in having}

    def read(self, wanted: Wanted) -> Prediction | None:
        """The masks of all objects of an expression."""
        category = self._categories.get(wanted.text, self._categories.get(_comparable(wanted.text)))
        key = (self._videos.get(wanted.video), category)
        entries = self._entries.get(key)
        if not entries:
            return None
        objects = [
            rle_per_frame(entry.get("segmentations"), wanted, f"{self.path}, video {wanted.video!r}")
            for entry in entries
        ]
        scores = tuple(float(entry.get("score", 1.0)) for entry in entries)
        return Prediction(tuple(zip(*objects, strict=True)), scores)


def is_sa2va(path: Path) -> bool:
    """Whether a JSON file is one of Sa2VA: an object of objects, without the lists of YouTube-VIS."""
    try:
        content = JsonIndex(path)
        return not {"videos", "categories", "annotations"} <= set(content)
    except DatasetError:
        return False


def _video_name(video: Any, where: Path) -> str:
    """The folder of its frames, as everybody writes them: `<video>/<frame>.jpg`."""
    files = member(video, "file_names", list, f"{where}, videos")
    if "id" not in video or not files:
        raise DatasetError(f"{where}: a video without 'id' or 'file_names': {json.dumps(video)[:80]}")
    return str(PurePosixPath(str(files[0]).replace("\\", "/")).parent)


def _comparable(text: str) -> str:
    return " ".join(text.replace("_", " ").lower().split())
