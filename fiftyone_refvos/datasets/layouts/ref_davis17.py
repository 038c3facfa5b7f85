"""Ref-DAVIS17: two annotators, each with an expression for the first frame and one for the full video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fiftyone_refvos.datasets.files import entries_of, read_json
from fiftyone_refvos.datasets.layout import Layout
from fiftyone_refvos.datasets.layouts.davis_text import read_texts
from fiftyone_refvos.datasets.layouts.index_png import Categories, IndexPngSplit, read_categories, read_videos
from fiftyone_refvos.datasets.records import ExpressionRecord, MediaRecord

FRAME_RATE = 24.0  # of DAVIS

NUM_ANNOTATORS = 4
"""Annotator 1 of the first frame and of the full video, annotator 2 of both."""

_SETS = {"train": "train.txt", "valid": "val.txt"}


class RefDAVIS17(Layout):
    """`meta_expressions/<split>/meta_expressions.json` and `<split>/{JPEGImages,Annotations}/<video>/<frame>`.

    Without `meta_expressions` the raw texts are read, and images may lie as DAVIS 2017 has them.
    """

    name = "ref-davis17"
    title = "Ref-DAVIS17"
    also_fits = ("refer-youtube-vos",)

    def splits(self) -> tuple[str, ...]:
        if not self._is_davis():
            return ()
        return tuple(
            split
            for split in _SETS
            if any(map(Path.is_dir, self._folders(split, "JPEGImages")))
            and (self._meta(split).is_file() or (self._texts.is_dir() and self._names(split)))
        )

    def records(self, split: str) -> Sequence[MediaRecord]:
        meta, images = self._meta(split), self._folders(split, "JPEGImages")
        if meta.is_file():
            videos: Mapping[str, Any] = read_videos(meta)
        else:
            meta, videos = self._texts, read_texts(self._texts, self._names(split), images)
        found = IndexPngSplit(
            split,
            images,
            self._folders(split, "Annotations"),
            FRAME_RATE,
            self._categories(split),
            has_void=True,
        ).records(videos, meta)
        return [replace(record, expressions=tuple(map(_with_annotator, record.expressions))) for record in found]

    @property
    def _texts(self) -> Path:
        return self.root / "davis_text_annotations"

    def _meta(self, split: str) -> Path:
        return self.root / "meta_expressions" / split / "meta_expressions.json"

    def _folders(self, split: str, kind: str) -> list[Path]:
        original = {"JPEGImages": "JPEGImages", "Annotations": "Annotations_unsupervised"}[kind]
        return [self.root / split / kind, self.root / "DAVIS" / original / "480p"]

    def _names(self, split: str) -> list[str]:
        """The videos of a split, where no file with expressions lists them."""
        listed = self.root / "DAVIS" / "ImageSets" / "2017" / _SETS[split]
        if listed.is_file():
            return listed.read_text(encoding="utf-8").split()
        folder = self.root / split / "JPEGImages"
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    def _categories(self, split: str) -> Categories:
        semantics = self.root / "DAVIS" / "davis_semantics.json"
        meta = read_categories(self.root / split / "meta.json")
        return meta or (read_json(semantics) if semantics.is_file() else {})

    def _is_davis(self) -> bool:
        """Tells it from Refer-YouTube-VOS, which has the same layout."""
        if self._texts.is_dir() or (self.root / "DAVIS").is_dir():
            return True
        if self._meta("valid").is_file():  # of Refer-YouTube-VOS nobody knows which objects these mean
            return any("obj_id" in each for each in entries_of(read_videos(self._meta("valid")), "expressions"))
        meta = self.root / "train" / "meta.json"
        objects = list(entries_of(read_videos(meta), "objects")) if meta.is_file() else []
        return bool(objects) and not any("frames" in each for each in objects)


def _with_annotator(expression: ExpressionRecord) -> ExpressionRecord:
    """The ids of the expressions of object n are 4 * (n - 1) + annotator."""
    if not expression.id.isdecimal():
        return expression
    return replace(expression, attributes={"annotator": int(expression.id) % NUM_ANNOTATORS})
