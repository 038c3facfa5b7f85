"""DAVIS 2017: palette images as SAM 2, vos-benchmark and our own measures read them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from fiftyone_refvos import types
from fiftyone_refvos.datasets.layouts.index_png import IndexPngSplit
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.formats.davis import Davis
from fiftyone_refvos.exports.label_maps import voc_palette
from fiftyone_refvos.metrics import (
    DAVIS17_SEMI_SUPERVISED,
    DAVIS17_UNSUPERVISED,
    VOS_BENCHMARK_ALL_FRAMES,
    VideoMasks,
)
from tests.export_records import files_of, two_objects, video, write
from tests.mevis_folder import SIZE, box_mask, simple_mevis
from tests.shared import shared_path


def pixels(root: Path, frame: int, name: str = "one") -> Any:
    with Image.open(root / "Annotations" / "480p" / name / f"{frame:05d}.png") as image:
        assert image.mode == "P"
        assert image.getpalette() == list(voc_palette())
        return np.array(image)


def test_folders_are_those_of_davis(tmp_path):
    valid = two_objects(tmp_path, name="a/b", split="valid")
    root = write(Davis, tmp_path / "out", two_objects(tmp_path), valid)
    assert files_of(root) == sorted(
        [f"{kind}/480p/{name}/{t:05d}.{suffix}"
         for kind, suffix in (("Annotations", "png"), ("JPEGImages", "jpg"))
         for name in ("one", "a_b")
         for t in range(3)]
        + ["ImageSets/2017/train.txt", "ImageSets/2017/val.txt"]
    )  # fmt: skip
    assert (root / "ImageSets" / "2017" / "train.txt").read_text() == "one\n"
    assert (root / "ImageSets" / "2017" / "val.txt").read_text() == "a_b\n"
    written = (root / "JPEGImages" / "480p" / "one" / "00001.jpg").read_bytes()
    assert written == (tmp_path / "images" / "one" / "00015.jpg").read_bytes()


def test_the_smaller_object_lies_on_top_and_the_log_says_what_it_hides(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        root = write(Davis, tmp_path / "out", two_objects(tmp_path))
    large, small = box_mask(5, 3, 12, 12), box_mask(10, 10, 6, 6)
    assert np.array_equal(pixels(root, 0), np.where(small, 2, np.where(large, 1, 0)))
    hidden = np.count_nonzero(large & small)
    assert hidden > 0
    assert [record.getMessage() for record in caplog.records] == [
        f"{hidden} pixels of objects are hidden by smaller objects that overlap them"
    ]


def test_void_is_255_and_lies_below(tmp_path):
    thing, void = box_mask(5, 5, 10, 10), box_mask(10, 10, 10, 10)
    root = write(Davis, tmp_path / "out", video(tmp_path, {"4": [thing, None, None]}, void=[void, void, None]))
    assert np.array_equal(pixels(root, 0), np.where(thing, 4, np.where(void, 255, 0)))
    assert np.array_equal(pixels(root, 1), np.where(void, 255, 0))
    assert not pixels(root, 2).any()


def test_frames_that_nobody_annotated_have_no_annotation(tmp_path):
    root = write(Davis, tmp_path / "out", video(tmp_path, {"1": [None] * 3}, annotated=[0, 2]))
    assert [path.name for path in sorted((root / "Annotations" / "480p" / "one").iterdir())] == [
        "00000.png",
        "00002.png",
    ]
    assert len(list((root / "JPEGImages" / "480p" / "one").iterdir())) == 3


def test_sam2_reads_it(tmp_path):
    from training.dataset.vos_raw_dataset import PNGRawDataset

    root = write(Davis, tmp_path / "out", two_objects(tmp_path, name="a/b"))
    reader = PNGRawDataset(str(root / "JPEGImages" / "480p"), str(root / "Annotations" / "480p"))
    clip, loader = reader.get_video(0)
    assert clip.video_name == "a_b"
    assert [frame.frame_idx for frame in clip.frames] == [0, 1, 2]
    masks = loader.load(1)
    assert sorted(masks) == [1, 2]
    assert np.array_equal(masks[2].numpy(), box_mask(25, 30, 6, 6))


def test_measures_of_an_export_against_itself_are_perfect(tmp_path):
    root = write(Davis, tmp_path / "out", two_objects(tmp_path))
    maps = [pixels(root, t) for t in range(3)]
    tracks = {str(number): [each == number for each in maps] for number in (1, 2)}
    masks = VideoMasks(name="one", size=SIZE, frames=["0", "1", "2"], objects=tracks, predictions=tracks)
    for protocol in (DAVIS17_SEMI_SUPERVISED, DAVIS17_UNSUPERVISED):
        assert protocol.evaluate([masks]).dataset["J&F"] == 1.0
    assert VOS_BENCHMARK_ALL_FRAMES.evaluate([masks]).dataset["J&F"] == 100.0


def test_vos_benchmark_finds_an_export_equal_to_itself(tmp_path):
    from vos_benchmark.benchmark import VideoEvaluator

    root = write(Davis, tmp_path / "out", two_objects(tmp_path))
    folder = str(root / "Annotations" / "480p")
    name, jaccard, boundary = VideoEvaluator(folder, folder, skip_first_and_last=False)("one")
    assert (name, jaccard, boundary) == ("one", {1: 100.0, 2: 100.0}, {1: 100.0, 2: 100.0})


def test_a_dataset_with_void_comes_back(tmp_path):
    folder = shared_path("data", "Ref-DAVIS17")
    dataset = fo.Dataset.from_dir(
        str(folder), dataset_type=types.RefDAVIS17, split="valid", cache_dir=str(tmp_path / "cache")
    )
    dataset.export(str(tmp_path / "out"), dataset_type=types.DAVIS, masklets_field="ground_truth")
    names = (tmp_path / "out" / "ImageSets" / "2017" / "val.txt").read_text().split()
    assert names == dataset.values("video_name")
    for name in names:
        originals = sorted((folder / "valid" / "Annotations" / name).iterdir())
        for t, path in enumerate(originals):
            with Image.open(path) as image:
                assert np.array_equal(pixels(tmp_path / "out", t, name), np.array(image))


def test_our_reader_of_annotation_images_finds_the_objects(tmp_path):
    root = write(Davis, tmp_path / "out", two_objects(tmp_path))
    stems = ["00000", "00001", "00002"]
    images, annotations = ([root / kind / "480p"] for kind in ("JPEGImages", "Annotations"))
    split = IndexPngSplit("train", images, annotations, 24.0, {}, has_void=True)
    meta = {"one": {"frames": stems, "expressions": {"0": {"exp": "the small one", "obj_id": "2"}}}}
    (record,) = split.records(meta, "test")
    assert record.read_annotations is not None
    objects = {each.id: each.masks for each in record.read_annotations().objects}
    assert objects["2"] == two_objects(tmp_path).annotations.objects[1].masks


def test_what_an_annotation_image_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ExportError, match="object '255' of 'one' would be number 255"):
        write(Davis, tmp_path / "out", video(tmp_path, {"255": [None] * 3}))
    with pytest.raises(ValueError, match="leads out of"):
        write(Davis, tmp_path / "two", two_objects(tmp_path, name="../escape"))


def test_videos_of_one_name_in_two_splits_are_refused(tmp_path):
    dataset = fo.Dataset.from_dir(str(simple_mevis(tmp_path / "in")), dataset_type=types.MeViS)
    sample = dataset.first()
    sample["video_name"], sample.tags = "two", ["valid"]
    sample.save()
    with pytest.raises(ExportError, match="is called 'two', and so is"):
        dataset.export(str(tmp_path / "out"), dataset_type=types.DAVIS, masklets_field="ground_truth")
