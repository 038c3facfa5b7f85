"""Exporting Refer-YouTube-VOS: the original comes back, and what the layout cannot hold is refused or counted."""

from __future__ import annotations

import json
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

import fiftyone_refvos as rv
from fiftyone_refvos import types
from fiftyone_refvos.exports.errors import ExportError
from tests.exported import contents, miniature
from tests.mevis_folder import box_mask, rle, simple_mevis, write_mevis
from tests.shared import shared_path


def export(samples: fo.Dataset | fo.DatasetView, folder: Path) -> None:
    samples.export(str(folder), dataset_type=types.ReferYouTubeVOS, masklets_field="ground_truth")


def test_the_original_comes_back_file_by_file(tmp_path):
    dataset = miniature("Refer-YouTube-VOS", types.ReferYouTubeVOS, tmp_path / "cache", split="train")
    out = tmp_path / "out"
    export(dataset, out)
    original = shared_path("data", "Refer-YouTube-VOS")
    for name in ("meta_expressions/train/meta_expressions.json", "train/meta.json"):
        assert json.loads((out / name).read_text()) == json.loads((original / name).read_text())
    pngs = sorted(path.relative_to(original) for path in (original / "train" / "Annotations").rglob("*.png"))
    assert pngs == sorted(path.relative_to(out) for path in out.rglob("*.png"))
    for png in pngs:
        with Image.open(out / png) as ours, Image.open(original / png) as theirs:
            assert ours.mode == theirs.mode == "P"
            assert np.array_equal(np.array(ours), np.array(theirs))
            assert ours.convert("RGB").tobytes() == theirs.convert("RGB").tobytes()
    again = fo.Dataset.from_dir(str(out), dataset_type=types.ReferYouTubeVOS)
    assert contents(again) == contents(dataset)


def test_an_export_of_the_truth_is_perfect(tmp_path):
    dataset = miniature("Refer-YouTube-VOS", types.ReferYouTubeVOS, tmp_path / "cache", split="train")
    export(dataset, tmp_path / "out")
    again = fo.Dataset.from_dir(str(tmp_path / "out"), dataset_type=types.ReferYouTubeVOS)
    again.clone_frame_field("ground_truth", "model")
    results = rv.evaluate(again, "model", eval_key="self")
    assert results.metrics()["J&F"] == 1.0


def test_frames_that_nobody_annotated_have_no_image(tmp_path):
    dataset = miniature("Refer-YouTube-VOS", types.ReferYouTubeVOS, tmp_path / "cache", split="train")
    sample = dataset.first()
    sample.frames[2]["ground_truth"] = None
    sample.save()
    export(dataset.limit(1), tmp_path / "out")
    names = sorted(path.stem for path in (tmp_path / "out").rglob("*.png"))
    assert names == ["00000", "00010", "00015", "00020", "00025", "00030"]
    again = fo.Dataset.from_dir(str(tmp_path / "out"), dataset_type=types.ReferYouTubeVOS).first()
    assert again.frames[2]["ground_truth"] is None


@pytest.mark.parametrize(("object_ids", "number"), [([0, 1], 2), ([], 0)])
def test_an_expression_of_several_objects_or_none_is_refused(tmp_path, object_ids, number):
    videos = {
        "v": {
            "expressions": {
                "0": {"exp": "the first", "obj_id": [0], "anno_id": [0]},
                "7": {"exp": "the others", "obj_id": object_ids, "anno_id": object_ids},
            },
            "frames": ["00000"],
        }
    }
    masks = {"0": [rle(box_mask(0, 0, 5, 5))], "1": [rle(box_mask(9, 9, 5, 5))]}
    dataset = fo.Dataset.from_dir(str(write_mevis(tmp_path / "in", videos, masks)), dataset_type=types.MeViS)
    with pytest.raises(ExportError, match=rf"expression '7' of 'v' \('the others'\) means {number} objects"):
        export(dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export(dataset.filter_labels("expressions", fo.ViewField("expression_id") == "0"), tmp_path / "out")


def test_objects_are_numbered_from_1_and_hidden_pixels_are_told(tmp_path, caplog):
    videos = {
        "a/b": {
            "expressions": {
                "0": {"exp": "the large one", "obj_id": [0], "anno_id": [0]},
                "1": {"exp": "the small one", "obj_id": [1], "anno_id": [1]},
            },
            "frames": ["00000"],
        }
    }
    large, small = box_mask(0, 0, 10, 10), box_mask(5, 5, 3, 3)
    masks = {"0": [rle(large)], "1": [rle(small)]}
    dataset = fo.Dataset.from_dir(str(write_mevis(tmp_path / "in", videos, masks)), dataset_type=types.MeViS)
    export(dataset, tmp_path / "out")
    assert "9 pixels of objects are hidden" in caplog.text
    with Image.open(tmp_path / "out" / "train" / "Annotations" / "a" / "b" / "00000.png") as image:
        assert np.array_equal(np.array(image), np.where(small, 2, np.where(large, 1, 0)))
    meta = json.loads((tmp_path / "out" / "train" / "meta.json").read_text())
    assert meta["videos"]["a/b"]["objects"]["2"] == {"category": "others", "frames": ["00000"]}


def test_names_that_lead_out_of_the_folder_are_refused(tmp_path):
    dataset = fo.Dataset.from_dir(str(simple_mevis(tmp_path / "in")), dataset_type=types.MeViS)
    sample = dataset.first()
    sample["video_name"] = "../../escape"
    sample.save()
    one = dataset.filter_labels("expressions", fo.ViewField("expression_id") != "2")
    with pytest.raises(ValueError, match="leads out of"):
        export(one, tmp_path / "out")
    with pytest.raises(ValueError, match="leads out of"):
        one.export(
            str(tmp_path / "out"),
            dataset_type=types.ReferYouTubeVOS,
            masklets_field="ground_truth",
            split="../split",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
