"""The JSON file of a video in SA-V, which SAM 2 and Sa2VA are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from pycocotools import mask as coco_mask

from fiftyone_refvos.datasets.records import ObjectRecord, Size
from fiftyone_refvos.exports.records import Numbers, empty_rle, json_rle
from fiftyone_refvos.masklet import RLE

FRAME_RATE = 24.0  # what readers assume of the videos
_SMALL, _MEDIUM = 32**2, 96**2  # mean areas in pixels below which SA-V calls an object so


def sa_v_json(
    name: str,
    objects: Sequence[ObjectRecord],
    rows: Sequence[Sequence[RLE | None]],
    size: Size,
    frame_count: int,
    *,
    split: str = "train",
    environment: str = "Unknown",
) -> dict[str, Any]:
    """What `<video>_manual.json` holds.

    Every frame has a mask of every object, an empty one where it is absent: readers drop frames with null.

    Args:
        name: of the video
        objects: N of them; their own masks are not looked at
        rows: for each annotated frame the N masks
        size: (H, W) of the masks
        frame_count: of the video, at 24 frames per second
        split: of the dataset
        environment: "Indoor", "Outdoor" or "Unknown"
    """
    height, width = (float(side) for side in size)
    empty, numbers = empty_rle(size), Numbers()
    content: dict[str, Any] = {
        "video_id": name,
        "video_duration": frame_count / FRAME_RATE,
        "video_frame_count": float(frame_count),
        "video_height": height,
        "video_width": width,
        "video_resolution": height * width,
        "video_environment": environment,
        "video_split": split,
        "masklet": [[json_rle(rle or empty) for rle in row] for row in rows],
        "masklet_id": [numbers.take(thing.anno_id) for thing in objects],
    }
    facts = [_facts(thing, [row[column] for row in rows], size) for column, thing in enumerate(objects)]
    for key in facts[0] if facts else ():
        content[f"masklet_{key}"] = [each[key] for each in facts]
    return content | {"masklet_num": len(objects)}


def _facts(thing: ObjectRecord, masks: Sequence[RLE | None], size: Size) -> dict[str, Any]:
    areas = [0 if rle is None else int(coco_mask.area(rle)) for rle in masks]
    visible = [i for i, area in enumerate(areas) if area]
    mean = sum(areas) / len(visible) if visible else 0.0
    since = [area > 0 for area in areas[visible[0] :]] if visible else []
    return {
        "size_rel": mean / (size[0] * size[1]),
        "size_abs": mean,
        "size_bucket": "small" if mean < _SMALL else "medium" if mean < _MEDIUM else "large",
        "visibility_changes": sum(before != after for before, after in pairwise(since)),
        "first_appeared_frame": float(visible[0]) if visible else None,
        "frame_count": len(masks),
        "edited_frame_count": 0,
        "type": "manual" if thing.score is None else "auto",
        "stability_score": None,
    }
