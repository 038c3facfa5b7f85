"""MeViS, and with it what GLUS, VISA, Sa2VA and others train on in its layout."""

from __future__ import annotations

from pathlib import Path

from fiftyone_refvos.datasets.files import inside_for_writing
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.json_files import JsonEntries
from fiftyone_refvos.exports.mask_dict import write_masks
from fiftyone_refvos.exports.media import MediaMode, write_frames
from fiftyone_refvos.exports.names import sorted_stems
from fiftyone_refvos.exports.records import Exported, Numbers


class MeViS(Format):
    """`<split>/{meta_expressions,mask_dict}.json` and `<split>/JPEGImages/<video>/<frame>.jpg`.

    A frame without a mask of an object is null, whether the object is absent or was not annotated there.

    Readers sort the names of frames as text. Where that is not their order, numbers get zeros in front, and other
    names become numbers.
    """

    name = "mevis"
    title = "MeViS"
    description = "for training MeViS, GLUS, VISA, Sa2VA and others; holds overlapping objects"
    readable_splits = ("train", "valid_u", "valid", "test")

    def __init__(self, root: Path, media: MediaMode) -> None:
        super().__init__(root, media)
        self._splits: dict[str, _Split] = {}

    def add(self, exported: Exported) -> None:
        """Writes one video."""
        split = exported.record.split
        if split not in self._splits:
            folder = inside_for_writing(self.root, split)
            self._splits[split] = _Split(
                folder,
                self.open_files.enter_context(JsonEntries(folder / "meta_expressions.json", under="videos")),
                self.open_files.enter_context(JsonEntries(folder / "mask_dict.json")),
            )
        self._splits[split].add(exported, self.media)


class _Split:
    """The files of one split."""

    def __init__(self, folder: Path, meta: JsonEntries, masks: JsonEntries) -> None:
        self._folder, self._meta, self._masks = folder, meta, masks
        self._videos, self._annos = Numbers(), Numbers()

    def add(self, exported: Exported, media: MediaMode) -> None:
        record, stems = exported.record, sorted_stems(exported.stems)
        write_frames(record, inside_for_writing(self._folder, "JPEGImages", record.name), stems, media)
        expressions = write_masks(exported, self._masks, self._annos)
        vid_id = self._videos.take(record.attributes.get("vid_id"))
        self._meta.set(record.name, {"expressions": expressions, "vid_id": vid_id, "frames": list(stems)})
