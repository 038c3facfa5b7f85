"""Refer-YouTube-VOS: splits, ids, index images of both kinds, frames without annotation."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.layouts.ref_davis17 import RefDAVIS17
from fiftyone_refvos.datasets.layouts.refer_youtube_vos import ReferYouTubeVOS
from fiftyone_refvos.datasets.records import FolderMedia
from fiftyone_refvos.datasets.registry import recognise
from tests.label_images import (
    CORNER,
    LEFT,
    RIGHT,
    label_map,
    masks_of,
    records,
    truth,
    write_json,
    write_label_maps,
)
from tests.mevis_folder import SIZE, write_images

FRAMES = ["00010", "00015", "00020", "00025"]
TEXTS = {"3": "a  cat || dog ", "10": "女の子 in “red”", "7": "the late one"}


def write_train(root: Path) -> Path:
    """A video whose frame 00015 nobody annotated, with the objects 2, 5 (from 00020 on) and 9 (of no expression)."""
    expressions = {
        "3": {"exp": TEXTS["3"], "obj_id": "2"},
        "10": {"exp": TEXTS["10"], "obj_id": 2},
        "7": {"exp": TEXTS["7"], "obj_id": "5"},
        "8": {"exp": "never seen", "obj_id": "6"},
    }
    write_json(
        root / "meta_expressions" / "train" / "meta_expressions.json",
        {"videos": {"a-b_c": {"expressions": expressions, "frames": FRAMES}}},
    )
    write_json(
        root / "train" / "meta.json",
        {"videos": {"a-b_c": {"objects": {"2": {"category": "cat", "frames": FRAMES}, "5": {"category": "dog"}}}}},
    )
    write_images(root / "train" / "JPEGImages" / "a-b_c", [*FRAMES, "00030"])
    maps = {
        "00010": label_map(_2=LEFT, _9=CORNER),
        "00020": label_map(_2=LEFT, _5=RIGHT),
        "00025": label_map(_5=RIGHT),
    }
    write_label_maps(root / "train" / "Annotations" / "a-b_c", maps)
    return root


def write_unknown(root: Path, split: str, names: list[str], images: str) -> None:
    """A split without ground truth; images of its last video alone, in a folder of choice."""
    videos: dict[str, Any] = {
        name: {"expressions": {"0": {"exp": f"what is {name}"}}, "frames": ["00000", "00005"]} for name in names
    }
    write_json(root / "meta_expressions" / split / "meta_expressions.json", {"videos": videos})
    write_images(root / images / "JPEGImages" / names[-1], ["00000", "00005"])


@pytest.mark.parametrize("mode", ["P", "L"])
def test_objects_are_the_values_of_palette_and_grey_images(tmp_path, mode):
    root = write_train(tmp_path)
    folder = root / "train" / "Annotations" / "a-b_c"
    shutil.rmtree(folder)
    write_label_maps(folder, {"00010": label_map(_2=LEFT, _5=RIGHT)}, mode)
    annotations = truth(records(ReferYouTubeVOS(root), "train")["a-b_c"])
    assert np.array_equal(masks_of(annotations, "2")[0], LEFT)
    assert np.array_equal(masks_of(annotations, "5")[0], RIGHT)


def test_ids_may_have_16_bits_and_colours_are_refused(tmp_path):
    root = write_train(tmp_path)
    path = root / "train" / "Annotations" / "a-b_c" / "00010.png"
    Image.fromarray(LEFT * np.uint16(2) + RIGHT * np.uint16(700)).save(path)
    annotations = truth(records(ReferYouTubeVOS(root), "train")["a-b_c"])
    assert np.array_equal(masks_of(annotations, "2")[0], LEFT)
    assert np.array_equal(masks_of(annotations, "700")[0], RIGHT)
    Image.fromarray(LEFT).convert("RGB").save(path)
    with pytest.raises(DatasetError, match=r"00010\.png has colours \(RGB\)"):
        truth(records(ReferYouTubeVOS(root), "train")["a-b_c"])


def test_a_frame_without_annotation_image_is_not_annotated(tmp_path):
    annotations = truth(records(ReferYouTubeVOS(write_train(tmp_path)), "train")["a-b_c"])
    assert annotations.annotated == {0, 2, 3}
    assert annotations.size == SIZE
    assert annotations.void is None
    empty = np.zeros(SIZE, dtype=bool)
    assert np.array_equal(masks_of(annotations, "2"), [LEFT, empty, LEFT, empty])
    assert np.array_equal(masks_of(annotations, "5"), [empty, empty, RIGHT, RIGHT])
    assert np.array_equal(masks_of(annotations, "9"), [CORNER, empty, empty, empty])
    assert not np.any(masks_of(annotations, "6"))
    assert [(each.id, each.category) for each in annotations.objects] == [
        ("2", "cat"),
        ("5", "dog"),
        ("6", None),
        ("9", None),
    ]


def test_expressions_are_kept_to_the_letter_and_ids_are_text(tmp_path):
    record = records(ReferYouTubeVOS(write_train(tmp_path)), "train")["a-b_c"]
    assert [(each.id, each.text) for each in record.expressions[:3]] == list(TEXTS.items())
    assert [each.object_ids for each in record.expressions] == [("2",), ("2",), ("5",), ("6",)]
    assert isinstance(record.media, FolderMedia)
    assert record.media.names == ("00010.jpg", "00015.jpg", "00020.jpg", "00025.jpg")
    assert record.media.frame_rate == 6


def test_categories_are_optional(tmp_path):
    root = write_train(tmp_path)
    (root / "train" / "meta.json").unlink()
    annotations = truth(records(ReferYouTubeVOS(root), "train")["a-b_c"])
    assert {each.category for each in annotations.objects} == {None}


def test_valid_is_its_list_without_the_videos_of_test(tmp_path):
    write_unknown(tmp_path, "valid", ["t1", "v1"], "valid")
    write_unknown(tmp_path, "test", ["t1"], "test")
    layout = ReferYouTubeVOS(tmp_path)
    assert layout.splits() == ("valid", "test")
    assert list(records(layout, "valid")) == ["v1"]
    (record,) = records(layout, "test").values()
    assert record.media == FolderMedia(tmp_path / "test" / "JPEGImages" / "t1", ("00000.jpg", "00005.jpg"), 6.0)
    assert record.read_annotations is None
    assert record.expressions[0].object_ids is None


def test_images_of_test_may_lie_with_those_of_valid(tmp_path):
    write_unknown(tmp_path, "valid", ["t1", "v1"], "valid")
    write_unknown(tmp_path, "test", ["t1"], "valid")
    (record,) = records(ReferYouTubeVOS(tmp_path), "test").values()
    assert isinstance(record.media, FolderMedia)
    assert record.media.folder == tmp_path / "valid" / "JPEGImages" / "t1"


def test_splits_whose_images_are_not_there_are_no_splits(tmp_path):
    write_unknown(tmp_path, "valid", ["t1", "v1"], "valid")
    write_unknown(tmp_path, "test", ["t1"], "elsewhere")
    write_unknown(tmp_path, "train", ["x"], "elsewhere")
    assert ReferYouTubeVOS(tmp_path).splits() == ("valid",)


def test_masks_of_a_split_that_does_not_say_what_they_mean_are_no_ground_truth(tmp_path):
    write_unknown(tmp_path, "valid", ["v1"], "valid")
    write_label_maps(tmp_path / "valid" / "Annotations" / "v1", {"00000": label_map(_1=LEFT)})
    assert records(ReferYouTubeVOS(tmp_path), "valid")["v1"].read_annotations is None


def test_it_is_told_from_ref_davis17(tmp_path):
    root = write_train(tmp_path)
    assert recognise(root) == [ReferYouTubeVOS]
    write_unknown(root, "valid", ["v1"], "valid")
    write_label_maps(root / "valid" / "Annotations" / "v1", {"00000": label_map(_1=LEFT)})
    assert recognise(root) == [ReferYouTubeVOS]
    assert RefDAVIS17(root).splits() == ()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.rmtree(root / "train" / "Annotations" / "a-b_c"), "Annotations/a-b_c is missing"),
        (lambda root: write_json(root / "train" / "meta.json", {"videos": {"v": []}}), "meta.json, video 'v' has no"),
    ],
)
def test_damaged_folders_give_errors_that_name_the_file(tmp_path, damage, message):
    root = write_train(tmp_path)
    damage(root)
    with pytest.raises(DatasetError, match=message):
        truth(records(ReferYouTubeVOS(root), "train")["a-b_c"])


def test_annotations_of_other_frames_are_refused(tmp_path):
    root = write_train(tmp_path)
    folder = root / "train" / "Annotations" / "a-b_c"
    shutil.rmtree(folder)
    write_label_maps(folder, {"frame1": label_map(_2=LEFT)})
    with pytest.raises(DatasetError, match=r"called frame1\.png"):
        truth(records(ReferYouTubeVOS(root), "train")["a-b_c"])


def test_an_object_id_that_no_pixel_can_have_is_refused(tmp_path):
    root = write_train(tmp_path)
    video = {"expressions": {"0": {"exp": "x", "obj_id": "cat"}}, "frames": FRAMES}
    write_json(root / "meta_expressions" / "train" / "meta_expressions.json", {"videos": {"a-b_c": video}})
    with pytest.raises(DatasetError, match=r"expression '0' has the object ids \('cat',\)"):
        records(ReferYouTubeVOS(root), "train")


def test_objects_of_a_video_without_expressions_are_read_where_the_split_has_truth(tmp_path):
    root = write_train(tmp_path)
    path = root / "meta_expressions" / "train" / "meta_expressions.json"
    videos = json.loads(path.read_text(encoding="utf-8"))["videos"]
    silent = {"expressions": {}, "frames": FRAMES[:1]}
    write_json(path, {"videos": {**videos, "silent": silent, "bare": silent}})
    for name in ("silent", "bare"):
        write_images(root / "train" / "JPEGImages" / name, FRAMES[:1])
    write_label_maps(root / "train" / "Annotations" / "silent", {FRAMES[0]: label_map(_3=LEFT)})
    found = records(ReferYouTubeVOS(root), "train")
    assert np.array_equal(masks_of(truth(found["silent"]), "3"), [LEFT])
    assert found["bare"].read_annotations is None
