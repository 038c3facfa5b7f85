"""Images and polygons for finetuning Sa2VA: what it reads gives exactly the masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from fiftyone_refvos import types
from fiftyone_refvos.fields import read_masklets
from tests.exported import miniature
from tests.mevis_folder import box_mask, picture, simple_mevis


def export(samples: Any, folder: Path, **options: Any) -> list[dict[str, Any]]:
    samples.export(str(folder), dataset_type=types.Sa2VAImages, masklets_field="ground_truth", **options)
    entries: list[dict[str, Any]] = json.loads((folder / "annotations.json").read_text())
    return entries


def as_sa2va(entry: dict[str, Any], folder: Path) -> list[Any]:
    """The masks that Sa2VA makes of an entry: polygons are drawn one by one and added."""
    with Image.open(folder / "images" / entry["image"]) as image:
        width, height = image.size
    masks = []
    for polygons in entry["mask"]:
        mask = np.zeros((height, width), dtype=np.uint8)
        for polygon in polygons:
            mask += coco_mask.decode(coco_mask.frPyObjects([polygon], height, width)).squeeze(axis=2)
        masks.append(mask)
    return masks


@pytest.mark.parametrize("name", ["ReVOS", "mevis"])
def test_every_expression_in_every_annotated_frame_comes_back_exactly(tmp_path, name):
    split = {"ReVOS": "valid", "mevis": "train"}[name]
    dataset = miniature(name, {"ReVOS": types.ReVOS, "mevis": types.MeViS}[name], tmp_path / "cache", split=split)
    entries = {entry["image"]: entry for entry in export(dataset, tmp_path / "out")}
    count = 0
    for sample in dataset:
        for masklet in read_masklets(sample, "ground_truth"):
            for t in masklet.frames:
                truth = masklet.union(t)
                image = f"{sample['video_name']}/{Path(sample['frame_names'][t]).stem}.jpg"
                texts = entries[image]["text"] if image in entries else []
                assert (masklet.expression.text in texts) == truth.any()
                if truth.any():
                    mask = as_sa2va(entries[image], tmp_path / "out")[texts.index(masklet.expression.text)]
                    assert np.array_equal(mask, truth)
                    count += 1
    assert count == sum(len(entry["text"]) for entry in entries.values()) > 30
    assert {str(path.relative_to(tmp_path / "out" / "images")) for path in tmp_path.glob("out/images/**/*.jpg")} == {
        *entries
    }


def test_an_expression_without_a_pixel_is_left_out_and_counted(tmp_path, caplog):
    dataset = fo.Dataset.from_dir(str(simple_mevis(tmp_path / "in", ["one"])), dataset_type=types.MeViS)
    first, *others = export(dataset, tmp_path / "out", export_media="symlink")
    assert (first["image"], first["text"]) == ("one/00000.jpg", ["the left one", "both"])
    assert [each["text"] for each in others] == [["the left one", "the right one", "both"]] * 3
    assert "1 times an expression is left out" in caplog.text
    assert (tmp_path / "out" / "images" / "one" / "00000.jpg").is_symlink()


def test_images_are_exported_with_their_expressions(tmp_path):
    (tmp_path / "in").mkdir()
    picture(0, (32, 40)).save(tmp_path / "in" / "a.png")
    mask = box_mask(4, 4, 8, 10, (32, 40))
    mask[6:8, 6:8] = False
    sample = fo.Sample(filepath=str(tmp_path / "in" / "a.png"))
    sample["image_name"] = "sub/a.png"
    sample["expressions"] = fo.Classifications(
        classifications=[fo.Classification(label="The ring.", expression_id="0", object_ids=["1"])]
    )
    detection = fo.Detection.from_mask(mask, label="The ring.")
    detection["expression_id"], detection["object_id"] = "0", "1"
    sample["ground_truth"] = fo.Detections(detections=[detection])
    dataset = fo.Dataset()
    dataset.add_sample(sample)
    (entry,) = export(dataset, tmp_path / "out")
    assert (entry["image"], entry["text"]) == ("sub/a.jpg", ["The ring."])
    (drawn,) = as_sa2va(entry, tmp_path / "out")
    assert np.array_equal(drawn, mask)
    sample["image_name"] = "../a"
    sample.save()
    with pytest.raises(ValueError, match="leads out of"):
        export(dataset, tmp_path / "escape")
    assert not (tmp_path / "escape").exists()
