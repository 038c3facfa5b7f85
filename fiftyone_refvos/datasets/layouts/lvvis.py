"""LV-VIS: the objects of a category, called by its name; the original release, or its conversion for RefVOS."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fiftyone_refvos.datasets.files import as_ids, entries_of, folders_with, read_json
from fiftyone_refvos.datasets.json_index import JsonIndex
from fiftyone_refvos.datasets.layout import Layout
from fiftyone_refvos.datasets.layouts.mask_dict import MaskDictSplit
from fiftyone_refvos.datasets.layouts.youtube_vis import YouTubeVISSplit
from fiftyone_refvos.datasets.records import Annotations, ExpressionRecord, MediaRecord

META = "meta_expressions.json"
MASKS = "mask_dict.json"
INSTANCES = "train_instances.json"
OTHER_SPLITS = ("valid_u", "valid", "test")  # of MeViS
FRAME_RATE = 6.0  # the dataset does not tell; only players use it


class LvVis(Layout):
    """`train/JPEGImages/<video>/<frame>.jpg`, and beside `train` or in it the annotations.

    These are `meta_expressions.json` and `mask_dict.json`, the conversion, or else `train_instances.json`, the
    original release.
    """

    name = "lv-vis"
    title = "LV-VIS"
    also_fits = ("mevis",)

    def splits(self) -> tuple[str, ...]:
        there = self._images.is_dir() and (
            self._instances() or self._converted(self.root) or self._names_categories()
        )
        return ("train",) if there else ()

    def records(self, split: str) -> Sequence[MediaRecord]:
        instances = self._instances()
        folder = next(filter(self._converted, self._folders), None)
        if folder is not None:
            masks = JsonIndex(folder / MASKS)
            found = MaskDictSplit(split, folder / META, masks, self._images, FRAME_RATE).records()
        else:
            assert instances is not None
            found = YouTubeVISSplit(split, JsonIndex(instances), self._images, FRAME_RATE).records()
        return [_of_categories(record) for record in found]

    @property
    def _images(self) -> Path:
        return self.root / "train" / "JPEGImages"

    @property
    def _folders(self) -> tuple[Path, Path]:
        return self.root, self.root / "train"

    def _instances(self) -> Path | None:
        return next((path for folder in self._folders if (path := folder / INSTANCES).is_file()), None)

    def _converted(self, folder: Path) -> bool:
        return (folder / META).is_file() and (folder / MASKS).is_file()

    def _names_categories(self) -> bool:
        """Tells a conversion in `train` from MeViS.

        The names of categories have underscores and never blanks, no object has two of them, and there is one split.
        """
        if not self._converted(self.root / "train") or any(folders_with(self.root, META, OTHER_SPLITS)):
            return False
        listed = list(entries_of(read_json(self.root / "train" / META).get("videos"), "expressions"))
        anno_ids = [id_ for each in listed for id_ in as_ids(each.get("anno_id", []), self.root / "train" / META)]
        blanks = any(" " in str(each.get("exp")) for each in listed)
        return bool(listed) and not blanks and len(set(anno_ids)) == len(anno_ids)


def _of_categories(record: MediaRecord) -> MediaRecord:
    """Makes texts of the names of categories, which come as expressions."""
    categories = {id_: each.text for each in record.expressions for id_ in each.object_ids or ()}
    read = record.read_annotations
    return replace(
        record,
        expressions=tuple(map(_spoken, record.expressions)),
        read_annotations=partial(_with_categories, read, categories) if read else None,
    )


def _spoken(expression: ExpressionRecord) -> ExpressionRecord:
    attributes: dict[str, Any] = {**expression.attributes, "category": expression.text}
    return replace(expression, text=expression.text.replace("_", " "), attributes=attributes)


def _with_categories(read: Callable[[], Annotations], categories: Mapping[str, str]) -> Annotations:
    annotations = read()
    objects = tuple(replace(each, category=categories.get(each.id)) for each in annotations.objects)
    return replace(annotations, objects=objects)
