"""LV-VIS: the original release, its conversion in both places, and what both have in common."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest

from fiftyone_refvos import types
from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.layouts.lvvis import LvVis
from fiftyone_refvos.datasets.layouts.mevis import MeViS
from fiftyone_refvos.datasets.records import FolderMedia
from fiftyone_refvos.datasets.registry import recognise
from tests.label_images import LEFT, RIGHT, masks_of, records, truth, write_json
from tests.mevis_folder import SIZE, rle, simple_mevis, write_images, write_mevis
from tests.shared import shared_path

FRAMES = ["00012", "00015", "00018"]
EMPTY = np.zeros(SIZE, dtype=bool)
MASKS = {"4": [rle(LEFT), None, rle(LEFT)], "12": [None, rle(RIGHT), rle(RIGHT)], "30": [rle(RIGHT), None, None]}
CATEGORIES = {"4": "rubber_duck", "12": "sofá_bed", "30": "rubber_duck"}


def write_instances(root: Path, folder: str = "", separator: str = "/") -> Path:
    """The original release: ids with gaps, and an annotation of a video whose images come first."""
    numbers = {"rubber_duck": 7, "sofá_bed": 31, "unused": 90}
    content: dict[str, Any] = {
        "info": {"version": 1},
        "version": 2,
        "videos": [
            {"id": 3, "width": 47, "height": 33, "length": 3, "file_names": [f"v{separator}{f}.jpg" for f in FRAMES]},
            {"id": 5, "width": 47, "height": 33, "length": 3, "file_names": [f"empty/{f}.jpg" for f in FRAMES]},
        ],
        "categories": [{"id": id_, "name": name, "supercategory": "object"} for name, id_ in numbers.items()],
        "annotations": [
            {"id": int(id_), "video_id": "3", "category_id": numbers[CATEGORIES[id_]], "segmentations": masks}
            for id_, masks in MASKS.items()
        ],
    }
    write_json(root / folder / "train_instances.json", content)
    for name in ("v", "empty"):
        write_images(root / "train" / "JPEGImages" / name, FRAMES)
    return root


def write_converted(root: Path, folder: str) -> Path:
    """The conversion of its first video."""
    expressions = {
        "0": {"exp": "rubber_duck", "obj_id": [0, 2], "anno_id": [4, 30]},
        "1": {"exp": "sofá_bed", "obj_id": [1], "anno_id": [12]},
    }
    videos = {"v": {"expressions": expressions, "vid_id": 3, "frames": FRAMES}}
    write_json(root / folder / "meta_expressions.json", {"videos": videos})
    write_json(root / folder / "mask_dict.json", MASKS)
    images = root / "train" / "JPEGImages" / "v"
    if not images.exists():
        write_images(images, FRAMES)
    return root


@pytest.mark.parametrize("form", ["original", "original in train", "conversion", "conversion in train"])
def test_all_forms_say_the_same(tmp_path, form):
    if form.startswith("original"):
        write_instances(tmp_path, "train" if form.endswith("train") else "")
    else:
        write_converted(tmp_path, "train" if form.endswith("train") else "")
    assert recognise(tmp_path) == [LvVis]
    layout = LvVis(tmp_path)
    assert layout.splits() == ("train",)
    record = records(layout, "train")["v"]
    assert record.attributes == {"vid_id": 3}
    assert isinstance(record.media, FolderMedia)
    assert record.media.names == ("00012.jpg", "00015.jpg", "00018.jpg")
    assert [(each.id, each.text, each.object_ids) for each in record.expressions] == [
        ("0", "rubber duck", ("0", "2")),
        ("1", "sofá bed", ("1",)),
    ]
    assert [each.attributes["category"] for each in record.expressions] == ["rubber_duck", "sofá_bed"]
    annotations = truth(record)
    found = sorted((each.id, each.anno_id, each.category) for each in annotations.objects)
    assert found == [("0", "4", "rubber_duck"), ("1", "12", "sofá_bed"), ("2", "30", "rubber_duck")]
    assert np.array_equal(masks_of(annotations, "0"), [LEFT, EMPTY, LEFT])
    assert np.array_equal(masks_of(annotations, "1"), [EMPTY, RIGHT, RIGHT])
    assert np.array_equal(masks_of(annotations, "2"), [RIGHT, EMPTY, EMPTY])


def test_a_video_without_objects_has_no_expressions(tmp_path):
    record = records(LvVis(write_instances(tmp_path)), "train")["empty"]
    assert record.expressions == ()
    assert truth(record).objects == ()


def test_file_names_may_have_backslashes(tmp_path):
    assert list(records(LvVis(write_instances(tmp_path, separator="\\")), "train")) == ["v", "empty"]


def test_samples_have_the_category_as_it_is_written(tmp_path):
    sample = fo.Dataset.from_dir(str(write_instances(tmp_path)), dataset_type=types.LVVIS).first()
    labels = sample["expressions"].detections
    assert [(label.label, label.category) for label in labels] == [
        ("rubber duck", "rubber_duck"),
        ("sofá bed", "sofá_bed"),
    ]
    detections = sample.frames[1].ground_truth.detections
    assert [(each.label, each.category, each.object_id) for each in detections] == [
        ("rubber duck", "rubber_duck", "0"),
        ("rubber duck", "rubber_duck", "2"),
    ]


def test_a_conversion_in_train_is_told_from_mevis(tmp_path):
    simple_mevis(tmp_path)
    assert recognise(tmp_path) == [MeViS]
    assert LvVis(tmp_path).splits() == ()


def test_mevis_without_a_blank_in_its_texts_is_no_conversion(tmp_path):
    root = simple_mevis(tmp_path / "overlapping")  # "both" means objects that have expressions of their own
    path = root / "train" / "meta_expressions.json"
    path.write_text(path.read_text(encoding="utf-8").replace("the left one", "左").replace("the right one", "右"))
    assert recognise(root) == [MeViS]
    root = write_converted(tmp_path / "with valid", "train")
    write_mevis(root, {"v": {"expressions": {"0": {"exp": "哪个"}}, "frames": FRAMES[:1]}}, None, split="valid")
    assert recognise(root) == [MeViS]


def test_the_original_release_in_miniature_has_what_its_conversion_has(tmp_path):
    source = shared_path("data", "LVVIS")
    (tmp_path / "train").symlink_to(source / "train")
    (tmp_path / "train_instances.json").symlink_to(source / "train_instances.json")
    originals, conversions = (records(LvVis(root), "train") for root in (tmp_path, source))
    assert list(originals) == list(conversions)
    for name, original in originals.items():
        assert original.expressions == conversions[name].expressions
        ours, theirs = truth(original), truth(conversions[name])
        assert sorted(ours.objects, key=lambda each: each.id) == sorted(theirs.objects, key=lambda each: each.id)
        assert replace(ours, objects=()) == replace(theirs, objects=())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("annotations", [{"id": 1}], "annotation number 1 has no 'category_id'"),
        ("annotations", [{"id": 1, "video_id": 3, "category_id": 8}], "number 1 has the category 8"),
        ("annotations", [{"id": 1, "video_id": 3, "category_id": 7}], "annotation 1 has no 'segmentations'"),
        ("categories", None, "'categories' is None"),
        ("videos", [{"id": 3, "file_names": ["a/0.jpg", "b/0.jpg"]}], "video 3 has frames in 2 folders"),
    ],
)
def test_damaged_files_are_named(tmp_path, key, value, message):
    path = write_instances(tmp_path) / "train_instances.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(DatasetError, match=message):
        truth(records(LvVis(tmp_path), "train")["v"])
