"""Ref-SAV: expressions on the videos of SA-V, which are mp4 files, and an evaluation part with images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fiftyone_refvos.datasets.files import DatasetError, inside, member, natural_key, read_json
from fiftyone_refvos.datasets.json_index import JsonIndex
from fiftyone_refvos.datasets.layout import Layout, record_or_problem
from fiftyone_refvos.datasets.layouts.mask_dict import MaskDictSplit
from fiftyone_refvos.datasets.masks import parse_rle
from fiftyone_refvos.datasets.records import (
    Annotations,
    ExpressionRecord,
    FileMedia,
    MediaRecord,
    ObjectRecord,
    Size,
)
from fiftyone_refvos.masklet import RLE

STRIDE = 4  # SA-V: 24 frames per second, of which every 4th is annotated
EVAL_FRAME_RATE = 24.0 / STRIDE  # the images of the evaluation part are the annotated frames
KINDS = {0: "long caption", 1: "short caption"}

TRAIN = "Ref-SAV.json"
VIDEOS = "sam_v_full"


class RefSAV(Layout):
    """`Ref-SAV.json` with `sam_v_full/sav_train/sav_<nnn>/` of SA-V, and `ref_sav_eval/`.

    Parts of SA-V may be missing: videos are looked for when they are read.
    """

    name = "ref-sav"
    title = "Ref-SAV"

    def splits(self) -> tuple[str, ...]:
        marks = {"train": self.root / TRAIN, "eval": self._eval / "meta_expressions_valid.json"}
        media = {"train": self.root / VIDEOS, "eval": self._eval / "videos"}
        listed = tuple(split for split, path in marks.items() if path.is_file())
        with_media = tuple(split for split in listed if media[split].is_dir())
        return with_media or listed  # without any, the import tells what is missing

    def records(self, split: str) -> Sequence[MediaRecord]:
        if split == "train":
            listed = read_json(self.root / TRAIN)
            return [
                record_or_problem(name, split, partial(self._record, name, value, f"{self.root / TRAIN}, {name!r}"))
                for name, value in listed.items()
            ]
        return MaskDictSplit(
            split,
            self._eval / "meta_expressions_valid.json",
            JsonIndex(self._eval / "mask_dict.json"),
            self._eval / "videos",
            EVAL_FRAME_RATE,
            KINDS,
        ).records()

    @property
    def _eval(self) -> Path:
        return self.root / "ref_sav_eval"

    def _record(self, name: str, value: Any, where: str) -> MediaRecord:
        video = self._path(member(value, "video_path", str, where))
        masks = self._path(member(value, "anno_path", str, where))
        objects = member(value, "objects", dict, where)
        expressions = tuple(
            ExpressionRecord(id_, member(objects[id_], "formated", str, f"{where}, object {id_!r}"), (id_,))
            for id_ in sorted(objects, key=natural_key)
        )
        return MediaRecord(name, "train", FileMedia(video), expressions, partial(_read, video, masks))

    def _path(self, written: str) -> Path:
        """Where a file is: `sav_000/sav_train/sav_000/x` means `sav_train/sav_000/x`."""
        parts = written.replace("\\", "/").split("/")
        doubled = [n for n in range(len(parts) - 2) if parts[n + 1] == "sav_train" and parts[n] == parts[n + 2]]
        for n in doubled[:1]:
            del parts[n]
        return inside(self.root / VIDEOS, "/".join(parts))


def _read(video: Path, path: Path) -> Annotations:
    """The masks of SA-V: `masklet[i][j]` is object j in frame 4 * i."""
    if not video.is_file():
        raise DatasetError(f"{video} is missing: download that part of SA-V, or pass skip_failures=True")
    content = read_json(path)
    size = (
        int(member(content, "video_height", (int, float), path)),
        int(member(content, "video_width", (int, float), path)),
    )
    rows = member(content, "masklet", list, path)
    counts = {len(row) if isinstance(row, list) else -1 for row in rows}
    if len(counts) > 1 or -1 in counts:
        raise DatasetError(f"{path}: the frames in 'masklet' have different numbers of objects: download it again")
    anno_ids = content.get("masklet_id") or []
    num_objects = max(counts, default=0)
    return Annotations(
        size,
        tuple(
            ObjectRecord(str(j), _masks(rows, j, size, path), str(anno_ids[j]) if j < len(anno_ids) else None)
            for j in range(num_objects)
        ),
        annotated=frozenset(range(0, STRIDE * len(rows), STRIDE)),
    )


def _masks(rows: Sequence[Sequence[Any]], column: int, size: Size, path: Path) -> tuple[RLE | None, ...]:
    masks: list[RLE | None] = [None] * (STRIDE * (len(rows) - 1) + 1)
    for i, row in enumerate(rows):
        masks[STRIDE * i] = parse_rle(row[column], size, f"{path}, masklet[{i}][{column}]")
    return tuple(masks)
