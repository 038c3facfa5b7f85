"""The result file that Sa2VA's evaluation programs read."""

from __future__ import annotations

from pathlib import Path

from fiftyone_refvos.exports.completeness import complete_expressions
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.json_files import JsonEntries
from fiftyone_refvos.exports.media import MediaMode
from fiftyone_refvos.exports.records import Exported, empty_rle, json_rle

RESULTS = "results.json"


class Sa2VAResults(Format):
    """`results.json`: `{video: {expression id: {…, "prediction_masks": [RLE per frame]}}}`.

    Every expression of the exported videos has a mask in every frame, maybe an empty one; what was not looked for is
    an error. Prompts that somebody typed are left out. What a model has answered is not known; `text_prediction` is
    "[SEG]" where there is a mask in some frame, else empty.
    """

    name = "sa2va-results"
    title = "Sa2VA results"
    description = "a results.json for Sa2VA's evaluation programs; objects of one expression become one mask"
    archive = RESULTS
    splits_apart = False

    def __init__(self, root: Path, media: MediaMode) -> None:
        super().__init__(root, media)
        self._results = self.open_files.enter_context(JsonEntries(root / RESULTS))
        self._count = 0

    def add(self, exported: Exported) -> None:
        """Writes the masks of one video."""
        empty = empty_rle(exported.annotations.size)
        video = {}
        for expression in complete_expressions(exported):
            masks = exported.union_of(expression)
            video[expression.id] = {
                "index": self._count,
                "video_id": exported.name,
                "exp_id": expression.id,
                "text_prediction": "[SEG]" if any(masks) else "",
                "frames": list(exported.stems),
                "exp": expression.text,
                "prediction_masks": [json_rle(rle or empty) for rle in masks],
            }
            self._count += 1
        self._results.set(exported.name, video)
