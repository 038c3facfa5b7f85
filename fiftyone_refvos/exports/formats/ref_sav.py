"""Ref-SAV, the videos with expressions that Sa2VA is trained on: SA-V's files and one with the expressions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby, repeat
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from fiftyone_refvos.datasets.files import inside_for_writing
from fiftyone_refvos.datasets.layouts.ref_sav import STRIDE, TRAIN, VIDEOS
from fiftyone_refvos.datasets.masks import to_rle
from fiftyone_refvos.datasets.records import FileMedia, Masks, ObjectRecord, Size
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.json_files import JsonEntries
from fiftyone_refvos.exports.media import MediaMode, open_media, put
from fiftyone_refvos.exports.records import Exported
from fiftyone_refvos.exports.sa_v import FRAME_RATE, sa_v_json
from fiftyone_refvos.masklet import RLE
from fiftyone_refvos.overlay import write_video
from fiftyone_refvos.video import Frame, FrameSource

_FOLDER = "sav_train/sav_000"


class RefSAV(Format):
    """`Ref-SAV.json`, and `sam_v_full/sav_train/sav_000/<video>.mp4` with `<video>_manual.json`.

    Readers take every 4th frame of the mp4 and as many masks. A video in which exactly every 4th frame is annotated
    is written as it is. Of any other, the mp4 shows each annotated frame four times, so that the readers' frames are
    the annotated ones. Pictures that are encoded have even sides: odd ones are padded at the right and at the bottom,
    and masks with them.

    An object has one expression. The first one that means an object by itself gets its masks; each other one gets
    masks of its own, the union of its objects or empty ones. Objects that no expression names are kept.

    Sa2VA reads the layout of MeViS, too, which needs no encoding, and keeps objects and ids of expressions.
    """

    name = "ref-sav"
    title = "Ref-SAV (Sa2VA video)"
    description = "for training Sa2VA and SAM 2 on videos; overlapping objects, one expression each"
    splits_apart = False

    def __init__(self, root: Path, media: MediaMode) -> None:
        super().__init__(root, media)
        self._expressions = self.open_files.enter_context(JsonEntries(root / TRAIN))

    def add(self, exported: Exported) -> None:
        """Writes one video."""
        name, source = exported.name, open_media(exported.record)
        path = inside_for_writing(self.root / VIDEOS / _FOLDER, f"{name}.mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        things, texts = _one_expression_each(exported)
        annotated = sorted(exported.annotated)
        as_it_is = annotated == list(range(0, len(source), STRIDE))
        shown = range(len(source)) if as_it_is else [t for t in annotated for _ in range(STRIDE)]
        media, size = exported.record.media, exported.annotations.size
        if isinstance(media, FileMedia) and media.path.suffix.lower() == ".mp4" and as_it_is:
            put(media.path, path, self.media)
        else:
            size = (size[0] + size[0] % 2, size[1] + size[1] % 2)
            if self.media is not MediaMode.NONE:
                write_video(path, _repeated(source, shown), FRAME_RATE)
        rows = [[_padded(thing.masks[t], size) for thing in things] for t in annotated]
        content = sa_v_json(name, things, rows, size, len(shown))
        masks = inside_for_writing(path.parent, f"{Path(name).name}_manual.json")
        masks.write_text(json.dumps(content), encoding="utf-8")
        written = f"{Path(_FOLDER).name}/{_FOLDER}/{name}"  # with the last folder also first, as published
        self._expressions.set(
            name,
            {
                "video_path": f"{written}.mp4",
                "anno_path": f"{written}_manual.json",
                "objects": {str(column): {"formated": text} for column, text in texts.items()},
            },
        )


def _one_expression_each(exported: Exported) -> tuple[list[ObjectRecord], dict[int, str]]:
    """The objects, with further ones for expressions that need masks of their own, and texts by their position."""
    things = list(exported.annotations.objects)
    positions = {thing.id: position for position, thing in enumerate(things)}
    texts: dict[int, str] = {}
    for expression in exported.expressions:
        ids = expression.object_ids or ()
        position = positions[ids[0]] if len(ids) == 1 else len(things)
        if position in texts or position == len(things):
            position = len(things)
            things.append(_object_of(exported.union_of(expression), exported.objects_of(expression)))
        texts[position] = expression.text
    return things, dict(sorted(texts.items()))


def _object_of(masks: Masks, parts: Sequence[ObjectRecord]) -> ObjectRecord:
    return ObjectRecord("", masks, score=parts[0].score if parts else None)


def _repeated(source: FrameSource, shown: Sequence[int]) -> Iterator[Frame]:
    """The frames at ascending indices, each read once however often it is shown."""
    counts = [(t, len(list(same))) for t, same in groupby(shown)]
    for (_, count), frame in zip(counts, source.read(t for t, _ in counts), strict=True):
        yield from repeat(frame, count)


def _padded(rle: RLE | None, size: Size) -> RLE | None:
    """A mask in a picture that is larger at the right and at the bottom."""
    if rle is None or tuple(rle["size"]) == size:
        return rle
    height, width = rle["size"]
    return to_rle(np.pad(coco_mask.decode(rle) > 0, ((0, size[0] - height), (0, size[1] - width))))
