"""Exporting Ref-SAV: the original comes back, and other videos are made to fit every 4th frame."""

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
from fiftyone_refvos.fields import read_masklets
from fiftyone_refvos.video import open_video
from tests.exported import contents, miniature
from tests.mevis_folder import SIZE, box_mask, picture, simple_mevis
from tests.shared import shared_path

FOLDER = Path("sam_v_full", "sav_train", "sav_000")


def export(samples: Any, folder: Path, **options: Any) -> None:
    samples.export(str(folder), dataset_type=types.RefSAV, masklets_field="ground_truth", **options)


def imported(folder: Path) -> fo.Dataset:
    return fo.Dataset.from_dir(str(folder), dataset_type=types.RefSAV)


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_original_comes_back_file_by_file(tmp_path):
    dataset = miniature("Ref-SAV", types.RefSAV, tmp_path / "cache", split="train")
    out, original = tmp_path / "out", shared_path("data", "Ref-SAV")
    export(dataset, out)
    assert read(out / "Ref-SAV.json") == read(original / "Ref-SAV.json")
    ours, theirs = (read(root / FOLDER / "sav_000001_manual.json") for root in (out, original))
    assert ours.pop("video_environment") == "Unknown"
    assert theirs.pop("video_environment") == "Indoor"  # which nobody imports
    assert ours == theirs
    assert (out / FOLDER / "sav_000001.mp4").read_bytes() == (original / FOLDER / "sav_000001.mp4").read_bytes()
    again = imported(out)
    assert contents(again) == contents(dataset)
    again.clone_frame_field("ground_truth", "model")
    assert rv.evaluate(again, "model", eval_key="self").metrics()["J&F"] == 1.0


def test_of_other_videos_every_annotated_frame_is_shown_four_times(tmp_path):
    dataset = fo.Dataset.from_dir(str(simple_mevis(tmp_path / "in")), dataset_type=types.MeViS)
    sample = dataset.first()
    sample.frames[2]["ground_truth"] = None  # of the four frames three are annotated
    sample.save()
    export(dataset, tmp_path / "out")
    facts = read(tmp_path / "out" / FOLDER / "one_manual.json")
    assert (facts["video_frame_count"], len(facts["masklet"]), facts["video_duration"]) == (12.0, 3, 0.5)
    frames = list(open_video(tmp_path / "out" / FOLDER / "one.mp4").read(range(12)))
    assert len(frames) == 12
    for position, number in enumerate((0, 2, 3)):  # readers take [::4]
        shown = frames[4 * position][: SIZE[0], : SIZE[1]].astype(int)
        distances = [np.abs(shown - np.asarray(picture(seed))).mean() for seed in range(4)]
        assert int(np.argmin(distances)) == number


def test_an_expression_has_masks_of_its_own_where_an_object_has_one_already(tmp_path):
    dataset = fo.Dataset.from_dir(str(simple_mevis(tmp_path / "in", ["one"])), dataset_type=types.MeViS)
    sample = dataset.first()
    labels = sample["expressions"].detections
    for id_, text, object_ids in (("3", "once more", ["0"]), ("4", "nothing", [])):
        label = fo.TemporalDetection(label=text, support=[1, 4], expression_id=id_, object_ids=object_ids)
        labels.append(label)
    sample.save()
    export(dataset, tmp_path / "out")
    (entry,) = read(tmp_path / "out" / "Ref-SAV.json").values()
    texts = {column: each["formated"] for column, each in entry["objects"].items()}
    assert texts == {"0": "the left one", "1": "the right one", "2": "both", "3": "once more", "4": "nothing"}
    facts = read(tmp_path / "out" / FOLDER / "one_manual.json")
    size = (SIZE[0] + 1, SIZE[1] + 1)  # of the mp4: even
    assert (facts["video_height"], facts["video_width"]) == size
    left, right = box_mask(6, 3, 8, 9, size), box_mask(10, 31, 23, 14, size)
    drawn = [coco_mask.decode(each) for each in facts["masklet"][1]]
    for mask, expected in zip(drawn, (left, right, left | right, left, left & False), strict=True):
        assert np.array_equal(mask, expected)
    assert facts["masklet_first_appeared_frame"] == [0.0, 1.0, 0.0, 0.0, None]
    assert facts["masklet_frame_count"] == [4] * 5  # the annotated ones
    assert facts["masklet_num"] == 5
    again = imported(tmp_path / "out").first()
    masklets = {each.expression.text: each for each in read_masklets(again, "ground_truth")}
    assert {text: masklets[text].frames for text in texts.values()} == dict.fromkeys(texts.values(), (0, 4, 8, 12))
    assert np.array_equal(masklets["both"].union(4), left | right)


def test_labels_alone_need_no_video_and_names_stay_inside(tmp_path):
    dataset = fo.Dataset.from_dir(str(simple_mevis(tmp_path / "in", ["a/b"])), dataset_type=types.MeViS)
    export(dataset, tmp_path / "out", export_media=False)
    assert sorted(path.name for path in (tmp_path / "out" / FOLDER).rglob("*.*")) == ["b_manual.json"]
    (entry,) = read(tmp_path / "out" / "Ref-SAV.json").values()
    assert entry["video_path"] == "sav_000/sav_train/sav_000/a/b.mp4"
    sample = dataset.first()
    sample["video_name"] = "../../../../x"
    sample.save()
    with pytest.raises(ValueError, match="leads out of"):
        export(dataset, tmp_path / "escape")
    assert not (tmp_path / "escape").exists()
