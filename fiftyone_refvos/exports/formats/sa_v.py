"""SA-V's JSON files, which SAM 2 is trained on."""

from __future__ import annotations

import json
from pathlib import Path

from fiftyone_refvos.datasets.files import inside_for_writing
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.media import MediaMode, write_frames
from fiftyone_refvos.exports.names import FlatNames
from fiftyone_refvos.exports.records import Exported
from fiftyone_refvos.exports.sa_v import FRAME_RATE, sa_v_json


class SaV(Format):
    """`<split>/Annotations/<video>_manual.json` and `<split>/JPEGImages/<video>/<00000>.jpg`.

    For `JSONRawDataset` of SAM 2's training code, whose `gt_folder` and `img_folder` these are. Objects may overlap;
    expressions and void pixels are not kept. Every annotated frame has a mask of every object, an empty one where the
    object is absent or was not annotated.

    Frames are numbered from 0. Where every nth frame is annotated, and n divides 24, all frames are written and `fps`
    says which have masks, as in SA-V with n = 4 and `fps` 6. Else the annotated frames alone are written, numbered
    without gaps. Slashes in the names of videos become "_".
    """

    name = "sa-v"
    title = "SA-V (SAM 2 training)"
    description = "for training SAM 2: the objects of videos, also overlapping ones, without the expressions"

    def __init__(self, root: Path, media: MediaMode) -> None:
        super().__init__(root, media)
        self._names: dict[str, FlatNames] = {}

    def add(self, exported: Exported) -> None:
        """Writes one video.

        Raises:
            ExportError: if it has no object, which the reader does not take
        """
        split, objects = exported.record.split, exported.annotations.objects
        if not objects:
            raise ExportError(
                f"{exported.name!r} has no object, and SAM 2 cannot read videos without: export a view without it"
            )
        folder = inside_for_writing(self.root, split)
        name = self._names.setdefault(split, FlatNames(folder)).take(exported.name)
        annotated = sorted(exported.annotated)
        stride = _stride(annotated, len(exported.stems))
        written = range(len(exported.stems)) if stride else annotated
        images = inside_for_writing(folder, "JPEGImages", name)
        write_frames(exported.record, images, [f"{n:05d}" for n in range(len(written))], self.media, written)
        content = sa_v_json(
            name,
            objects,
            [[thing.masks[t] for thing in objects] for t in annotated],
            exported.annotations.size,
            len(written),
            split=split,
            environment=str(exported.record.attributes.get("video_environment", "Unknown")),
        )
        content["fps"] = int(FRAME_RATE) // (stride or 1)
        path = inside_for_writing(folder, "Annotations", f"{name}_manual.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content), encoding="utf-8")


def _stride(annotated: list[int], count: int) -> int | None:
    """n if every nth frame of a video is annotated, from the first one on, and `fps` can say so; else None."""
    stride = annotated[1] if len(annotated) > 1 else count
    regular = annotated == [*range(0, count, stride)]
    return stride if regular and FRAME_RATE % stride == 0 else None
