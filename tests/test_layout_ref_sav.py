"""Ref-SAV: mp4 files of which every 4th frame is annotated, parts that are missing, and the evaluation part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest

from fiftyone_refvos import types
from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.importer import importer_for
from fiftyone_refvos.datasets.layouts.ref_sav import RefSAV
from fiftyone_refvos.datasets.records import FileMedia
from fiftyone_refvos.datasets.registry import recognise
from fiftyone_refvos.fields import read_masklets
from fiftyone_refvos.overlay import write_video
from tests.label_images import records, truth, write_json
from tests.mevis_folder import box_mask, picture, rle, write_images

SIZE = (34, 48)  # mp4 files have even sides
LEFT, RIGHT = box_mask(5, 3, 8, 9, SIZE), box_mask(10, 30, 20, 14, SIZE)
EMPTY = np.zeros(SIZE, dtype=bool)
NAME = "sav_000_01-x"


def write_train(root: Path, num_frames: int = 10) -> Path:
    """A video with the annotated frames 0, 4 and 8, and three objects, of which two have expressions."""
    folder = root / "sam_v_full" / "sav_train" / "sav_000"
    folder.mkdir(parents=True)
    write_video(folder / f"{NAME}.mp4", (np.asarray(picture(t, SIZE)) for t in range(num_frames)), 24.0)
    content = {
        "video_height": 34.0,
        "video_width": 48.0,
        "masklet_id": [0, 4, 9],
        "masklet": [
            [rle(LEFT), rle(EMPTY), rle(RIGHT)],
            [None, rle(RIGHT), rle(RIGHT)],
            [{"size": list(SIZE), "counts": [LEFT.size]}, rle(RIGHT | LEFT), rle(EMPTY)],
        ],
    }
    write_json(folder / f"{NAME}_manual.json", content)
    video: dict[str, Any] = {
        "video_path": f"sav_000/sav_train/sav_000/{NAME}.mp4",
        "anno_path": f"sav_000\\sav_train\\sav_000\\{NAME}_manual.json",
        "objects": {"1": {"formated": "The  late || one é "}, "0": {"formated": "the left one"}},
    }
    write_json(root / "Ref-SAV.json", {NAME: video})
    return root


def test_every_fourth_frame_is_annotated(tmp_path):
    layout = RefSAV(write_train(tmp_path))
    assert recognise(tmp_path) == [RefSAV]
    assert layout.splits() == ("train",)
    record = records(layout, "train")[NAME]
    assert record.media == FileMedia(tmp_path / "sam_v_full" / "sav_train" / "sav_000" / f"{NAME}.mp4")
    assert [(each.id, each.text, each.object_ids) for each in record.expressions] == [
        ("0", "the left one", ("0",)),
        ("1", "The  late || one é ", ("1",)),
    ]
    annotations = truth(record)
    assert annotations.annotated == {0, 4, 8}
    assert [(each.id, each.anno_id) for each in annotations.objects] == [("0", "0"), ("1", "4"), ("2", "9")]


def test_a_sample_is_the_file_itself_with_masks_in_the_annotated_frames(tmp_path):
    sample = fo.Dataset.from_dir(str(write_train(tmp_path)), dataset_type=types.RefSAV).first()
    assert sample.filepath == str(tmp_path / "sam_v_full" / "sav_train" / "sav_000" / f"{NAME}.mp4")
    assert sample["frames_dir"] is None
    assert sample.metadata.total_frame_count == 10
    assert [n for n, frame in sample.frames.items() if frame.ground_truth is not None] == [1, 5, 9]
    found = {masklet.expression.id: masklet for masklet in read_masklets(sample, "ground_truth", exact=True)}
    assert found["1"].frames == (0, 4, 8)
    assert np.array_equal([found["1"].union(t) for t in (0, 4, 8)], [EMPTY, RIGHT, RIGHT | LEFT])
    assert np.array_equal([found["0"].union(t) for t in (0, 4, 8)], [LEFT, EMPTY, EMPTY])
    assert [each.expression_id for each in sample.frames[1].ground_truth.detections] == ["0", None]


def test_parts_of_sa_v_may_be_missing(tmp_path):
    root = write_train(tmp_path)
    video = {"video_path": "sav_001/sav_train/sav_001/x.mp4", "anno_path": "sav_train/sav_001/x.json", "objects": {}}
    listed = json.loads((root / "Ref-SAV.json").read_text(encoding="utf-8"))
    write_json(root / "Ref-SAV.json", {"x": video, **listed})
    importer = importer_for(RefSAV)(root, skip_failures=True)
    dataset = fo.Dataset()
    dataset.add_importer(importer)
    assert dataset.values("video_name") == [NAME]
    (failure,) = importer.failures
    assert "sav_train/sav_001/x.mp4 is missing" in failure.error


def _cut_off(root: Path) -> None:
    path = root / "sam_v_full" / "sav_train" / "sav_000" / f"{NAME}.mp4"
    path.write_bytes(path.read_bytes()[:100])


def _ragged(root: Path) -> None:
    path = root / "sam_v_full" / "sav_train" / "sav_000" / f"{NAME}_manual.json"
    write_json(path, {"video_height": 34.0, "video_width": 48.0, "masklet": [[None], [None, None]]})


@pytest.mark.parametrize(
    ("damage", "message"),
    [(_cut_off, f"{NAME}.mp4"), (_ragged, "different numbers of objects")],
)
def test_damaged_videos_can_be_skipped_and_are_named(tmp_path, damage: Callable[[Path], None], message):
    root = write_train(tmp_path)
    damage(root)
    importer = importer_for(RefSAV)(root, skip_failures=True)
    importer.import_samples(fo.Dataset())
    (failure,) = importer.failures
    assert message in failure.error


def test_masks_of_more_frames_than_the_video_has_are_refused(tmp_path):
    root = write_train(tmp_path, num_frames=8)
    with pytest.raises(DatasetError, match=rf"'{NAME}': masks of 9 frames, but .*\.mp4 has 8 frames"):
        importer_for(RefSAV)(root).import_samples(fo.Dataset())


def test_the_evaluation_part_has_long_and_short_captions(tmp_path):
    folder = tmp_path / "ref_sav_eval"
    frames = ["100000", "100004", "100008"]
    expressions = {
        "0": {"exp": "A long caption", "obj_id": [0], "anno_id": [10000], "type_id": 0},
        "1": {"exp": "short", "obj_id": [1], "anno_id": [10007], "type_id": 1},
    }
    video = {"expressions": expressions, "vid_id": "sav_1", "frames": frames}
    write_json(folder / "meta_expressions_valid.json", {"videos": {"sav_1": video}})
    write_json(folder / "mask_dict.json", {"10000": [rle(LEFT), None, None], "10007": [None, rle(RIGHT), None]})
    write_images(folder / "videos" / "sav_1", frames, SIZE)
    assert RefSAV(tmp_path).splits() == ("eval",)
    write_json(tmp_path / "Ref-SAV.json", {})  # SA-V itself is large, and not there
    assert RefSAV(tmp_path).splits() == ("eval",)
    sample = fo.Dataset.from_dir(str(tmp_path), dataset_type=types.RefSAV).first()
    assert sample.tags == ["eval"]
    assert sample["frame_names"] == ["100000.jpg", "100004.jpg", "100008.jpg"]
    assert sample.metadata.frame_rate == 6
    labels = sample["expressions"].detections
    assert [(label.type_id, label.kind) for label in labels] == [(0, "long caption"), (1, "short caption")]
    found = {masklet.expression.id: masklet for masklet in read_masklets(sample, "ground_truth", exact=True)}
    assert np.array_equal(found["1"].union(1), RIGHT)
