"""Small datasets in the layout of refCOCO and its kin, for tests that break them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

from tests.mevis_folder import SIZE, picture

Json = dict[str, Any]


def box(left: int, top: int, right: int, bottom: int) -> list[float]:
    """The polygon of the pixels from (left, top) up to, not including, (right, bottom)."""
    return [left, top, right, top, right, bottom, left, bottom]


def annotation(id_: Any, image_id: int, segmentation: Any, category_id: int = 1) -> Json:
    return {"id": id_, "image_id": image_id, "segmentation": segmentation, "category_id": category_id, "iscrowd": 0}


def ref(ref_id: int, image_id: int, ann_id: Any, sentences: list[tuple[int, str]], split: str = "train") -> Json:
    return {
        "ref_id": ref_id,
        "ann_id": ann_id,
        "category_id": 1,
        "image_id": image_id,
        "split": split,
        "file_name": f"COCO_train2014_{image_id:012d}_{ann_id}.jpg",
        "sent_ids": [id_ for id_, _ in sentences],
        "sentences": [{"sent_id": id_, "sent": text, "raw": text.upper(), "tokens": []} for id_, text in sentences],
    }


ANNOTATIONS = [
    annotation(11, 7, [box(2, 3, 10, 9)]),
    annotation(12, 7, [box(20, 5, 30, 15), box(25, 10, 40, 20)], 2),
    annotation(13, 8, [box(5, 5, 15, 15)]),
    annotation(14, 7, [box(30, 20, 35, 25)]),
]
REFS = [
    ref(1, 7, 11, [(100, "the left one"), (101, "das linke Ümläut 左")]),
    ref(2, 7, 12, [(102, "the right one")]),
    ref(3, 7, 12, [(103, "right")], "val"),
    ref(4, 8, 13, [(104, "the only one")], "testA"),
]


def write_refer(
    root: Path,
    refs: list[Json],
    annotations: list[Json] = ANNOTATIONS,
    folder: str = "refcoco",
    name: str = "refs(unc).p",
    images: str = "images/mscoco/images/train2014",
    protocol: int = 2,
) -> Path:
    (root / folder).mkdir(parents=True, exist_ok=True)
    content = json.dumps(refs).encode() if name.endswith(".json") else pickle.dumps(refs, protocol)
    (root / folder / name).write_bytes(content)
    (root / images).mkdir(parents=True, exist_ok=True)
    listed = []
    for image_id in (7, 8):
        file_name = f"COCO_train2014_{image_id:012d}.jpg"
        picture(image_id).save(root / images / file_name)
        listed.append({"id": image_id, "file_name": file_name, "height": SIZE[0], "width": SIZE[1]})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content_json = {
        "version": 1.0,
        "info": {},
        "images": listed,
        "annotations": annotations,
        "categories": categories,
        "n": None,
    }
    (root / folder / "instances.json").write_text(json.dumps(content_json), encoding="utf-8")
    return root
