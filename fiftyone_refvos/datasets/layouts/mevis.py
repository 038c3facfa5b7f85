"""MeViS, v1 and v2: expressions of motion, each of any number of objects, in v2 also of none."""

from __future__ import annotations

from collections.abc import Sequence

from fiftyone_refvos.datasets.files import folders_with
from fiftyone_refvos.datasets.json_index import JsonIndex
from fiftyone_refvos.datasets.layout import Layout
from fiftyone_refvos.datasets.layouts.mask_dict import MaskDictSplit
from fiftyone_refvos.datasets.records import MediaRecord

META = "meta_expressions.json"
MASKS = "mask_dict.json"
FRAME_RATE = 24.0  # the dataset does not tell; only players use it


class MeViS(Layout):
    """`<split>/{meta_expressions,mask_dict}.json` and `<split>/JPEGImages/<video>/<frame>.jpg`."""

    name = "mevis"
    title = "MeViS"

    def splits(self) -> tuple[str, ...]:
        listed = tuple(folders_with(self.root, META, ("train", "valid_u", "valid", "test")))
        with_images = tuple(split for split in listed if (self.root / split / "JPEGImages").is_dir())
        return with_images or listed  # without any, the import tells what is missing

    def records(self, split: str) -> Sequence[MediaRecord]:
        folder = self.root / split
        masks = JsonIndex(folder / MASKS)
        return MaskDictSplit(split, folder / META, masks, folder / "JPEGImages", FRAME_RATE).records()
