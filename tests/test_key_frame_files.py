"""Files of GLUS' selector: key frames with numbers of frames, label files, score files; what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path

import fiftyone as fo
import pytest

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.fields import FieldError
from tests.fields_data import video_sample

NAMES = ["00000.png", "00005.png", "00010.png", "00015.png"]


@pytest.fixture
def videos(dataset) -> fo.Dataset:
    """A video whose frames are every fifth one of a longer video, with two expressions, and a file of 4 frames."""
    video_sample(dataset, "/videos/every_fifth.mp4", texts=["the dog", "a cat"], frame_names=NAMES)
    video_sample(dataset, "/videos/plain.mp4", texts=["the dog"])
    return dataset


def write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def key_frames(dataset: fo.Dataset, name: str = "kf") -> list[list[int | None]]:
    dataset.reload()
    return dataset.values(f"expressions.detections.{name}_key_frame")


def test_values_are_numbers_in_the_names_of_frames_and_no_indices(videos, tmp_path):
    path = write(tmp_path / "kf.json", {"every_fifth_0": 15, "plain_0": 1, "gone_7": 3})
    report = rv.import_key_frames(videos, path, "kf")
    assert key_frames(videos) == [[4, None], [2]]
    assert (report.num_expressions, report.num_missing, report.unknown) == (2, 1, ["gone_7"])
    assert "1 entries are of no expression of these samples: gone_7" in str(report)
    assert fields.read_key_frames(videos.first(), "kf") == {"0": 3}
    assert rv.export_key_frames(videos, tmp_path / "out.json", "kf") == 2
    assert json.loads((tmp_path / "out.json").read_text()) == {"every_fifth_0": 15, "plain_0": 1}
    with pytest.raises(FileExistsError, match="overwrite=True"):
        rv.export_key_frames(videos, tmp_path / "out.json", "kf")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"every_fifth_0": 3},
            r"every_fifth_0: there is no frame 3, the names .* are 0 to 15 \(4 frames\)",
        ),
        ({"every_fifth_0": -1}, "there is no frame -1"),
        ({"plain_0": 4}, r"plain_0: there is no frame 4, the names of the frames are 0 to 3"),
        ({"plain_0": 1.0}, "the key frame is 1.0, not the whole number"),
        ('{"plain_0": NaN}', "the key frame is nan, not the whole number"),
        ({"plain_0": "00001"}, "the key frame is '00001', not the whole number"),
        ({"other_0": 1}, "has nothing of these samples: its entries are other_0"),
        ([1, 2], "holds no JSON object of key frames"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_wrong_key_frame_files_are_refused_before_anything_is_written(videos, tmp_path, content, message):
    with pytest.raises(DatasetError, match=message):
        rv.import_key_frames(videos, write(tmp_path / "kf.json", content), "kf")
    assert videos.get_field("expressions.detections.kf_key_frame") is None


def test_a_video_of_one_frame_has_key_frame_0(dataset, tmp_path):
    video_sample(dataset, "/videos/one.mp4", num_frames=1)
    rv.import_key_frames(dataset, write(tmp_path / "kf.json", {"one_0": 0}), "kf")
    assert key_frames(dataset) == [[1]]


def test_label_files_come_back_as_they_were_written(videos, tmp_path):
    labels = [0.25, None, 1, 0.0]
    write(tmp_path / "labels" / "every_fifth" / "1.json", labels)
    write(tmp_path / "labels" / "gone" / "0.json", labels)
    report = rv.import_pseudo_labels(videos, tmp_path / "labels", "glus")
    assert (report.num_expressions, report.num_missing, report.unknown) == (1, 2, ["gone/0"])
    assert fields.read_frame_list(videos.first(), "glus", "ious") == {"1": (0.25, None, 1.0, 0.0)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([0.5, 0.5], r"plain/0.json holds 2 labels, but the video has 4 frames: make the labels again"),
        ([0.5] * 5, "holds 5 labels, but the video has 4 frames"),
        ("[0.1, NaN, 0.2, 0.3]", "the label of frame 1 is nan, not a number in"),
        ([0, 0, 1.5, 0], "the label of frame 2 is 1.5"),
        ([0, 0, "1", 0], "the label of frame 2 is '1'"),
        ([0, 0, True, 0], "the label of frame 2 is True"),
        ({"iou": 1}, "holds no list of labels"),
    ],
)
def test_wrong_label_files_are_refused_before_anything_is_written(videos, tmp_path, content, message):
    write(tmp_path / "every_fifth" / "0.json", [0.0] * 4)
    write(tmp_path / "plain" / "0.json", content)
    with pytest.raises(DatasetError, match=message):
        rv.import_pseudo_labels(videos, tmp_path, "glus")
    assert videos.get_field("expressions.detections.glus_ious") is None


def test_a_folder_without_labels_of_the_samples(videos, tmp_path):
    with pytest.raises(DatasetError, match="there is no folder"):
        rv.import_pseudo_labels(videos, tmp_path / "gone", "glus")
    with pytest.raises(DatasetError, match="has nothing of these samples: its entries are none"):
        rv.import_pseudo_labels(videos, tmp_path, "glus")


def test_scores_are_one_file_per_frame(videos, tmp_path):
    fields.declare_key_frames(videos, "kf")
    fields.write_key_frames(videos.first(), "kf", {"0": 1}, {"0": [0.5, 0.75, float("-inf"), 0.1]})
    assert rv.export_frame_scores(videos, tmp_path, "kf") == 3
    files = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.json"))
    assert files == [f"every_fifth/0/{name}.json" for name in ("00000", "00005", "00015")]
    assert json.loads((tmp_path / files[1]).read_text()) == {"iou": 0.75}
    with pytest.raises(DatasetError, match="no frame has a score in 'other'"):
        rv.export_frame_scores(videos, tmp_path, "other")
    with pytest.raises(DatasetError, match="no expression has a key frame in 'other'"):
        rv.export_key_frames(videos, tmp_path / "kf.json", "other")


def test_scores_of_another_number_of_frames_are_refused(videos, tmp_path):
    fields.declare_key_frames(videos, "kf")
    fields.write_key_frames(videos.first(), "kf", {"0": 1}, {"0": [0.5, 0.75, 0.1]})
    with pytest.raises(DatasetError, match="'0' of every_fifth has scores of 3 frames in 'kf', but the video has 4"):
        rv.export_frame_scores(videos, tmp_path / "scores", "kf")
    assert not (tmp_path / "scores").exists()


def test_key_frames_outside_of_the_video_and_clips_are_refused(videos, tmp_path):
    fields.declare_key_frames(videos, "kf")
    fields.write_key_frames(videos.first(), "kf", {"0": 7}, {})
    with pytest.raises(FieldError, match=r"key frame 8 of expression '0' in 'kf' is outside of frames 1 to 4"):
        fields.read_key_frames(videos.first(), "kf")
    with pytest.raises(FieldError, match="key frames belong to whole videos"):
        rv.export_key_frames(videos.to_clips("expressions"), tmp_path / "kf.json", "kf")


def test_imported_key_frames_replace_chosen_ones_and_are_not_replaced_unasked(videos, tmp_path):
    path = write(tmp_path / "kf.json", {"plain_0": 0})
    rv.import_key_frames(videos, path, "kf")
    with pytest.raises(rv.FieldExistsError, match="import_key_frames.*overwrite=True"):
        rv.select_key_frames(videos, "middle", field="kf")
    assert key_frames(videos) == [[None, None], [1]]
    fields.write_key_frames(videos.last(), "kf", {"0": 2}, {"0": [0.0, 0.1, 0.9, 0.2]})
    rv.import_key_frames(videos, path, "kf")
    assert key_frames(videos)[1] == [1]
    assert fields.read_frame_list(videos.last(), "kf", "key_frame_scores") == {}


def test_a_key_frame_of_two_expressions_is_refused(dataset, tmp_path):
    for folder in ("first", "second"):
        video_sample(dataset, f"/{folder}/plain.mp4", texts=["the dog"])
    with pytest.raises(DatasetError, match="two expressions are 'plain_0': import the videos one by one"):
        rv.import_key_frames(dataset, write(tmp_path / "kf.json", {"plain_0": 1}), "kf")
    assert dataset.get_field("expressions.detections.kf_key_frame") is None
