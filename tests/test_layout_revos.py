"""ReVOS: nested names, kinds of expressions, the foreground, files that both splits share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np

from fiftyone_refvos import types
from fiftyone_refvos.datasets.json_index import JsonIndex
from fiftyone_refvos.datasets.layouts.revos import ReVOS
from fiftyone_refvos.datasets.registry import recognise
from fiftyone_refvos.fields import read_masklets
from tests.label_images import LEFT, RIGHT, masks_of, records, truth, write_json
from tests.mevis_folder import SIZE, rle, write_images

NAME = "UVO/all/-fb_c-FfkK4M"
EMPTY = np.zeros(SIZE, dtype=bool)


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    """An RLE with a list of runs."""
    values = mask.T.ravel()
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), values.size]
    runs = np.diff(edges).tolist()
    return {"size": list(SIZE), "counts": [0, *runs] if values[0] else runs}


def write_revos(root: Path) -> Path:
    """One video per split; masks of overlapping objects, in all the forms that JSON files have."""
    expressions = {
        "0": {"exp": "the left one", "obj_id": [0], "anno_id": [1000001], "type_id": 0},
        "2": {"exp": "What  would bark?", "obj_id": ["1"], "anno_id": ["1000007"], "type_id": "1"},
        "5": {"exp": "both || none", "obj_id": [0, 1], "anno_id": [1000001, 1000007], "type_id": 1},
        "9": {"exp": "l’éléphant qui danse", "obj_id": [], "anno_id": [], "type_id": 2},
    }
    frames = ["frame0001", "frame0002", "frame0003"]
    for split, name in (("train", NAME), ("valid", "OVIS/x")):
        video = {"expressions": expressions, "frames": frames, "vid_id": 4, "height": 33, "width": 47}
        write_json(root / f"meta_expressions_{split}_.json", {"videos": {name: video}})
        write_images(root / "JPEGImages" / name, frames)
    empty = {"size": list(SIZE), "counts": [EMPTY.size]}
    masks = {"1000001": [rle(LEFT), None, uncompressed(LEFT)], "1000007": [empty, rle(RIGHT | LEFT), None]}
    write_json(root / "mask_dict.json", masks)
    union = {"masks_rle": [rle(LEFT), rle(RIGHT | LEFT), rle(LEFT)], "foreground_ratio": [0.1, 0.2, 0.1]}
    write_json(root / "mask_dict_foreground.json", {NAME: union})
    return root


def test_both_splits_read_their_videos_from_the_shared_files(tmp_path):
    layout = ReVOS(write_revos(tmp_path))
    assert recognise(tmp_path) == [ReVOS]
    assert layout.splits() == ("train", "valid")
    assert list(records(layout, "train")) == [NAME]
    record = records(layout, "valid")["OVIS/x"]
    assert record.attributes == {"vid_id": 4}
    annotations = truth(record)
    assert np.array_equal(masks_of(annotations, "0"), [LEFT, EMPTY, LEFT])
    assert np.array_equal(masks_of(annotations, "1"), [EMPTY, LEFT | RIGHT, EMPTY])
    assert annotations.foreground is None
    assert [each.anno_id for each in annotations.objects] == ["1000001", "1000007"]


def test_samples_have_kinds_no_targets_and_the_foreground(tmp_path):
    dataset = fo.Dataset.from_dir(str(write_revos(tmp_path)), dataset_type=types.ReVOS)
    assert dataset.values("video_name") == [NAME, "OVIS/x"]
    sample = dataset.first()
    labels = sample["expressions"].detections
    assert [(label.expression_id, label.label, label.type_id, label.kind, label.no_target) for label in labels] == [
        ("0", "the left one", 0, "referring", False),
        ("2", "What  would bark?", 1, "reasoning", False),
        ("5", "both || none", 1, "reasoning", False),
        ("9", "l’éléphant qui danse", 2, "hallucination", True),
    ]
    found = {masklet.expression.id: masklet for masklet in read_masklets(sample, "ground_truth", exact=True)}
    assert np.array_equal([found["5"].union(t) for t in range(3)], [LEFT, LEFT | RIGHT, LEFT])
    assert found["9"].no_target
    areas = [int(sample.frames[n].foreground.detections[0].mask.sum()) for n in (1, 2, 3)]
    assert areas == [LEFT.sum(), (LEFT | RIGHT).sum(), LEFT.sum()]


def test_the_foreground_is_optional_and_images_may_lie_in_the_root(tmp_path):
    root = write_revos(tmp_path)
    (root / "mask_dict_foreground.json").unlink()
    for folder in (root / "JPEGImages").iterdir():
        shutil.move(folder, root / folder.name)
    (root / "JPEGImages").rmdir()
    annotations = truth(records(ReVOS(root), "train")[NAME])
    assert annotations.foreground is None
    assert np.array_equal(masks_of(annotations, "0"), [LEFT, EMPTY, LEFT])


def test_the_masks_are_scanned_once_for_all_splits(tmp_path):
    layout = ReVOS(write_revos(tmp_path))
    readers = [record.read_annotations for split in layout.splits() for record in layout.records(split)]
    for reader in readers[:1]:
        assert reader is not None
        reader()
    (tmp_path / "mask_dict.json").rename(tmp_path / "moved.json")  # what was scanned stays mapped
    for reader in readers:
        assert reader is not None
        assert len(reader().objects) == 2


def test_plain_values_between_lists_are_entries_of_an_index(tmp_path):
    path = tmp_path / "some.json"
    path.write_text('{"a": null, "b": "]}", "c" : 1.5 , "d": [{"x": "\\"{"}, [2]], "e": {"f": [3]}, "g": true }')
    index = JsonIndex(path)
    assert dict(index) == {"a": None, "b": "]}", "c": 1.5, "d": [{"x": '"{'}, [2]], "e": {"f": [3]}, "g": True}
    ((span, value),) = index.objects("d")
    assert value == index.object_at(span) == {"x": '"{'}
