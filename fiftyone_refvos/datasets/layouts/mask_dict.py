"""What MeViS, ReVOS, LV-VIS and the evaluation part of Ref-SAV share: `meta_expressions.json` and `mask_dict.json`.

An expression has `exp`, `obj_id` and `anno_id`; `mask_dict.json` has for every `anno_id`, as text, one RLE per frame
of the sorted list of frames, or null where the object cannot be seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fiftyone_refvos.datasets.files import DatasetError, as_ids, as_number, frame_files, inside, member, read_json
from fiftyone_refvos.datasets.json_index import JsonIndex
from fiftyone_refvos.datasets.layout import record_or_problem
from fiftyone_refvos.datasets.masks import image_size, parse_rle
from fiftyone_refvos.datasets.records import (
    Annotations,
    ExpressionRecord,
    FolderMedia,
    Masks,
    MediaRecord,
    ObjectRecord,
    Size,
)


@dataclass(frozen=True)
class MaskDictSplit:
    """One split of such a dataset.

    Attributes:
        name: of the split
        meta: the file with the expressions
        masks: those of the split, and maybe of others; a file that does not exist means that there is no ground truth
        images: the folder with one folder of frames per video
        frame_rate: of the images
        kinds: what the `type_id` of an expression means
        foreground: the union of all objects of every video, where there is such a file
    """

    name: str
    meta: Path
    masks: JsonIndex
    images: Path
    frame_rate: float
    kinds: Mapping[int, str] = field(default_factory=dict)
    foreground: JsonIndex | None = None

    def records(self) -> Sequence[MediaRecord]:
        """The videos, in the order of the file.

        Raises:
            DatasetError: if files are missing or hold something else
        """
        videos = member(read_json(self.meta), "videos", dict, self.meta)
        has_masks = self.masks.path.is_file()
        foreground = self.foreground if self.foreground is not None and self.foreground.path.is_file() else None
        return [
            record_or_problem(name, self.name, partial(self._record, name, video, has_masks, foreground))
            for name, video in videos.items()
        ]

    def _record(self, name: str, video: Any, has_masks: bool, foreground: JsonIndex | None) -> MediaRecord:
        where = f"{self.meta}, video {name!r}"
        folder = inside(self.images, name)
        names = frame_files(folder, sorted(as_ids(member(video, "frames", list, where), where)))
        if not names:
            raise DatasetError(f"{where} has no frames")
        listed = member(video, "expressions", dict, where)
        anno_ids = _objects(listed, where)
        reader = None
        # Without masks, or where not one expression says what it means, there is no ground truth.
        if has_masks and any("anno_id" in value for value in listed.values()):
            reader = partial(_read, self.masks, anno_ids, folder / names[0], len(names), foreground, name)
        return MediaRecord(
            name=name,
            split=self.name,
            media=FolderMedia(folder, names, self.frame_rate),
            expressions=tuple(
                self._expression(id_, value, anno_ids, reader is not None, where) for id_, value in listed.items()
            ),
            read_annotations=reader,
            attributes=number_of(video.get("vid_id"), where),
        )

    def _expression(
        self, id_: str, value: Any, anno_ids: Mapping[str, str], has_truth: bool, where: str
    ) -> ExpressionRecord:
        where = f"{where}, expression {id_!r}"
        wanted = as_ids(value.get("anno_id", []), where)
        object_ids = tuple(object_id for object_id, anno_id in anno_ids.items() if anno_id in wanted)
        kind = value.get("type_id")
        attributes = {} if kind is None else {"type_id": as_number(kind, f"{where}: 'type_id'")}
        return ExpressionRecord(
            id=id_,
            text=member(value, "exp", str, where),
            object_ids=object_ids if has_truth and "anno_id" in value else None,
            kind=self.kinds.get(attributes.get("type_id", -1)),
            attributes=attributes,
        )


def number_of(vid_id: Any, where: str) -> dict[str, int]:
    """The attribute `vid_id` of a video; none where it is missing, or repeats the name, as in Ref-SAV."""
    text = str(vid_id)
    return {"vid_id": as_number(text, f"{where}: 'vid_id'")} if text.isascii() and text.isdecimal() else {}


def _objects(expressions: Mapping[str, Any], where: str) -> dict[str, str]:
    """Object id -> anno id of a video, in order.

    The ids of objects count from 0 in a video; where they do not stand for one mask list each, the anno ids do.
    """
    pairs: dict[tuple[str, str], None] = {}
    for id_, value in expressions.items():
        here = f"{where}, expression {id_!r}"
        if not isinstance(value, dict):
            raise DatasetError(f"{here} is {value!r}, not an object")
        anno_ids = as_ids(value.get("anno_id", []), here)
        object_ids = as_ids(value.get("obj_id", list(anno_ids)), here)
        if len(object_ids) != len(anno_ids):
            object_ids = anno_ids
        pairs |= dict.fromkeys(zip(object_ids, anno_ids, strict=True))
    one_to_one = len({object_id for object_id, _ in pairs}) == len(pairs) == len({anno_id for _, anno_id in pairs})
    return dict(pairs.keys()) if one_to_one else {anno_id: anno_id for _, anno_id in pairs}


def _read(
    masks: JsonIndex,
    anno_ids: Mapping[str, str],
    first_image: Path,
    num_frames: int,
    foreground: JsonIndex | None,
    video: str,
) -> Annotations:
    size = image_size(first_image)
    objects = []
    for object_id, anno_id in anno_ids.items():
        if anno_id not in masks:
            raise DatasetError(f"{masks.path} has no masks {anno_id!r}, which an expression of {video!r} names")
        where = f"{masks.path}, masks {anno_id!r} of video {video!r}"
        objects.append(ObjectRecord(object_id, parse_masks(masks[anno_id], size, num_frames, where), anno_id))
    union = None
    if foreground is not None and video in foreground:
        where = f"{foreground.path}, video {video!r}"
        union = parse_masks(member(foreground[video], "masks_rle", list, where), size, num_frames, where)
    return Annotations(size, tuple(objects), foreground=union)


def parse_masks(values: Any, size: Size, num_frames: int, where: str) -> Masks:
    """The masks of one object, one RLE or null per frame.

    Raises:
        DatasetError: for another number of them, and for damaged masks
    """
    if not isinstance(values, list) or len(values) != num_frames:
        count = len(values) if isinstance(values, list) else "no list of"
        raise DatasetError(f"{where}: there are {count} masks for {num_frames} frames")
    return tuple(parse_rle(value, size, f"{where}, frame {t + 1}") for t, value in enumerate(values))
