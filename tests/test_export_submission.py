"""Submissions and Sa2VA's results: complete or refused, the same bytes every time, and read back as they are."""

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

import fiftyone_refvos as rv
from fiftyone_refvos import types
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.fields import read_masklets, write_masklets
from fiftyone_refvos.import_predictions import import_predictions
from fiftyone_refvos.masklet import Expression, FrameResult, Masklet
from tests.exported import miniature
from tests.mevis_folder import SIZE, box_mask, simple_mevis
from tests.shared import shared_path

SUBMISSIONS = [types.MeViSSubmission, types.ReferYouTubeVOSSubmission]


@pytest.fixture
def dataset(tmp_path) -> fo.Dataset:
    """Two videos of 4 frames; `model` has all three expressions of the first one, `ground_truth` has everything."""
    dataset = fo.Dataset.from_dir(str(simple_mevis(tmp_path / "in")), dataset_type=types.MeViS)
    predict(dataset.first(), ["0", "1", "2"], range(4))
    return dataset


def predict(sample: fo.Sample, ids: list[str], frames: range) -> None:
    results = [
        FrameResult(t, id_, box_mask(t, int(id_), 6, 7)[None] & (t != 1), np.ones(1, np.float32), t != 1)
        for t in frames
        for id_ in ids
    ]
    write_masklets(sample, "model", Masklet.collect(results, [Expression(id_, texts(sample)[id_]) for id_ in ids]))


def texts(sample: fo.Sample) -> dict[str, str]:
    return {each.expression_id: each.label for each in sample["expressions"].detections}


def export(samples: Any, path: Path, dataset_type: type, field: str = "model") -> None:
    # Of an export_dir with .zip FiftyOne would make an archive around the archive.
    exporter = dataset_type().get_dataset_exporter_cls()(str(path), masklets_field=field)
    samples.export(dataset_exporter=exporter)


def unions(sample: fo.Sample, field: str) -> dict[str, list[Any]]:
    found = {each.expression.id: each for each in read_masklets(sample, field)}
    return {id_: [each.union(t).tolist() for t in range(4)] for id_, each in found.items()}


@pytest.mark.parametrize(("dataset_type", "top"), [(types.MeViSSubmission, ""), (SUBMISSIONS[1], "Annotations/")])
def test_every_frame_of_every_expression_is_a_grey_png(dataset, tmp_path, dataset_type, top):
    dataset.limit(1).export(str(tmp_path / "out"), dataset_type=dataset_type, masklets_field="model")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["submission.zip"]
    with zipfile.ZipFile(tmp_path / "out" / "submission.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{top}one/{id_}/0000{t}.png" for id_ in "012" for t in range(4)]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_DEFLATED}
        for t in range(4):
            with Image.open(io.BytesIO(archive.read(f"{top}one/1/0000{t}.png"))) as image:
                assert (image.mode, image.size) == ("L", SIZE[::-1])
                assert np.array_equal(np.array(image), 255 * (box_mask(t, 1, 6, 7) & (t != 1)))


def test_a_submission_has_the_files_that_the_server_wants(tmp_path):
    expected = json.loads(shared_path("data", "Refer-YouTube-VOS", "expected_counts.json").read_text())
    dataset = miniature("Refer-YouTube-VOS", types.ReferYouTubeVOS, tmp_path / "cache", split="valid")
    for sample in dataset:
        size = (sample["frame_size"][1], sample["frame_size"][0])
        empty = [np.zeros((1, *size), bool)] * len(sample["frame_names"])
        wanted = [Expression(id_, text) for id_, text in texts(sample).items()]
        results = [
            FrameResult(t, each.id, mask, np.zeros(1, np.float32), False)
            for each in wanted
            for t, mask in enumerate(empty)
        ]
        write_masklets(sample, "model", Masklet.collect(results, wanted))
    export(dataset, tmp_path / "mine.zip", types.ReferYouTubeVOSSubmission)
    with zipfile.ZipFile(tmp_path / "mine.zip") as archive:
        assert sorted(archive.namelist()) == sorted(_files(expected))


def _files(counts: Any) -> list[str]:
    """All paths of PNGs below a submission in the figures of a miniature."""
    if isinstance(counts, str):
        return [counts] if counts.startswith("Annotations/") else []
    values = counts.values() if isinstance(counts, dict) else counts if isinstance(counts, list) else []
    return [name for value in values for name in _files(value)]


