"""Masks of other programs into a field: every kind of file, what is found by name, and what goes wrong."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from fiftyone_refvos import types
from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.evaluate import evaluate
from fiftyone_refvos.fields import read_masklets
from fiftyone_refvos.import_predictions import import_predictions
from fiftyone_refvos.segment import FieldExistsError
from tests.mevis_folder import SIZE, box_mask, rle, simple_mevis
from tests.submissions import FRAMES, Png, as_folder, as_zip, check, pngs, prediction

AREA = np.full(SIZE, 255, dtype=np.uint8)


@pytest.fixture
def dataset(tmp_path) -> fo.Dataset:
    return fo.Dataset.from_dir(str(simple_mevis(tmp_path / "data")), dataset_type=types.MeViS)


@pytest.mark.parametrize("top", ["", "Annotations/"])
@pytest.mark.parametrize("value", [255, 1])
def test_a_submission_folder_or_archive_is_read(dataset, tmp_path, top, value):
    files = pngs(top=top, value=value)
    import_predictions(dataset, as_folder(tmp_path / "out", files), "theirs")
    check(dataset)
    report = import_predictions(dataset, as_zip(tmp_path / "out.zip", files), "zipped")
    check(dataset, "zipped")
    assert (report.num_videos, report.num_expressions, report.num_missing) == (2, 4, 2)
    assert str(report).startswith("4 masklets of 2 videos written to 'frames.zipped'; 2 expressions")


def test_what_was_imported_can_be_evaluated_and_is_recorded(dataset, tmp_path):
    view = dataset.filter_labels("expressions", fo.ViewField("expression_id") == "0")
    import_predictions(dataset, as_folder(tmp_path / "out", pngs()), "theirs")
    results = evaluate(view, "theirs", eval_key="theirs_eval")
    expected = np.mean([(prediction(t) & box_mask(5 + t, 3, 8, 9)).sum() / 80 for t in range(4)])
    assert results.metrics()["J"] == pytest.approx(expected)
    assert dataset.get_run_info("segment_theirs").config.model["path"] == str(tmp_path / "out")


def test_predictions_of_nested_video_names_are_found(tmp_path):
    root = simple_mevis(tmp_path / "data", ("UVO/all/-fb", "OVIS/x_1"))
    dataset = fo.Dataset.from_dir(str(root), dataset_type=types.MeViS)
    import_predictions(dataset, as_folder(tmp_path / "out", pngs(("UVO/all/-fb", "OVIS/x_1"))), "theirs")
    check(dataset)


def results_json(**changes: Any) -> dict[str, Any]:
    entry = {
        "index": 0,
        "video_id": "one",
        "exp_id": "0",
        "text_prediction": "It is [SEG].",
        "frames": FRAMES,
        "exp": "the left one",
        "prediction_masks": [rle(prediction(t)) for t in range(4)],
    } | changes
    return {video: dict.fromkeys(("0", "1"), entry) for video in ("one", "two")}


def test_results_of_sa2va_are_read(dataset, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results_json()))
    import_predictions(dataset, path, "theirs")
    check(dataset)


def youtube_vis(score: bool = True) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    facts = {
        "videos": [
            {"id": 7 + n, "file_names": [f"{name}/{frame}.jpg" for frame in FRAMES]}
            for n, name in enumerate(("one", "two"))
        ],
        "categories": [{"id": 3, "name": "The_left_one"}, {"id": 5, "name": "the right one"}],
    }
    entries = [
        {
            "video_id": video,
            "category_id": category,
            "segmentations": [rle(prediction(t)) for t in range(4)],
            **({"score": 0.25} if score else {}),
        }
        for video in (7, 8)
        for category in (3, 5)
    ]
    return facts, entries


def test_youtube_vis_results_are_found_by_names_and_texts_and_keep_their_scores(dataset, tmp_path):
    facts, entries = youtube_vis()
    (tmp_path / "instances.json").write_text(json.dumps(facts))
    (tmp_path / "results.json").write_text(json.dumps(entries))
    import_predictions(dataset, tmp_path / "results.json", "theirs", annotations=tmp_path / "instances.json")
    check(dataset)
    assert dataset.first()["expressions"].detections[0].theirs_score == 0.25
    with pytest.raises(DatasetError, match="annotations="):
        import_predictions(dataset, tmp_path / "results.json", "others")


def test_a_whole_youtube_vis_file_needs_no_other(dataset, tmp_path):
    facts, entries = youtube_vis(score=False)
    (tmp_path / "instances.json").write_text(json.dumps(facts | {"annotations": entries}))
    import_predictions(dataset, tmp_path / "instances.json", "theirs")
    check(dataset)


def test_several_objects_of_one_text_stay_apart(dataset, tmp_path):
    facts, entries = youtube_vis()
    (tmp_path / "instances.json").write_text(json.dumps(facts | {"annotations": [*entries, entries[0]]}))
    import_predictions(dataset, tmp_path / "instances.json", "theirs")
    (masklet, _) = read_masklets(dataset.first(), "theirs")
    assert masklet.num_objects == 2


def test_empty_masks_say_that_there_is_no_such_object(dataset, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results_json(prediction_masks=[None, rle(np.zeros(SIZE, bool)), None, None])))
    import_predictions(dataset, path, "theirs")
    assert dataset.first()["expressions"].detections[0].theirs_no_target is True


def test_videos_that_are_not_in_the_dataset_are_counted(dataset, tmp_path):
    report = import_predictions(dataset, as_folder(tmp_path / "out", pngs(("one", "three"))), "theirs")
    assert (report.num_videos, report.unknown_videos) == (1, ["three"])
    assert "1 videos of the file are not in the dataset: three" in str(report)
    with pytest.raises(DatasetError, match=r"it has three, the dataset has one, two"):
        import_predictions(dataset, as_folder(tmp_path / "else", pngs(("three",))), "else")
    assert "else" not in dataset.get_frame_field_schema()


def test_what_macos_adds_to_folders_and_archives_is_no_video(dataset, tmp_path):
    path = as_zip(tmp_path / "theirs.zip", pngs(top="Annotations/"))
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("__MACOSX/Annotations/one/0/._00000.png", "Annotations/._one.png", "Annotations/one/0/._0.png"):
            archive.writestr(name, b"attributes")
    assert import_predictions(dataset, path, "theirs").unknown_videos == []
    check(dataset)


def test_a_field_of_something_else_is_replaced_only_when_asked(dataset, tmp_path):
    folder = as_folder(tmp_path / "out", pngs())
    import_predictions(dataset, folder, "theirs")
    import_predictions(dataset, folder, "theirs")  # the same predictions again
    with pytest.raises(FieldExistsError, match="overwrite=True"):
        import_predictions(dataset, as_zip(tmp_path / "out.zip", pngs()), "theirs")
    with pytest.raises(FieldExistsError, match="ground_truth"):
        import_predictions(dataset, folder, "ground_truth")
    import_predictions(dataset, as_zip(tmp_path / "out.zip", pngs()), "theirs", overwrite=True)
    check(dataset)


def without(files: Png, name: str) -> Png:
    return {key: value for key, value in files.items() if key != name}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (without(pngs(), "two/1/00002.png"), r"no two/1/00002\.png for expression '1' of video 'two' \(1 of 4"),
        ({**pngs(), "two/1/00002.png": np.zeros((20, 20), np.uint8)}, r"two/1/00002\.png is 20x20, but .* 33x47"),
    ],
)
def test_missing_frames_and_other_sizes_are_errors_that_name_the_file(dataset, tmp_path, files, message):
    with pytest.raises(DatasetError, match=message):
        import_predictions(dataset, as_folder(tmp_path / "out", files), "theirs")
    with pytest.raises(DatasetError, match=message):
        import_predictions(dataset, as_zip(tmp_path / "out.zip", files), "zipped")
    report = import_predictions(dataset, tmp_path / "out", "skipped", skip_failures=True)
    assert [Path(each.filepath).stem.split(".")[0] for each in report.failures] == ["two"]
    assert dataset.last().frames[1].skipped is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prediction_masks": [rle(prediction(0))]}, "1 masks for 4 frames"),
        ({"prediction_masks": [rle(box_mask(0, 0, 2, 2, (20, 20)))] * 4}, "the mask is 20x20, but the frame 33x47"),
        ({"frames": ["00001", "00002", "00003", "00004"]}, "others than those of the dataset"),
        ({"prediction_masks": ["x"] * 4}, "no RLE"),
        ({"prediction_masks": None}, "'prediction_masks' is None"),
    ],
)
def test_damaged_results_name_video_and_expression(dataset, tmp_path, changes, message):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results_json(**changes)))
    with pytest.raises(DatasetError, match=message) as caught:
        import_predictions(dataset, path, "theirs")
    assert "'one'" in str(caught.value)
    assert "'0'" in str(caught.value)


@pytest.mark.parametrize("name", ["../escape.png", "/absolute/0/00000.png", "one/../../x.png", "C:\\x\\0\\0.png"])
def test_archives_with_hostile_names_are_refused(dataset, tmp_path, name):
    path = as_zip(tmp_path / "out.zip", pngs())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(DatasetError, match="leads out of"):
        import_predictions(dataset, path, "theirs")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data", "out.zip"]


def test_decompression_bombs_are_refused_before_they_are_unpacked(dataset, tmp_path):
    path = as_zip(tmp_path / "out.zip", without(pngs(), "one/0/00000.png"))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one/0/00000.png", bytes(64 * 2**20))
    with pytest.raises(DatasetError, match=r"00000\.png unpacks to more than"):
        import_predictions(dataset, path, "theirs")


def test_a_png_that_promises_a_giant_picture_is_refused(dataset, tmp_path):
    files = as_folder(tmp_path / "out", pngs())
    giant = io.BytesIO()
    Image.new("1", (30000, 30000)).save(giant, "PNG")  # 110 kB in the file, 900 MB as an image
    (files / "one" / "0" / "00000.png").write_bytes(giant.getvalue())
    with pytest.raises(DatasetError, match=r"00000\.png (is 30000x30000|cannot be read)"):
        import_predictions(dataset, files, "theirs")


def test_files_that_are_no_predictions_are_refused(dataset, tmp_path):
    (tmp_path / "broken.zip").write_bytes(b"PK no zip")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("broken.zip", "not a zip file"),
        ("broken.json", "broken.json"),
        ("empty", "it has none"),
        ("missing", "there is no file or folder"),
    ):
        with pytest.raises(DatasetError, match=message):
            import_predictions(dataset, tmp_path / name, "theirs")
    with pytest.raises(DatasetError, match="unknown format"):
        import_predictions(dataset, tmp_path / "empty", "theirs", format="png")  # type: ignore[arg-type]
    assert "theirs" not in dataset.get_frame_field_schema()


def test_overwriting_leaves_nothing_of_before_but_in_videos_that_fail(dataset, tmp_path):
    folder = as_folder(tmp_path / "all", pngs())
    import_predictions(dataset, as_folder(folder, {f"two/2/{name}.png": AREA for name in FRAMES}), "p")
    fewer = as_folder(tmp_path / "fewer", pngs(("one",)))
    import_predictions(dataset, fewer, "p", overwrite=True)
    assert [len(read_masklets(sample, "p")) for sample in dataset] == [2, 0]
    (as_folder(fewer, pngs(("two",))) / "two" / "0" / "00002.png").unlink()
    import_predictions(dataset, tmp_path / "all", "p", overwrite=True)
    import_predictions(dataset, fewer, "p", overwrite=True, skip_failures=True)
    assert [len(sample.frames[1]["p"].detections) for sample in dataset] == [2, 3]
    # What stays is not taken for what the file has.
    assert dataset.last()["expressions"].detections[0]["p_text"] is None
