"""ReVOS: referring and reasoning expressions, and ones that mean nothing that is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fiftyone_refvos.datasets.json_index import JsonIndex
from fiftyone_refvos.datasets.layout import Layout
from fiftyone_refvos.datasets.layouts.mask_dict import MaskDictSplit
from fiftyone_refvos.datasets.records import MediaRecord

FRAME_RATE = 6.0  # the videos are of several datasets with rates of their own; only players use it
KINDS = {0: "referring", 1: "reasoning", 2: "hallucination"}


class ReVOS(Layout):
    """`meta_expressions_<split>_.json`, `mask_dict.json` and `JPEGImages/<source>/…/<video>/<frame>.jpg`."""

    name = "revos"
    title = "ReVOS"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._masks = JsonIndex(root / "mask_dict.json")  # of both splits, and scanned once
        self._foreground = JsonIndex(root / "mask_dict_foreground.json")

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in ("train", "valid") if self._meta(split).is_file())

    def records(self, split: str) -> Sequence[MediaRecord]:
        images = self.root / "JPEGImages"
        if not images.is_dir():
            images = self.root  # some programs have the folders of the sources there
        return MaskDictSplit(
            split, self._meta(split), self._masks, images, FRAME_RATE, KINDS, self._foreground
        ).records()

    def _meta(self, split: str) -> Path:
        return self.root / f"meta_expressions_{split}_.json"