@pytest.mark.parametrize("dataset_type", [*SUBMISSIONS, types.Sa2VAResults])
def test_what_was_exported_is_imported_as_it_was(dataset, tmp_path, dataset_type):
    export(dataset, tmp_path / "out", dataset_type, "ground_truth")
    (file,) = (tmp_path / "out").iterdir()
    import_predictions(dataset, file, "again")
    for sample in dataset:
        assert unions(sample, "again") == unions(sample, "ground_truth")
    assert rv.evaluate(dataset, "again", eval_key="self").metrics()["J&F"] == 1.0


@pytest.mark.parametrize("dataset_type", SUBMISSIONS)
def test_the_same_masks_give_the_same_bytes(dataset, tmp_path, dataset_type):
    for name in ("a.zip", "b.zip"):
        export(dataset, tmp_path / name, dataset_type, "ground_truth")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize("dataset_type", [*SUBMISSIONS, types.Sa2VAResults])
def test_what_is_missing_is_named_and_nothing_is_written(dataset, tmp_path, dataset_type):
    predict(dataset.last(), ["0"], range(4))
    predict(dataset.last(), ["1"], range(2, 4))
    with pytest.raises(ExportError, match="'two' is not complete") as caught:
        export(dataset, tmp_path / "out", dataset_type)
    assert "'1' ('the right one') in 2 of 4 frames, the first is '00000'" in str(caught.value)
    assert "'2' ('both') in 4 of 4 frames" in str(caught.value)
    assert "'0'" not in str(caught.value)
    assert not (tmp_path / "out" / "submission.zip").exists()
    assert sorted(path.name for path in tmp_path.rglob("*.part")) == []


@pytest.mark.parametrize("dataset_type", SUBMISSIONS)
def test_no_archive_is_packed_into_another(dataset, tmp_path, dataset_type):
    with pytest.raises(ExportError, match=r"pass a folder as export_dir, for .*mine/submission\.zip"):
        dataset.export(str(tmp_path / "mine.zip"), dataset_type=dataset_type, masklets_field="ground_truth")
    assert not any(tmp_path.glob("mine*"))


def test_hidden_frames_are_missing_ones(dataset, tmp_path):
    with pytest.raises(ExportError, match="in 1 of 4 frames, the first is '00003'"):
        export(dataset.limit(1).match_frames(fo.ViewField("frame_number") < 4), tmp_path, types.MeViSSubmission)


def test_typed_prompts_are_no_part_of_a_submission(dataset, tmp_path):
    sample = dataset.first()
    for each in sample["expressions"].detections[1:]:
        each["kind"] = "prompt"
    sample.save()
    export(dataset.limit(1), tmp_path / "out.zip", types.MeViSSubmission)
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert archive.namelist() == [f"one/0/0000{t}.png" for t in range(4)]
    none = dataset.limit(1).filter_labels("expressions", fo.ViewField("kind") == "prompt")
    with pytest.raises(ExportError, match="no expression to submit"):
        export(none, tmp_path / "none.zip", types.MeViSSubmission)
    assert not (tmp_path / "none.zip").exists()


@pytest.mark.parametrize("dataset_type", SUBMISSIONS)
def test_names_that_lead_out_of_the_archive_are_refused(dataset, tmp_path, dataset_type):
    sample = dataset.first()
    sample["expressions"].detections[0]["expression_id"] = "../../x"
    sample.save()
    with pytest.raises(ValueError, match="leads out of"):
        export(dataset, tmp_path / "out.zip", dataset_type, "ground_truth")
    assert not (tmp_path / "out.zip").exists()


def test_sa2va_results_have_what_its_programs_read(dataset, tmp_path):
    export(dataset.limit(1), tmp_path / "mine.json", types.Sa2VAResults)
    content = json.loads((tmp_path / "mine.json").read_text())
    assert list(content) == ["one"]
    assert list(content["one"]) == ["0", "1", "2"]
    entry = content["one"]["1"]
    assert {key: value for key, value in entry.items() if key != "prediction_masks"} == {
        "index": 1,
        "video_id": "one",
        "exp_id": "1",
        "text_prediction": "[SEG]",
        "frames": ["00000", "00001", "00002", "00003"],
        "exp": "the right one",
    }
    assert [each["size"] for each in entry["prediction_masks"]] == [list(SIZE)] * 4
