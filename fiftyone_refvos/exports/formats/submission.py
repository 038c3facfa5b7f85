"""Submissions to the servers of MeViS and Refer-YouTube-VOS: a zip with one PNG per expression and frame."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from fiftyone_refvos.datasets.files import inside
from fiftyone_refvos.exports.completeness import complete_expressions
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.media import MediaMode
from fiftyone_refvos.exports.records import Exported
from fiftyone_refvos.masklet import RLE
from fiftyone_refvos.predictions.submission import TOP

ARCHIVE = "submission.zip"
_TIME = (1980, 1, 1, 0, 0, 0)  # of all files, so that the same masks give the same archive
_UNIX, _MODE = 3, 0o100644 << 16


class _Submission(Format):
    """A zip with `<video>/<expression>/<frame>.png`, 0 and 255.

    Every expression of the exported videos has a mask in every frame, which is checked video by video before its
    masks are written; the archive shows up only when all of it is there. Prompts that somebody typed are no
    expressions of the dataset, and left out.
    """

    archive = ARCHIVE
    splits_apart = False  # the archive has no splits

    top: ClassVar[str | None] = None
    """The folder in the archive that holds all others."""

    def __init__(self, root: Path, media: MediaMode) -> None:
        super().__init__(root, media)
        self._archive = self.open_files.enter_context(zipfile.ZipFile(root / ARCHIVE, "w", zipfile.ZIP_DEFLATED))
        self._count = 0

    def add(self, exported: Exported) -> None:
        """Writes the masks of one video."""
        size, frames = exported.annotations.size, len(exported.stems)
        empty = _png(None, size)
        for expression in complete_expressions(exported):
            masks = exported.union_of(expression)
            for t in range(frames):
                path = inside(Path(self.top or ""), exported.name, expression.id, f"{exported.stems[t]}.png")
                info = zipfile.ZipInfo(path.as_posix(), _TIME)
                info.create_system, info.external_attr, info.compress_type = _UNIX, _MODE, zipfile.ZIP_DEFLATED
                self._archive.writestr(info, empty if masks[t] is None else _png(masks[t], size))
            self._count += 1

    def finish(self) -> None:
        """Closes the archive."""
        if not self._count:
            raise ExportError("there is no expression to submit: the samples have none, or only typed prompts")
        super().finish()


class MeViSSubmission(_Submission):
    """A zip for the server of MeViS: `<video>/<expression>/<frame>.png`, 0 and 255, in every frame."""

    name = "mevis-submission"
    title = "MeViS submission"
    description = "a zip for the evaluation server of MeViS; objects of one expression become one mask"


class ReferYouTubeVOSSubmission(_Submission):
    """A zip for the server of Refer-YouTube-VOS: `Annotations/<video>/<expression>/<frame>.png`, 0 and 255."""

    name = "refer-youtube-vos-submission"
    title = "Refer-YouTube-VOS submission"
    description = "a zip for the evaluation server of Refer-YouTube-VOS; objects of one expression become one mask"
    top = TOP


def _png(rle: RLE | None, size: tuple[int, int]) -> bytes:
    """A grey image, 255 in the mask and 0 elsewhere."""
    mask = np.zeros(size, dtype=np.uint8) if rle is None else coco_mask.decode(rle) * np.uint8(255)
    file = io.BytesIO()
    Image.fromarray(mask).save(file, format="PNG")
    return file.getvalue()
