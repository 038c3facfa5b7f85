"""LISA's ReasonSeg: one image and one file of polygons for each expression."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
from pycocotools import mask as coco_mask

from fiftyone_refvos.datasets.files import inside_for_writing
from fiftyone_refvos.datasets.masks import to_rle
from fiftyone_refvos.datasets.records import ExpressionRecord
from fiftyone_refvos.exports.fill_polygons import fill_polygons
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.media import MediaMode, put, write_frames
from fiftyone_refvos.exports.names import FlatNames, picture_names
from fiftyone_refvos.exports.records import Exported
from fiftyone_refvos.masklet import RLE

logger = logging.getLogger(__name__)

_SETS = {"valid": "val"}
_SENTENCE_ENDS = ("?", ".", "!", "？", "。", "！")


class ReasonSeg(Format):
    """`<split>/<name>.jpg` with `<split>/<name>.json`, and `explanatory/train.json`, which is empty.

    There is one pair of files for every expression in every annotated frame in which it has a pixel, called
    `<video>_<frame>_<expression>` or `<image>_<expression>`; every other case is left out and counted in the log.
    The image is written for each of them: of long videos export a view of some frames.

    The objects of an expression are one mask. LISA draws its polygons as exactly that mask: they have no holes, and
    none shares a pixel with another, so that the order in which they are drawn does not matter. Void pixels are
    "ignore", except where the expression is: there they are "target".

    `is_sentence` is what the dataset says (`is_sent`, or the kind "sentence" or "phrase"), else whether the text ends
    as a sentence does, with "?", "." or "!". The split `valid` is called `val`. LISA wants explanations of some
    answers beside the files; there are none, and an empty list is what it reads then.
    """

    name = "reason-seg"
    title = "LISA ReasonSeg"
    description = "for training LISA on images and single frames; leaves out expressions without a pixel"
    media_types = ("video", "image")

    def __init__(self, root: Path, media: MediaMode) -> None:
        super().__init__(root, media)
        self._names: dict[str, FlatNames] = {}
        self._left_out = 0

    def add(self, exported: Exported) -> None:
        """Writes one video or image."""
        split = _SETS.get(exported.record.split, exported.record.split)
        folder = inside_for_writing(self.root, split)
        folder.mkdir(parents=True, exist_ok=True)
        unions = [(each, exported.union_of(each)) for each in exported.expressions]
        names, flat = picture_names(exported), self._names.setdefault(split, FlatNames(folder))
        firsts: dict[int, str] = {}
        copies: dict[str, list[str]] = {}
        for t in sorted(exported.annotated):
            void = exported.annotations.void[t] if exported.annotations.void else None
            for expression, masks in unions:
                target = masks[t]
                if target is None or t not in exported.covered(expression):
                    self._left_out += 1
                    continue
                # LISA finds the file of an image by replacing ".jpg" wherever it stands.
                name = flat.take(re.sub(r"\.(?=jpg)", "_", f"{names[t]}_{expression.id}"))
                first = firsts.setdefault(t, name)
                copies.setdefault(first, []).append(name)
                path = inside_for_writing(folder, f"{name}.json")
                path.write_text(json.dumps(_content(expression, target, void), ensure_ascii=False), encoding="utf-8")
        self._write_images(exported, folder, firsts, copies)

    def finish(self) -> None:
        """Writes the empty list of explanations, and says what is left out."""
        super().finish()
        path = self.root / "explanatory" / "train.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text("[]\n", encoding="utf-8")
        if self._left_out:
            logger.warning("%d times an expression is left out, as it has no pixel in an image", self._left_out)

    def _write_images(
        self, exported: Exported, folder: Path, firsts: dict[int, str], copies: dict[str, list[str]]
    ) -> None:
        """Writes the image of every frame under its first name, and copies that."""
        write_frames(exported.record, folder, [*firsts.values()], self.media, [*firsts])
        for first, names in copies.items():
            image = folder / f"{first}.jpg"
            encoded = self.media is MediaMode.SYMLINK and not image.is_symlink()  # a link to it would break
            for name in names[1:]:
                put(image.resolve(), folder / f"{name}.jpg", MediaMode.COPY if encoded else self.media)


def is_sentence(expression: ExpressionRecord) -> bool:
    """Whether an expression is a whole sentence or question, not the name of a thing."""
    if expression.attributes.get("is_sent") is not None:
        return bool(expression.attributes["is_sent"])
    if expression.kind in ("sentence", "phrase"):
        return expression.kind == "sentence"
    return expression.text.rstrip().endswith(_SENTENCE_ENDS)


def _content(expression: ExpressionRecord, target: RLE, void: RLE | None) -> dict[str, Any]:
    shapes = [("target", polygon) for polygon in fill_polygons(target)]
    rest = None if void is None else _without(void, target)
    if rest is not None:
        shapes += [("ignore", polygon) for polygon in fill_polygons(rest)]
    return {
        "text": [expression.text],
        "is_sentence": is_sentence(expression),
        "shapes": [{"label": label, "points": points} for label, points in shapes],
    }


def _without(rle: RLE, other: RLE) -> RLE | None:
    """The pixels of a mask that another has not."""
    pixels = coco_mask.decode(cast(Any, [rle, other])).astype(bool)
    return to_rle(np.ascontiguousarray(pixels[..., 0] & ~pixels[..., 1]))
