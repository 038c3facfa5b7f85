"""One binary image per object and frame, as SAM 2 and SA-V's evaluator read them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from fiftyone_refvos import types
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.formats.object_png import ObjectPNG
from fiftyone_refvos.metrics import SAV_ALL_FRAMES, VideoMasks
from tests.export_records import files_of, two_objects, video, write
from tests.mevis_folder import SIZE, box_mask
from tests.shared import shared_path


def pixels(root: Path, number: str, frame: int, name: str = "one") -> Any:
    with Image.open(root / "train" / "Annotations" / name / number / f"{frame:05d}.png") as image:
        assert image.mode == "L"
        return np.array(image)


def test_every_object_has_a_folder_with_an_image_per_frame(tmp_path):
    root = write(ObjectPNG, tmp_path / "out", two_objects(tmp_path, name="a/b"))
    assert files_of(root) == sorted(
        [f"train/Annotations/a_b/{number}/{t:05d}.png" for number in ("001", "002") for t in range(3)]
        + [f"train/JPEGImages/a_b/{t:05d}.jpg" for t in range(3)]
        + ["train.txt"]
    )
    assert (root / "train.txt").read_text() == "a_b\n"
    assert np.array_equal(pixels(root, "001", 0, "a_b"), 255 * box_mask(5, 3, 12, 12))
    assert np.array_equal(pixels(root, "002", 0, "a_b"), 255 * box_mask(10, 10, 6, 6))  # they overlap
    assert not pixels(root, "002", 2, "a_b").any()


def test_objects_without_a_number_are_counted_from_0(tmp_path):
    root = write(ObjectPNG, tmp_path / "out", video(tmp_path, {"dog": [None] * 3, "cat": [None] * 3}))
    assert sorted(path.name for path in (root / "train" / "Annotations" / "one").iterdir()) == ["000", "001"]


def test_sam2_reads_it(tmp_path):
    from training.dataset.vos_raw_dataset import PNGRawDataset

    root = write(ObjectPNG, tmp_path / "out", two_objects(tmp_path))
    folders = (str(root / "train" / kind) for kind in ("JPEGImages", "Annotations"))
    clip, loader = PNGRawDataset(*folders, is_palette=False).get_video(0)
    assert [frame.frame_idx for frame in clip.frames] == [0, 1, 2]
    masks = loader.load(1)
    assert np.array_equal(masks[2].numpy(), box_mask(6, 3, 12, 12))  # SAM 2 adds one to the number
    assert np.array_equal(masks[3].numpy(), box_mask(25, 30, 6, 6))


def test_the_measure_of_an_export_against_itself_is_perfect(tmp_path):
    root = write(ObjectPNG, tmp_path / "out", two_objects(tmp_path))
    tracks = {number: [pixels(root, number, t) > 0 for t in range(3)] for number in ("001", "002")}
    masks = VideoMasks(name="one", size=SIZE, frames=["0", "1", "2"], objects=tracks, predictions=tracks)
    assert SAV_ALL_FRAMES.evaluate([masks]).dataset["J&F"] == 100.0


def test_an_object_has_images_where_it_was_annotated(tmp_path):
    exported = two_objects(tmp_path, annotated=[0, 2])
    first, second, both = exported.record.expressions
    partly = (first, replace(second, covered=frozenset({2})), replace(both, object_ids=("1",)))
    exported = replace(exported, record=replace(exported.record, expressions=partly))
    root = write(ObjectPNG, tmp_path / "out", exported)
    folder = root / "train" / "Annotations" / "one"
    assert sorted(path.name for path in (folder / "001").iterdir()) == ["00000.png", "00002.png"]
    assert sorted(path.name for path in (folder / "002").iterdir()) == ["00002.png"]


def test_objects_annotated_in_different_frames_come_back(tmp_path):
    folder = shared_path("data", "ReasonVOS")
    dataset = fo.Dataset.from_dir(str(folder), dataset_type=types.ReasonVOS, cache_dir=str(tmp_path / "cache"))
    dataset.export(str(tmp_path / "out"), dataset_type=types.ObjectPNG, masklets_field="ground_truth")
    compared = 0
    for sample in dataset:
        name, stems = sample["video_name"], [Path(each).stem for each in sample["frame_names"]]
        ids = sorted({id_ for each in sample["expressions"].detections for id_ in each.object_ids})
        for id_ in filter(str.isdecimal, ids):
            original = folder / "Annotations" / f"{sample['source']}_{name}_{id_}"
            written = tmp_path / "out" / "test" / "Annotations" / name.replace("/", "_") / f"{int(id_):03d}"
            assert [stems[int(path.stem)] for path in sorted(written.iterdir())] == sorted(
                path.stem for path in original.iterdir()
            )
            for path in written.iterdir():
                with Image.open(path) as ours, Image.open(original / f"{stems[int(path.stem)]}.png") as theirs:
                    assert np.array_equal(np.array(ours) > 0, np.array(theirs) > 0)
                    compared += 1
    assert compared > 10


def test_what_readers_cannot_take_is_refused(tmp_path):
    with pytest.raises(ExportError, match="'one' has no object"):
        write(ObjectPNG, tmp_path / "out", video(tmp_path, {}))
    with pytest.raises(ValueError, match="leads out of"):
        write(ObjectPNG, tmp_path / "two", two_objects(tmp_path, name="/absolute"))
