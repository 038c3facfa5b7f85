"""JHMDB-Sentences: folders of frames, Matlab masks, and a list of the frames that count."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
import scipy.io

from fiftyone_refvos import types
from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.fields import read_masklets
from tests.mevis_folder import SIZE, box_mask, picture

MASKS = np.stack([box_mask(2 + t, 5, 9, 11) for t in range(5)], axis=-1).astype(np.uint8)
FRAMES = "jhmdb_sentences/Rename_Images/wave/one"
MAT = "jhmdb_sentences/puppet_mask/wave/one/puppet_mask.mat"


def sample(frame: int, text: str = "a man waves", frames: str = FRAMES, mat: str = MAT) -> list[Any]:
    return ["one", f"{frames}/{frame:05d}.png", mat, 6, text]


def write_jhmdb(root: Path, samples: Sequence[Any], **variables: Any) -> Path:
    images = root / "Rename_Images" / "wave" / "one"
    images.mkdir(parents=True)
    for number in range(1, 7):
        picture(number).save(images / f"{number:05d}.png")
    write_mat(root, **variables)
    (root / "jhmdb_sentences_samples_metadata.json").write_text(json.dumps(samples), encoding="utf-8")
    return root


def write_mat(root: Path, **variables: Any) -> Path:
    path = root / "puppet_mask" / "wave" / "one" / "puppet_mask.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, variables or {"part_mask": MASKS}, do_compression=True)
    return path


def load(root: Path) -> fo.Dataset:
    return fo.Dataset.from_dir(str(root), dataset_type=types.JHMDBSentences)


def test_the_listed_frames_have_masks_and_the_others_no_truth(tmp_path):
    (found,) = load(write_jhmdb(tmp_path, [sample(2), sample(5)]))
    assert (found.tags, found["video_name"], found["action"]) == (["test"], "one", "wave")
    assert found["frame_names"] == [f"{number:05d}.png" for number in range(1, 7)]  # masks there are only five
    (label,) = found["expressions"].detections
    assert (label.label, label.object_ids, label.support) == ("a man waves", ["0"], [1, 6])
    (truth,) = read_masklets(found, "ground_truth", exact=True)
    assert truth.frames == (1, 4)
    assert np.array_equal(truth.union(1), box_mask(3, 5, 9, 11))
    assert np.array_equal(truth.union(4), box_mask(6, 5, 9, 11))
    assert [number for number, frame in found.frames.items() if frame["ground_truth"] is not None] == [2, 5]


def test_backslashes_and_several_sentences_of_a_video_are_taken(tmp_path):
    windows = {"frames": FRAMES.replace("/", "\\"), "mat": MAT.replace("/", "\\")}
    short = {"frames": FRAMES.partition("/")[2], "mat": MAT.partition("/")[2]}
    root = write_jhmdb(tmp_path, [sample(1, **windows), sample(1, "der Mann, grüßt", **short)])
    (found,) = load(root)
    assert [e.label for e in found["expressions"].detections] == ["a man waves", "der Mann, grüßt"]
    assert [truth.frames for truth in read_masklets(found, "ground_truth")] == [(0,), (0,)]


def test_masks_of_one_frame_have_two_axes(tmp_path):
    (found,) = load(write_jhmdb(tmp_path, [sample(1)], part_mask=MASKS[:, :, 0].astype(float)))
    (truth,) = read_masklets(found, "ground_truth", exact=True)
    assert np.array_equal(truth.union(0), box_mask(2, 5, 9, 11))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"other": MASKS}, r"puppet_mask\.mat has no variable 'part_mask', only other"),
        ({"part_mask": MASKS[1:]}, r"'part_mask' is 32x47x5, but the images are 33x47"),
        ({"part_mask": MASKS[:, :, :3]}, r"masks for 3 frames, and none for frame 5"),
        ({"part_mask": np.full((*SIZE, 5), "text", dtype=object)}, r"puppet_mask\.mat"),
    ],
)
def test_masks_that_do_not_fit_give_errors_that_name_the_file(tmp_path, variables, message):
    root = write_jhmdb(tmp_path, [sample(5)], **variables)
    with pytest.raises(DatasetError, match=message):
        load(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no matlab", r"puppet_mask\.mat cannot be read"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400), r"puppet_mask\.mat cannot be read"),
        (None, r"puppet_mask\.mat is missing"),
    ],
)
def test_damaged_matlab_files_give_errors_that_name_them(tmp_path, content, message):
    path = write_mat(write_jhmdb(tmp_path, [sample(1)]))
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([["one", 3]], "sample 0 is not"),
        ([sample(7)], r"00007\.png of .*video 'one' is missing"),
        ([sample(1, frames="jhmdb_sentences/../../other")], "leads out of"),
        ([sample(1, mat="/etc/passwd")], "leads out of"),
        ([sample(1), sample(2, frames="Rename_Images/wave/two")], "in several places"),
        ([sample(1, frames="Rename_Images/wave/two")], "the folder .*two is missing"),
    ],
)
def test_a_damaged_list_gives_errors_that_name_the_video(tmp_path, samples, message):
    with pytest.raises(DatasetError, match=message):
        load(write_jhmdb(tmp_path, samples))
