"""Key frames for GLUS: the numbers in the names of the frames, not their positions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest

from fiftyone_refvos import types
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.fields import write_masklets
from fiftyone_refvos.masklet import Expression, FrameResult, Masklet
from tests.mevis_folder import SIZE, rle, write_mevis

FRAMES = ["00012", "00015", "00018"]


def make_dataset(tmp_path: Path, names: dict[str, list[str]]) -> fo.Dataset:
    """Videos of two expressions each, without truth that matters."""
    videos = {
        name: {
            "expressions": {str(n): {"exp": f"thing {n}", "obj_id": [0], "anno_id": [0]} for n in range(2)},
            "frames": frames,
        }
        for name, frames in names.items()
    }
    masks: dict[str, Any] = {"0": [rle(np.ones(SIZE, dtype=bool))] * 3}
    return fo.Dataset.from_dir(str(write_mevis(tmp_path / "in", videos, masks)), dataset_type=types.MeViS)


def predict(sample: fo.Sample, key_frames: dict[str, int]) -> None:
    expressions = [Expression(each.expression_id, each.label) for each in sample["expressions"].detections]
    results = [
        FrameResult(t, each.id, np.ones((1, *SIZE), bool), np.ones(1, np.float32), True)
        for t in range(3)
        for each in expressions
    ]
    write_masklets(sample, "model", Masklet.collect(results, expressions, key_frames=key_frames))


def export(dataset: fo.Dataset, path: Path, field: str = "model") -> Any:
    dataset.export(str(path), dataset_type=types.GlusKeyFrames, masklets_field=field)
    return json.loads((path if path.suffix else path / "key_frames.json").read_text())


def test_key_frames_are_the_numbers_in_the_names_of_frames(tmp_path):
    dataset = make_dataset(tmp_path, {"a_b": FRAMES, "c": ["00000", "00001", "00002"]})
    predict(dataset.first(), {"0": 0, "1": 1})
    predict(dataset.last(), {"0": 2, "1": 1})
    expected = {"a_b_0": 12, "a_b_1": 15, "c_0": 2, "c_1": 1}
    assert export(dataset, tmp_path / "out") == expected
    assert export(dataset, tmp_path / "mine.json") == expected


def test_expressions_without_key_frame_are_left_out_and_counted(tmp_path, caplog):
    dataset = make_dataset(tmp_path, {"v": FRAMES})
    predict(dataset.first(), {"1": 2})
    assert export(dataset, tmp_path / "out") == {"v_1": 18}
    assert "1 expressions have no key frame" in caplog.text


def test_a_field_without_any_key_frame_is_refused(tmp_path):
    dataset = make_dataset(tmp_path, {"v": FRAMES})
    with pytest.raises(ExportError, match="no expression has a key frame"):
        export(dataset, tmp_path / "out", "ground_truth")
    assert not any((tmp_path / "out").iterdir())


def test_frames_without_number_and_keys_that_stand_for_two_are_refused(tmp_path):
    dataset = make_dataset(tmp_path, {"v": ["frame0001", "frame0002", "frame0003"]})
    predict(dataset.first(), {"0": 1})
    with pytest.raises(ExportError, match="expression '0' of 'v': its key frame is called 'frame0002'"):
        export(dataset, tmp_path / "out")
    twice = make_dataset(tmp_path / "twice", {"v": FRAMES, "v_0": FRAMES})
    sample = twice.first()
    sample["expressions"].detections[1]["expression_id"] = "0_1"
    sample.save()
    for sample in twice:
        predict(sample, {each.expression_id: 0 for each in sample["expressions"].detections})
    with pytest.raises(ExportError, match="expression '1' of 'v_0' and expression '0_1' of 'v' would both be"):
        export(twice, tmp_path / "out")
