"""Images with expressions and polygons, on which Sa2VA is finetuned."""

from __future__ import annotations

import logging
from pathlib import Path

from fiftyone_refvos.datasets.files import inside_for_writing
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.json_files import JsonEntries
from fiftyone_refvos.exports.media import MediaMode, write_frames
from fiftyone_refvos.exports.names import picture_names
from fiftyone_refvos.exports.polygons import Polygon, polygons_of
from fiftyone_refvos.exports.records import Exported

logger = logging.getLogger(__name__)


class Sa2VAImages(Format):
    """`annotations.json`, `[{"image", "mask": [[polygon, …], …], "text": [str, …]}]`, and `images/`.

    Of videos every annotated frame is an image. An entry has one text per expression with its polygons, which
    `pycocotools` draws as exactly the mask, and of which no two share a pixel, as Sa2VA adds them. Expressions
    without a pixel in an image are left out there, and so are images without any.
    """

    name = "sa2va-images"
    title = "Sa2VA images"
    description = "for finetuning Sa2VA on images and single frames; leaves out expressions without a pixel"
    media_types = ("video", "image")
    splits_apart = False

    def __init__(self, root: Path, media: MediaMode) -> None:
        super().__init__(root, media)
        self._entries = self.open_files.enter_context(JsonEntries(root / "annotations.json", list))
        self._images: set[str] = set()
        self._left_out = 0

    def add(self, exported: Exported) -> None:
        """Writes an image, or the frames of a video."""
        names = picture_names(exported)
        unions = [(each.text, exported.union_of(each)) for each in exported.expressions]
        frames = []
        for t in sorted(exported.annotated):
            drawn = [(text, polygons_of(rle)) for text, masks in unions if (rle := masks[t]) is not None]
            self._left_out += len(unions) - len(drawn)
            if drawn:
                self._add(f"{names[t]}.jpg", drawn, exported.name)
                frames.append(t)
        folder = inside_for_writing(self.root, "images")
        write_frames(exported.record, folder, [names[t] for t in frames], self.media, frames)

    def finish(self) -> None:
        """Closes the file, and says what it does not hold."""
        super().finish()
        if self._left_out:
            logger.warning("%d times an expression is left out, as it has no pixel in an image", self._left_out)

    def _add(self, image: str, drawn: list[tuple[str, list[Polygon]]], name: str) -> None:
        if image in self._images:
            raise ExportError(f"{name!r} would write images/{image} once more: set another image_name or video_name")
        self._images.add(image)
        masks, texts = [polygons for _, polygons in drawn], [text for text, _ in drawn]
        self._entries.append({"image": image, "mask": masks, "text": texts})
