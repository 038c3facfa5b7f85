"""DAVIS 2017: one annotation image of all objects per frame, for training and evaluating VOS."""

from __future__ import annotations

import logging
from pathlib import Path

from fiftyone_refvos.datasets.files import inside_for_writing
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.label_maps import label_map, label_numbers
from fiftyone_refvos.exports.media import MediaMode, write_frames
from fiftyone_refvos.exports.names import FlatNames
from fiftyone_refvos.exports.records import Exported

logger = logging.getLogger(__name__)

_SETS = {"valid": "val"}


class Davis(Format):
    """`JPEGImages/480p/<video>/<00000>.jpg`, `Annotations/480p/<video>/<00000>.png`, `ImageSets/2017/<split>.txt`.

    Annotations are images with the palette of VOC and DAVIS, whose values are the objects from 1, and 255 for void;
    expressions are not kept. Where objects overlap, the one with fewer pixels in the frame lies on top, of equal ones
    the one with the higher number; void lies below all. How many pixels this hides is logged. More than 254 objects
    are an error.

    The folder is called 480p as in DAVIS, but nothing is resized. Frames are numbered from 0, and annotated ones have
    an annotation. Slashes in the names of videos become "_", as programs list the folders; the split `valid` is
    called `val`.
    """

    name = "davis"
    title = "DAVIS 2017"
    description = "for training and evaluating VOS; palette images, which cannot hold overlapping objects"
    splits_apart = False

    def __init__(self, root: Path, media: MediaMode) -> None:
        super().__init__(root, media)
        self._names = FlatNames(root)
        self._splits: dict[str, list[str]] = {}
        self._hidden = 0

    def add(self, exported: Exported) -> None:
        """Writes one video.

        Raises:
            ExportError: for more objects than an annotation image holds
        """
        numbers, annotations = label_numbers(exported), exported.annotations
        name = self._names.take(exported.name)
        split = exported.record.split
        self._splits.setdefault(_SETS.get(split, split), []).append(name)
        stems = [f"{t:05d}" for t in range(len(exported.stems))]
        write_frames(exported.record, inside_for_writing(self.root, "JPEGImages", "480p", name), stems, self.media)
        folder = inside_for_writing(self.root, "Annotations", "480p", name)
        folder.mkdir(parents=True)
        for t in sorted(exported.annotated):
            masks = {numbers[thing.id]: thing.masks[t] for thing in annotations.objects}
            drawn = label_map(masks, annotations.size, annotations.void[t] if annotations.void else None)
            drawn.save(folder / f"{stems[t]}.png")
            self._hidden += drawn.hidden

    def finish(self) -> None:
        """Writes the lists of videos."""
        super().finish()
        for split, names in self._splits.items():
            path = inside_for_writing(self.root, "ImageSets", "2017", f"{split}.txt")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        if self._hidden:
            logger.warning("%d pixels of objects are hidden by smaller objects that overlap them", self._hidden)
