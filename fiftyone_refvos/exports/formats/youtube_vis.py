"""The JSON of YouTube-VIS, also of LV-VIS and OVIS, for training and for AP over videos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pycocotools import mask as coco_mask

from fiftyone_refvos.datasets.files import inside_for_writing
from fiftyone_refvos.exports.categories import Categories, Role, roles
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.json_files import JsonEntries
from fiftyone_refvos.exports.media import MediaMode, write_frames
from fiftyone_refvos.exports.records import Exported, json_rle


class YouTubeVIS(Format):
    """`<split>/instances.json` and `<split>/JPEGImages/<video>/<frame>.jpg`; of a model `<split>/results.json`, too.

    The categories are the texts of the expressions, the same numbers in all splits. Every object is an annotation
    under every text that means it, once under each; one that no expression means is under the category that the
    dataset knows of it, or under "object". Objects may overlap. What has no pixel in a video is no annotation: AP
    would count it as missed. So expressions that mean nothing are not kept, nor are void pixels.

    A video lists its annotated frames alone, so that null means that an object is absent; objects that were
    annotated in other frames than the rest of the video have null in those, too. `results.json` has the annotations
    of a model's masklets as AP evaluators take them, with scores; it comes into a dataset again with
    `import_predictions(…, annotations="instances.json")`.
    """

    name = "youtube-vis"
    title = "YouTube-VIS"
    description = "for video instance segmentation and its AP; texts become categories; holds overlapping objects"

    def __init__(self, root: Path, media: MediaMode) -> None:
        super().__init__(root, media)
        self._categories = Categories()
        self._splits: dict[str, _Split] = {}

    def add(self, exported: Exported) -> None:
        """Writes one video."""
        name = exported.record.split
        if name not in self._splits:
            self._splits[name] = _Split(inside_for_writing(self.root, name), self)
        self._splits[name].add(exported, self._categories)

    def finish(self) -> None:
        """Writes videos and categories, and closes all files."""
        for split in self._splits.values():
            split.instances.after |= {"videos": split.videos, "categories": self._categories.listed()}
        super().finish()


class _Split:
    """The files of one split."""

    def __init__(self, folder: Path, owner: Format) -> None:
        self._folder, self._owner = folder, owner
        self.instances = owner.open_files.enter_context(
            JsonEntries(folder / "instances.json", list, under="annotations")
        )
        self.videos: list[dict[str, Any]] = []
        self._results: JsonEntries | None = None
        self._num_annotations = 0

    def add(self, exported: Exported, categories: Categories) -> None:
        images = inside_for_writing(self._folder, "JPEGImages", exported.name)
        write_frames(exported.record, images, exported.stems, self._owner.media)
        frames = sorted(exported.annotated)
        height, width = exported.annotations.size
        shape = {"width": width, "height": height, "length": len(frames)}
        video_id = len(self.videos) + 1
        names = [f"{exported.name}/{exported.stems[t]}.jpg" for t in frames]
        self.videos.append({"id": video_id, **shape, "file_names": names})
        for role in roles(exported):
            place = {"video_id": video_id, "category_id": categories.number(role.category)}
            masks = _masks(role, frames)
            self._num_annotations += 1
            self.instances.append({"id": self._num_annotations, **place, "iscrowd": 0, **shape, **masks})
            if role.object.score is not None:
                self._result({**place, "score": role.object.score, "segmentations": masks["segmentations"]})

    def _result(self, entry: dict[str, Any]) -> None:
        if self._results is None:
            path = self._folder / "results.json"
            self._results = self._owner.open_files.enter_context(JsonEntries(path, list))
        self._results.append(entry)


def _masks(role: Role, frames: list[int]) -> dict[str, list[Any]]:
    rles: list[Any] = [role.object.masks[t] for t in frames]
    return {
        "segmentations": [None if rle is None else json_rle(rle) for rle in rles],
        "bboxes": [None if rle is None else coco_mask.toBbox(rle).tolist() for rle in rles],
        "areas": [None if rle is None else int(coco_mask.area(rle)) for rle in rles],
    }
