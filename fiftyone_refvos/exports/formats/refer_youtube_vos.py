"""Refer-YouTube-VOS: one annotation image per frame, one object per expression."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from fiftyone_refvos.datasets.files import inside_for_writing
from fiftyone_refvos.datasets.records import ExpressionRecord
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.json_files import JsonEntries
from fiftyone_refvos.exports.label_maps import label_map, label_numbers
from fiftyone_refvos.exports.media import MediaMode, write_frames
from fiftyone_refvos.exports.records import Exported

logger = logging.getLogger(__name__)

UNKNOWN = "others"  # of YouTube-VOS' own categories; ReferFormer refuses names that are none of them


class ReferYouTubeVOS(Format):
    """`meta_expressions/<split>/meta_expressions.json` and `<split>/{JPEGImages,Annotations,meta.json}`.

    An expression means exactly one object: one that means several or none is an error. A pixel belongs to one object:
    of overlapping ones the smaller lies on top, and a warning says how much it hides, which for masklets of models
    can be much, as two expressions of one object are two objects then. A frame that nobody annotated has no image.
    Objects whose category is not known are "others".
    """

    name = "refer-youtube-vos"
    title = "Refer-YouTube-VOS"
    description = "for training ReferFormer, GLUS and others; one object per expression, no overlapping objects"
    readable_splits = ("train", "valid", "test")

    def __init__(self, root: Path, media: MediaMode) -> None:
        super().__init__(root, media)
        self._files: dict[str, tuple[JsonEntries, JsonEntries]] = {}
        self._hidden = 0

    def add(self, exported: Exported) -> None:
        """Writes one video."""
        record = exported.record
        numbers = label_numbers(exported)
        expressions = {
            expression.id: {"exp": expression.text, "obj_id": str(numbers[_only_object(exported, expression)])}
            for expression in exported.expressions
        }
        folder = inside_for_writing(self.root, record.split)
        write_frames(record, inside_for_writing(folder, "JPEGImages", record.name), exported.stems, self.media)
        visible = self._draw(exported, numbers, inside_for_writing(folder, "Annotations", record.name))
        objects = {
            str(numbers[thing.id]): {
                "category": thing.category or UNKNOWN,
                "frames": [exported.stems[t] for t in visible[numbers[thing.id]]],
            }
            for thing in exported.annotations.objects
        }
        meta, categories = self._of_split(record.split, folder)
        meta.set(record.name, {"expressions": expressions, "frames": list(exported.stems)})
        categories.set(record.name, {"objects": objects})

    def finish(self) -> None:
        """Closes the files, and says what they could not hold."""
        super().finish()
        if self._hidden:
            logger.warning("%d pixels of objects are hidden by smaller objects that overlap them", self._hidden)

    def _draw(self, exported: Exported, numbers: dict[str, int], folder: Path) -> dict[int, list[int]]:
        """Writes the annotation images, and returns in which frames each object can be seen in them."""
        folder.mkdir(parents=True, exist_ok=True)
        visible: dict[int, list[int]] = {number: [] for number in numbers.values()}
        things = exported.annotations.objects
        for t in sorted(exported.annotated):
            drawn = label_map({numbers[thing.id]: thing.masks[t] for thing in things}, exported.annotations.size)
            drawn.save(inside_for_writing(folder, f"{exported.stems[t]}.png"))
            self._hidden += drawn.hidden
            for number in np.flatnonzero(np.bincount(drawn.pixels.ravel())):
                if number:
                    visible[int(number)].append(t)
        return visible

    def _of_split(self, split: str, folder: Path) -> tuple[JsonEntries, JsonEntries]:
        if split not in self._files:
            meta = inside_for_writing(self.root, "meta_expressions", split, "meta_expressions.json")
            self._files[split] = (
                self.open_files.enter_context(JsonEntries(meta, under="videos")),
                self.open_files.enter_context(JsonEntries(folder / "meta.json", under="videos")),
            )
        return self._files[split]


def _only_object(exported: Exported, expression: ExpressionRecord) -> str:
    ids = expression.object_ids or ()
    if len(ids) != 1:
        raise ExportError(
            f"expression {expression.id!r} of {exported.name!r} ({expression.text!r}) means {len(ids)} objects, but "
            "in Refer-YouTube-VOS exactly one: export in the format of MeViS, or a view that filter_labels has made, "
            "without such expressions"
        )
    return ids[0]
