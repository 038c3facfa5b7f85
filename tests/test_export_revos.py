"""Exporting ReVOS: the original comes back, with kinds of expressions and foregrounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from pycocotools import mask as coco_mask

import fiftyone_refvos as rv
from fiftyone_refvos import types
from fiftyone_refvos.exports.errors import ExportError
from tests.exported import contents, miniature
from tests.mevis_folder import SIZE, box_mask, rle, simple_mevis, write_mevis
from tests.shared import shared_path

FILES = ("meta_expressions_train_", "meta_expressions_valid_", "mask_dict", "mask_dict_foreground")


def export(samples: fo.Dataset | fo.DatasetView, folder: Path) -> None:
    samples.export(str(folder), dataset_type=types.ReVOS, masklets_field="ground_truth")


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text())


def test_the_original_comes_back_file_by_file(tmp_path):
    dataset = miniature("ReVOS", types.ReVOS, tmp_path / "cache")
    out = tmp_path / "out"
    export(dataset, out)
    original = shared_path("data", "ReVOS")
    for name in FILES:
        assert read(out, name) == read(original, name)
    images = sorted(path.relative_to(original) for path in original.rglob("*.jpg"))
    assert images == sorted(path.relative_to(out) for path in out.rglob("*.jpg"))
    again = fo.Dataset.from_dir(str(out), dataset_type=types.ReVOS)
    assert contents(again) == contents(dataset)


def test_without_a_stored_foreground_it_is_the_union_of_what_is_meant(tmp_path):
    dataset = miniature("ReVOS", types.ReVOS, tmp_path / "cache")
    dataset.delete_frame_field("foreground")
    export(dataset, tmp_path / "out")
    assert read(tmp_path / "out", "mask_dict_foreground") == read(
        shared_path("data", "ReVOS"), "mask_dict_foreground"
    )


def test_an_export_of_the_truth_is_perfect(tmp_path):
    dataset = miniature("ReVOS", types.ReVOS, tmp_path / "cache")
    export(dataset, tmp_path / "out")
    again = fo.Dataset.from_dir(str(tmp_path / "out"), dataset_type=types.ReVOS)
    again.clone_frame_field("ground_truth", "model")
    results = rv.evaluate(again, "model", eval_key="self", protocol="revos")
    assert {name: results.metrics()[name] for name in ("J", "F", "J&F", "A", "R")} == dict.fromkeys(
        ("J", "F", "J&F", "A", "R"), 100.0
    )


def test_an_expression_without_type_is_referring_or_has_no_target(tmp_path):
    videos = {
        "v": {
            "expressions": {
                "0": {"exp": "this", "obj_id": [0], "anno_id": [0]},
                "1": {"exp": "nothing", "obj_id": [], "anno_id": []},
                "2": {"exp": "why?", "obj_id": [0], "anno_id": [0], "type_id": 1},
            },
            "frames": ["00000", "00001"],
        }
    }
    mask = box_mask(3, 3, 10, 10)
    folder = write_mevis(tmp_path / "in", videos, {"0": [rle(mask), None]})
    export(fo.Dataset.from_dir(str(folder), dataset_type=types.MeViS), tmp_path / "out")
    video = read(tmp_path / "out", "meta_expressions_train_")["videos"]["v"]
    assert [each["type_id"] for each in video["expressions"].values()] == [0, 2, 1]
    assert (video["height"], video["width"]) == SIZE
    foreground = read(tmp_path / "out", "mask_dict_foreground")["v"]
    assert foreground["foreground_ratio"] == [100 / (SIZE[0] * SIZE[1]), 0.0]
    first, second = (coco_mask.decode(each) for each in foreground["masks_rle"])
    assert np.array_equal(first, mask)
    assert not second.any()


def test_two_splits_share_their_folders_so_names_differ(tmp_path):
    dataset = fo.Dataset.from_dir(str(simple_mevis(tmp_path / "in")), dataset_type=types.MeViS)
    last = dataset.last()
    last.tags = ["valid"]
    last.save()
    export(dataset, tmp_path / "out")
    assert list(read(tmp_path / "out", "meta_expressions_valid_")["videos"]) == ["two"]
    last["video_name"] = "one"
    last.save()
    with pytest.raises(ExportError, match="is called 'one', and so is"):
        export(dataset, tmp_path / "again")
    last["video_name"] = "../two"
    last.save()
    with pytest.raises(ValueError, match="leads out of"):
        export(dataset, tmp_path / "again")
    assert not (tmp_path / "again").exists()
