"""COCO frame by frame: pycocotools reads it, and finds it equal to itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from fiftyone_refvos import types
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.formats.coco_frames import COCOFrames
from tests.export_records import files_of, image, two_objects, video, write
from tests.mevis_folder import SIZE, box_mask, picture


def loaded(root: Path, split: str = "train") -> COCO:
    return COCO(str(root / split / "annotations.json"))


def average_precision(root: Path) -> float:
    truth = loaded(root)
    keys = ("image_id", "category_id", "segmentation")
    results: list[Any] = [{key: each[key] for key in keys} | {"score": 1.0} for each in truth.dataset["annotations"]]
    evaluation = COCOeval(truth, truth.loadRes(results), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


def test_coco_reads_frames_as_images(tmp_path):
    root = write(COCOFrames, tmp_path / "out", two_objects(tmp_path, name="a/b"))
    coco = loaded(root)
    images = coco.loadImgs(coco.getImgIds())
    assert images[1] == {
        "id": 2,
        "file_name": "a/b/00015.jpg",
        "height": SIZE[0],
        "width": SIZE[1],
        "video": "a/b",
        "frame": 1,
    }
    for each in images:
        with Image.open(root / "train" / "images" / each["file_name"]) as written:
            assert written.size == (SIZE[1], SIZE[0])
    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == ["the large one", "Is it small?", "both"]
    assert len(coco.getAnnIds(imgIds=[1])) == 4
    assert len(coco.getAnnIds(imgIds=[3])) == 2  # the small one is absent
    (small,) = coco.loadAnns(coco.getAnnIds(imgIds=[2], catIds=[2]))
    assert (small["area"], small["bbox"], small["iscrowd"]) == (36, [30.0, 25.0, 6.0, 6.0], 0)
    assert (small["object_id"], small["expression_id"], small["expression"]) == ("2", "1", "Is it small?")
    assert np.array_equal(coco.annToMask(small), box_mask(25, 30, 6, 6))


def test_average_precision_against_itself_is_one(tmp_path):
    root = write(COCOFrames, tmp_path / "out", two_objects(tmp_path), two_objects(tmp_path, name="two"))
    assert average_precision(root) == 1.0


def test_frames_without_annotation_are_no_images_but_empty_ones_are(tmp_path):
    masks = [None, box_mask(1, 1, 5, 5), None]
    root = write(COCOFrames, tmp_path / "out", video(tmp_path, {"1": masks}, {"0": ("x", ["1"])}, annotated=[1, 2]))
    coco = loaded(root)
    assert [each["file_name"] for each in coco.dataset["images"]] == ["one/00015.jpg", "one/00018.jpg"]
    assert [each["image_id"] for each in coco.dataset["annotations"]] == [1]
    assert files_of(root) == ["train/annotations.json", "train/images/one/00015.jpg", "train/images/one/00018.jpg"]


def test_objects_without_an_expression_and_scores_of_models_are_kept(tmp_path):
    exported = video(tmp_path, {"7": [box_mask(1, 1, 5, 5), None, None]}, scores={"7": 0.5})
    coco = loaded(write(COCOFrames, tmp_path / "out", exported))
    (annotation,) = coco.dataset["annotations"]
    assert coco.dataset["categories"] == [{"id": 1, "name": "object", "supercategory": "object"}]
    assert (annotation["expression"], annotation["expression_id"], annotation["score"]) == (None, None, 0.5)


def test_images_keep_their_names_and_become_jpegs(tmp_path):
    masks = {"1": box_mask(0, 0, 33, 47), "2": box_mask(32, 46, 1, 1)}
    root = write(COCOFrames, tmp_path / "out", image(tmp_path, "sub/a.png", masks), image(tmp_path, "b.c", masks))
    coco = loaded(root)
    assert [each["file_name"] for each in coco.dataset["images"]] == ["sub/a.jpg", "b.c.jpg"]
    with Image.open(root / "train" / "images" / "sub" / "a.jpg") as written:
        assert written.format == "JPEG"
    assert average_precision(root) == 1.0


def test_images_that_would_be_one_file_are_refused(tmp_path):
    masks = {"1": box_mask(0, 0, 5, 5)}
    with pytest.raises(ExportError, match="'a.jpg' would write images/a.jpg once more"):
        write(COCOFrames, tmp_path / "out", image(tmp_path, "a.png", masks), image(tmp_path, "a.jpg", masks, ".jpg"))


@pytest.mark.parametrize("name", ["../escape", "/absolute"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="leads out of"):
        write(COCOFrames, tmp_path / "out", two_objects(tmp_path, name=name))
    assert files_of(tmp_path / "out") == ["train/annotations.json"]


def test_an_image_dataset_is_exported(tmp_path):
    path = tmp_path / "dog.jpg"
    picture(0).save(path)
    sample = fo.Sample(filepath=str(path), tags=["val"])
    sample["expressions"] = fo.Classifications(
        classifications=[fo.Classification(label="the dog", expression_id="0", object_ids=["1"])]
    )
    mask = np.ones((11, 10), dtype=bool)
    box = [5 / SIZE[1], 3 / SIZE[0], 10 / SIZE[1], 11 / SIZE[0]]
    sample["ground_truth"] = fo.Detections(
        detections=[fo.Detection(label="the dog", bounding_box=box, mask=mask, expression_id="0", object_id="1")]
    )
    dataset = fo.Dataset()
    dataset.add_sample(sample)
    dataset.export(str(tmp_path / "out"), dataset_type=types.COCOFrames, masklets_field="ground_truth")
    content = json.loads((tmp_path / "out" / "val" / "annotations.json").read_text())
    assert [each["file_name"] for each in content["images"]] == ["dog.jpg"]
    (annotation,) = content["annotations"]
    assert (annotation["area"], annotation["bbox"]) == (110, [5.0, 3.0, 10.0, 11.0])
    assert (tmp_path / "out" / "val" / "images" / "dog.jpg").read_bytes() == path.read_bytes()
