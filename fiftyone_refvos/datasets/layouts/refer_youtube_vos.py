"""Refer-YouTube-VOS: one object per expression; the ground truth of `valid` and `test` is not public."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fiftyone_refvos.datasets.layout import Layout
from fiftyone_refvos.datasets.layouts.index_png import IndexPngSplit, read_categories, read_videos
from fiftyone_refvos.datasets.records import MediaRecord

FRAME_RATE = 6.0  # every 5th frame of videos with 30 frames per second

# The folders whose images a split may have: the list of `valid` names the videos of `test`, too, and releases put
# their images into one folder or into two.
_FOLDERS = {"train": ("train",), "valid": ("valid", "test"), "test": ("test", "valid")}


class ReferYouTubeVOS(Layout):
    """`meta_expressions/<split>/meta_expressions.json` and `<split>/{JPEGImages,Annotations}/<video>/<frame>`.

    `valid` has the videos to evaluate on: those that its list has, and the list of `test` has not.
    """

    name = "refer-youtube-vos"
    title = "Refer-YouTube-VOS"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._listed: dict[str, Mapping[str, Any]] = {}

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in _FOLDERS if self._meta(split).is_file() and self._has_images(split))

    def records(self, split: str) -> Sequence[MediaRecord]:
        videos = self._videos(split)
        if split == "valid" and self._meta("test").is_file():
            videos = {name: video for name, video in videos.items() if name not in self._videos("test")}
        return IndexPngSplit(
            split,
            self._images(split),
            [self.root / split / "Annotations"],
            FRAME_RATE,
            read_categories(self.root / split / "meta.json"),
        ).records(videos, self._meta(split))

    def _meta(self, split: str) -> Path:
        return self.root / "meta_expressions" / split / "meta_expressions.json"

    def _images(self, split: str) -> list[Path]:
        return [self.root / folder / "JPEGImages" for folder in _FOLDERS[split]]

    def _has_images(self, split: str) -> bool:
        """The folder of `valid` counts for `test` only if it has images of `test`."""
        own, *others = self._images(split)
        return own.is_dir() or any((folder / name).is_dir() for folder in others for name in self._videos(split))

    def _videos(self, split: str) -> Mapping[str, Any]:
        if split not in self._listed:
            self._listed[split] = read_videos(self._meta(split))
        return self._listed[split]
