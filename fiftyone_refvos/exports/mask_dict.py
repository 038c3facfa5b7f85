"""What MeViS and ReVOS share: the entries of `mask_dict.json`, and the expressions that name them."""

from __future__ import annotations

from typing import Any

from fiftyone_refvos.exports.json_files import JsonEntries
from fiftyone_refvos.exports.records import Exported, Numbers, json_rle, object_numbers


def write_masks(exported: Exported, masks: JsonEntries, annos: Numbers) -> dict[str, dict[str, Any]]:
    """Writes the masks of every object of a video, null where it has none.

    Args:
        exported: the video
        masks: the open `mask_dict.json`
        annos: the numbers that its entries have so far

    Returns:
        the expressions by id, each with `exp`, `obj_id` and `anno_id`
    """
    obj_ids = object_numbers(exported.annotations.objects, first=0)
    anno_ids = {thing.id: annos.take(thing.anno_id) for thing in exported.annotations.objects}
    for thing in exported.annotations.objects:
        masks.set(str(anno_ids[thing.id]), [None if rle is None else json_rle(rle) for rle in thing.masks])
    return {
        expression.id: {
            "exp": expression.text,
            "obj_id": [obj_ids[thing.id] for thing in exported.objects_of(expression)],
            "anno_id": [anno_ids[thing.id] for thing in exported.objects_of(expression)],
        }
        for expression in exported.expressions
    }
