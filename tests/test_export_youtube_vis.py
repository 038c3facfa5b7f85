"""YouTube-VIS: its fields, AP of an export against itself, and the way back into a dataset."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fiftyone_refvos import types
from fiftyone_refvos.datasets.json_index import JsonIndex
from fiftyone_refvos.datasets.layouts.youtube_vis import YouTubeVISSplit
from fiftyone_refvos.exports.formats.youtube_vis import YouTubeVIS
from fiftyone_refvos.fields import read_masklets, write_masklets
from fiftyone_refvos.import_predictions import import_predictions
from fiftyone_refvos.masklet import Expression, FrameResult, Masklet
from tests.export_records import decoded, files_of, two_objects, video, write
from tests.mevis_folder import SIZE, box_mask, simple_mevis
from tests.shared import shared_path

VIDEO = {"id", "width", "height", "length", "file_names"}
ANNOTATION = {
    "id",
    "video_id",
    "category_id",
    "iscrowd",
    "width",
    "height",
    "length",
    "segmentations",
    "bboxes",
    "areas",
}


def content(root: Path, file: str = "instances.json", split: str = "train") -> Any:
    return json.loads((root / split / file).read_text())


def names(instances: dict[str, Any]) -> dict[int, str]:
    return {each["id"]: each["name"] for each in instances["categories"]}


def average_precision(instances: dict[str, Any], results: list[dict[str, Any]]) -> float:
    """AP over videos: that of COCO on pictures in which the frames of a video lie one below the other."""
    truth = {
        "images": [{**each, "height": each["height"] * each["length"]} for each in instances["videos"]],
        "categories": instances["categories"],
        "annotations": [_stacked(each, instances) for each in instances["annotations"]],
    }
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes([_stacked(each, instances) for each in results]), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


def _stacked(entry: dict[str, Any], instances: dict[str, Any]) -> dict[str, Any]:
    shape = next(each for each in instances["videos"] if each["id"] == entry["video_id"])
    empty = np.zeros((shape["height"], shape["width"]), dtype=bool)
    pixels = np.concatenate([empty if rle is None else decoded(rle) for rle in entry["segmentations"]])
    rle = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    kept: dict[str, Any] = {key: entry[key] for key in ("id", "category_id", "iscrowd", "score") if key in entry}
    return {**kept, "image_id": entry["video_id"], "segmentation": rle, "area": int(coco_mask.area(rle))}


def test_fields_are_those_of_the_format(tmp_path):
    root = write(YouTubeVIS, tmp_path / "out", two_objects(tmp_path, name="a/b"))
    instances = content(root)
    original = json.loads(shared_path("data", "LVVIS", "train_instances.json").read_text())
    assert original["videos"][0].keys() >= VIDEO
    assert original["annotations"][0].keys() == ANNOTATION
    assert instances["videos"] == [
        {
            "id": 1,
            "width": SIZE[1],
            "height": SIZE[0],
            "length": 3,
            "file_names": ["a/b/00012.jpg", "a/b/00015.jpg", "a/b/00018.jpg"],
        }
    ]
    assert all((root / "train" / "JPEGImages" / name).is_file() for name in instances["videos"][0]["file_names"])
    assert names(instances) == {1: "the large one", 2: "Is it small?", 3: "both"}
    assert [each["category_id"] for each in instances["annotations"]] == [1, 2, 3, 3]
    assert [each["id"] for each in instances["annotations"]] == [1, 2, 3, 4]
    for each in instances["annotations"]:
        assert each.keys() == ANNOTATION
        assert (each["video_id"], each["iscrowd"], each["length"]) == (1, 0, 3)
        assert (each["height"], each["width"]) == SIZE
    small = instances["annotations"][1]
    assert small["areas"] == [36, 36, None]
    assert small["bboxes"] == [[10.0, 10.0, 6.0, 6.0], [30.0, 25.0, 6.0, 6.0], None]
    assert small["segmentations"][2] is None
    assert np.array_equal(decoded(small["segmentations"][0]), box_mask(10, 10, 6, 6))


def test_average_precision_against_itself_is_one(tmp_path):
    first = two_objects(tmp_path, scores={"1": 0.75, "2": 0.5})
    second = two_objects(tmp_path, name="two", scores={"1": 0.25, "2": 0.5})
    root = write(YouTubeVIS, tmp_path / "out", first, second)
    instances, results = content(root), content(root, "results.json")
    assert results[0].keys() == {"video_id", "category_id", "score", "segmentations"}
    assert [each["score"] for each in results] == [0.75, 0.5, 0.75, 0.5, 0.25, 0.5, 0.25, 0.5]
    assert average_precision(instances, results) == 1.0
    assert average_precision(instances, results[:4]) < 0.6


def test_a_dataset_has_no_results_and_splits_share_categories(tmp_path):
    valid = two_objects(tmp_path, name="two", split="valid")
    root = write(YouTubeVIS, tmp_path / "out", two_objects(tmp_path), valid)
    assert [path for path in files_of(root) if path.endswith(".json")] == [
        "train/instances.json",
        "valid/instances.json",
    ]
    assert content(root)["categories"] == content(root, split="valid")["categories"]


def test_what_ap_would_count_twice_or_as_missed_is_left_out(tmp_path):
    masks = [box_mask(1, 1, 5, 5)] * 3
    expressions = {
        "0": ("the dog", ["1"]),
        "1": ("the dog", ["1"]),
        "2": ("the dog", ["copy"]),
        "3": ("a cat", ["absent"]),
        "4": ("nothing", []),
    }
    objects: dict[str, Any] = {
        "1": masks,
        "copy": masks,
        "absent": [None] * 3,
        "unnamed": [None, box_mask(9, 9, 2, 2), None],
    }
    root = write(YouTubeVIS, tmp_path / "out", video(tmp_path, objects, expressions))
    instances = content(root)
    assert names(instances) == {1: "the dog", 2: "object"}
    assert [each["category_id"] for each in instances["annotations"]] == [1, 2]


def test_only_annotated_frames_are_listed(tmp_path):
    masks = [None, box_mask(1, 1, 5, 5), None]
    root = write(YouTubeVIS, tmp_path / "out", video(tmp_path, {"1": masks}, {"0": ("x", ["1"])}, annotated=[1, 2]))
    instances = content(root)
    assert instances["videos"][0]["file_names"] == ["one/00015.jpg", "one/00018.jpg"]
    assert instances["annotations"][0]["areas"] == [25, None]


def test_our_importer_of_the_format_reads_what_was_written(tmp_path):
    root = write(YouTubeVIS, tmp_path / "out", two_objects(tmp_path))
    split = YouTubeVISSplit("train", JsonIndex(root / "train" / "instances.json"), root / "train" / "JPEGImages", 6.0)
    (record,) = split.records()
    assert record.read_annotations is not None
    objects = record.read_annotations().objects
    found = {each.text: [objects[int(id_)].masks for id_ in each.object_ids or ()] for each in record.expressions}
    one, two = (thing.masks for thing in two_objects(tmp_path).annotations.objects)
    assert found == {"the large one": [one], "Is it small?": [two], "both": [one, two]}


@pytest.mark.parametrize("results", [True, False])
def test_masklets_of_a_model_come_back(tmp_path, results):
    dataset = fo.Dataset.from_dir(str(simple_mevis(tmp_path / "in")), dataset_type=types.MeViS)
    for n, sample in enumerate(dataset):
        labels = sample["expressions"].detections
        for label, text in zip(labels, ("The Dog", "the dog", "both"), strict=True):
            label.label = text  # other categories, though the letters are the same
        sample.save()
        expressions = [Expression(label.expression_id, label.label) for label in labels]
        frames = [
            FrameResult(t, each.id, _two_masks(t + n, int(each.id)), np.full(2, 0.5, np.float32), True)
            for t in range(4)
            for each in expressions
        ]
        write_masklets(sample, "model", Masklet.collect(frames, expressions))
    dataset.export(str(tmp_path / "out"), dataset_type=types.YouTubeVIS, masklets_field="model")
    instances = tmp_path / "out" / "train" / "instances.json"
    if results:
        path = tmp_path / "out" / "train" / "results.json"
        report = import_predictions(dataset, path, "again", format="youtube-vis", annotations=instances)
    else:
        report = import_predictions(dataset, instances, "again", format="youtube-vis")
    assert (report.num_videos, report.num_expressions, report.num_missing) == (2, 6, 0)
    for sample in dataset:
        ours, theirs = (
            {each.expression.id: each for each in read_masklets(sample, name)} for name in ("model", "again")
        )
        assert [each.masks for each in ours.values()] == [theirs[id_].masks for id_ in ours]
        assert theirs["0"].score == pytest.approx(0.5 if results else 1.0)


def _two_masks(t: int, n: int) -> Any:
    return np.stack([box_mask(t, 2 + n, 6, 7), box_mask(t + 10, 20 + n, 9, 5)])


def test_names_that_lead_out_of_the_folder_are_refused(tmp_path):
    with pytest.raises(ValueError, match="leads out of"):
        write(YouTubeVIS, tmp_path / "out", two_objects(tmp_path, name="../escape"))
    assert files_of(tmp_path / "out") == ["train/instances.json"]
