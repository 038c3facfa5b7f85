"""ReVOS: MeViS' layout with kinds of expressions and the foreground of every video."""

from __future__ import annotations

from pathlib import Path

from pycocotools import mask as coco_mask

from fiftyone_refvos.datasets.files import inside_for_writing
from fiftyone_refvos.datasets.masks import union
from fiftyone_refvos.datasets.records import ExpressionRecord, Masks
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.json_files import JsonEntries
from fiftyone_refvos.exports.mask_dict import write_masks
from fiftyone_refvos.exports.media import MediaMode, write_frames
from fiftyone_refvos.exports.names import sorted_stems
from fiftyone_refvos.exports.records import Exported, Numbers, empty_rle, json_rle

REFERRING, NO_TARGET = 0, 2


class ReVOS(Format):
    """`meta_expressions_<split>_.json`, and for all splits one `mask_dict.json`, its foreground and `JPEGImages/`.

    An expression has the `type_id` of its dataset; where that has none, 2 if it means no object, else 0, "referring".
    The foreground of a video is its field `foreground` where it has one, else the union of what its expressions mean.
    A frame without a mask of an object is null, whether the object is absent or was not annotated there.

    Readers sort the names of frames as text. Where that is not their order, numbers get zeros in front, and other
    names become numbers.
    """

    name = "revos"
    title = "ReVOS"
    description = "for training and evaluating VISA, GLUS and Sa2VA on ReVOS; holds overlapping objects"
    splits_apart = False  # they share folders and the foreground
    readable_splits = ("train", "valid")

    def __init__(self, root: Path, media: MediaMode) -> None:
        super().__init__(root, media)
        self._masks = self.open_files.enter_context(JsonEntries(root / "mask_dict.json"))
        self._foreground = self.open_files.enter_context(JsonEntries(root / "mask_dict_foreground.json"))
        self._annos = Numbers()
        self._splits: dict[str, tuple[JsonEntries, Numbers]] = {}

    def add(self, exported: Exported) -> None:
        """Writes one video."""
        record, (height, width) = exported.record, exported.annotations.size
        stems = sorted_stems(exported.stems)
        write_frames(record, inside_for_writing(self.root, "JPEGImages", record.name), stems, self.media)
        expressions = write_masks(exported, self._masks, self._annos)
        for expression in exported.expressions:
            expressions[expression.id]["type_id"] = _type_id(expression)
        foreground = [rle or empty_rle((height, width)) for rle in _foreground(exported)]
        ratios = [int(coco_mask.area(rle)) / (height * width) for rle in foreground]
        self._foreground.set(
            record.name, {"masks_rle": [json_rle(rle) for rle in foreground], "foreground_ratio": ratios}
        )
        meta, videos = self._of_split(record.split)
        video = {"expressions": expressions, "vid_id": videos.take(record.attributes.get("vid_id"))}
        meta.set(record.name, video | {"frames": list(stems), "height": height, "width": width})

    def _of_split(self, split: str) -> tuple[JsonEntries, Numbers]:
        if split not in self._splits:
            path = inside_for_writing(self.root, f"meta_expressions_{split}_.json")
            self._splits[split] = (self.open_files.enter_context(JsonEntries(path, under="videos")), Numbers())
        return self._splits[split]


def _foreground(exported: Exported) -> Masks:
    if exported.annotations.foreground is not None:
        return exported.annotations.foreground
    unions = [exported.union_of(expression) for expression in exported.expressions]
    return tuple(union(masks[t] for masks in unions) for t in range(len(exported.stems)))


def _type_id(expression: ExpressionRecord) -> int:
    known = expression.attributes.get("type_id")
    if isinstance(known, int):
        return known
    return REFERRING if expression.object_ids else NO_TARGET
