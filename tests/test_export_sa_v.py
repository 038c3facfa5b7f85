"""SA-V's JSON: the facts as published, and SAM 2's own training reader on what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest

from fiftyone_refvos import types
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.formats.sa_v import SaV
from tests.export_records import decoded, files_of, two_objects, video, write
from tests.mevis_folder import SIZE, box_mask
from tests.shared import shared_path


def content(root: Path, name: str = "one") -> dict[str, Any]:
    return json.loads((root / "train" / "Annotations" / f"{name}_manual.json").read_text())


def sam2_reader(root: Path) -> Any:
    from training.dataset.vos_raw_dataset import JSONRawDataset

    return JSONRawDataset(str(root / "train" / "JPEGImages"), str(root / "train" / "Annotations"))


def test_the_facts_of_a_published_file_come_out_again(tmp_path):
    folder = shared_path("data", "Ref-SAV")
    dataset = fo.Dataset.from_dir(
        str(folder), dataset_type=types.RefSAV, split="train", cache_dir=str(tmp_path / "c")
    )
    dataset.export(str(tmp_path / "out"), dataset_type=types.SAV, masklets_field="ground_truth")
    original = json.loads(next(folder.rglob("*_manual.json")).read_text())
    (written,) = (tmp_path / "out" / "train" / "Annotations").iterdir()
    again = json.loads(written.read_text())
    assert again.pop("fps") == 6
    for key in ("video_id", "video_environment"):  # the importer names videos as Ref-SAV.json does
        del original[key], again[key]
    assert again.keys() == original.keys()
    for key, value in original.items():
        assert again[key] == value, key
    images = sorted((tmp_path / "out" / "train" / "JPEGImages").rglob("*.jpg"))
    assert [path.name for path in images] == [f"{n:05d}.jpg" for n in range(24)]


def test_sam2_reads_frames_and_masks(tmp_path):
    root = write(SaV, tmp_path / "out", two_objects(tmp_path))
    reader = sam2_reader(root)
    assert reader.video_names == ["one"]
    clip, loader = reader.get_video(0)
    assert [frame.frame_idx for frame in clip.frames] == [0, 1, 2]
    assert all(Path(frame.image_path).is_file() for frame in clip.frames)
    masks = loader.load(0)
    assert np.array_equal(masks[0], box_mask(5, 3, 12, 12))
    assert np.array_equal(masks[1], box_mask(10, 10, 6, 6))  # they overlap
    assert int(loader.load(2)[1].sum()) == 0  # absent


def test_frames_with_a_regular_step_keep_their_neighbours(tmp_path):
    masks = [box_mask(t, t, 5, 5) if t % 3 == 0 else None for t in range(8)]
    stems = [f"{t}" for t in range(8)]
    root = write(SaV, tmp_path / "out", video(tmp_path, {"a": masks}, annotated=[0, 3, 6], stems=stems))
    assert content(root)["fps"] == 8
    clip, loader = sam2_reader(root).get_video(0)
    assert [frame.frame_idx for frame in clip.frames] == [0, 3, 6]
    assert np.array_equal(loader.load(6)[0], box_mask(6, 6, 5, 5))
    assert len(files_of(root / "train" / "JPEGImages")) == 8


@pytest.mark.parametrize("annotated", [[1, 2], [0, 1, 4], [0, 5, 10]])
def test_other_annotated_frames_are_written_alone(tmp_path, annotated):
    stems = [f"{t:02d}" for t in range(11)]
    masks = [box_mask(t, t, 5, 5) if t in annotated else None for t in range(11)]
    root = write(SaV, tmp_path / "out", video(tmp_path, {"a": masks}, annotated=annotated, stems=stems))
    clip, loader = sam2_reader(root).get_video(0)
    assert [frame.frame_idx for frame in clip.frames] == list(range(len(annotated)))
    for n, t in enumerate(annotated):
        assert np.array_equal(loader.load(n)[0], box_mask(t, t, 5, 5))
        written = (root / "train" / "JPEGImages" / "one" / f"{n:05d}.jpg").read_bytes()
        assert written == (tmp_path / "images" / "one" / f"{t:02d}.jpg").read_bytes()


def test_every_frame_has_every_object_and_never_null(tmp_path):
    masks = [None, box_mask(0, 0, 40, 40)[: SIZE[0]], None]
    root = write(SaV, tmp_path / "out", video(tmp_path, {"x": masks, "never": [None] * 3}))
    facts = content(root)
    assert [[decoded(rle).sum() for rle in row] for row in facts["masklet"]] == [[0, 0], [33 * 40, 0], [0, 0]]
    assert facts["masklet_id"] == [0, 1]
    assert facts["masklet_size_abs"] == [1320.0, 0.0]
    assert facts["masklet_size_bucket"] == ["medium", "small"]
    assert facts["masklet_visibility_changes"] == [1, 0]
    assert facts["masklet_first_appeared_frame"] == [1.0, None]
    assert facts["masklet_frame_count"] == [3, 3]
    assert facts["masklet_type"] == ["manual", "manual"]
    assert facts["masklet_num"] == 2


def test_masklets_of_a_model_are_automatic(tmp_path):
    root = write(SaV, tmp_path / "out", two_objects(tmp_path, scores={"1": 0.5, "2": 0.25}))
    assert content(root)["masklet_type"] == ["auto", "auto"]


def test_names_with_slashes_are_flat_and_stay_apart(tmp_path):
    root = write(SaV, tmp_path / "out", two_objects(tmp_path, name="UVO/all/x"))
    assert content(root, "UVO_all_x")["video_id"] == "UVO_all_x"
    with pytest.raises(ExportError, match="'a_b' and 'a/b' would both be written as 'a_b'"):
        write(SaV, tmp_path / "two", two_objects(tmp_path, name="a/b"), two_objects(tmp_path, name="a_b"))


def test_what_the_reader_cannot_take_is_refused(tmp_path):
    with pytest.raises(ExportError, match="'one' has no object"):
        write(SaV, tmp_path / "out", video(tmp_path, {}))
    with pytest.raises(ValueError, match="leads out of"):
        write(SaV, tmp_path / "three", two_objects(tmp_path, name="../escape"))
