"""ReasonVOS: names with underscores, repeated ids, objects that are annotated in different frames."""

from __future__ import annotations

from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

import fiftyone_refvos as rv
from fiftyone_refvos import types
from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.layouts.reason_vos import ReasonVOS
from fiftyone_refvos.datasets.registry import recognise
from fiftyone_refvos.fields import read_masklets
from tests.label_images import CORNER, LEFT, RIGHT, label_map, masks_of, records, truth, write_json, write_label_maps
from tests.mevis_folder import SIZE, write_images

FRAMES = ["00012", "00015", "00018"]
EMPTY = np.zeros(SIZE, dtype=bool)


def said(obj_id: int | str, exp_id: int | str, text: str, is_sent: int = 1) -> dict[str, object]:
    return {"obj_id": obj_id, "exp_id": exp_id, "exp_text": text, "is_sent": is_sent}


def write_reason_vos(root: Path) -> Path:
    """Videos "v" and "v_1", so that VIPSeg_v_1_0 is an object of the latter."""
    videos = {
        "v": {
            "source": "VIPSeg",
            "frames": FRAMES,
            "expressions": [
                said(0, 0, "Which  one || is it?"),
                said("1", 0, "哪一个?"),
                said(1, "3", "the right one", is_sent=0),
                said(2, 4, "the one without a folder"),
                said(1, 0, "the same id once more"),
            ],
        },
        "v_1": {"source": "VIPSeg", "frames": FRAMES[:1], "expressions": [said(0, 7, "x")]},
    }
    write_json(root / "meta_expressions.json", {"videos": videos})
    for name, video in videos.items():
        write_images(root / "JPEGImages" / name, [*FRAMES] if name == "v" else FRAMES[:1])
        assert video["source"]
    annotations = root / "Annotations"
    write_label_maps(annotations / "VIPSeg_v_0", {"00012": label_map(_255=LEFT), "00018": label_map()}, "L")
    write_label_maps(annotations / "VIPSeg_v_1", {"00015": label_map(_1=RIGHT), "00018": label_map(_7=RIGHT)})
    write_label_maps(annotations / "VIPSeg_v_1_0", {"00012": label_map(_1=CORNER)})
    return root


def test_ids_are_unique_and_the_dataset_s_own_are_kept(tmp_path):
    layout = ReasonVOS(write_reason_vos(tmp_path))
    assert recognise(tmp_path) == [ReasonVOS]
    assert layout.splits() == ("test",)
    record = records(layout, "test")["v"]
    assert record.attributes == {"source": "VIPSeg"}
    found = [
        (each.id, each.attributes["exp_id"], each.object_ids, each.text, each.kind) for each in record.expressions
    ]
    assert found == [
        ("0_0", "0", ("0",), "Which  one || is it?", "sentence"),
        ("1_0", "0", ("1",), "哪一个?", "sentence"),
        ("3", "3", ("1",), "the right one", "phrase"),
        ("4", "4", ("2",), "the one without a folder", "sentence"),
        ("1_0_2", "0", ("1",), "the same id once more", "sentence"),
    ]
    assert [each.attributes["is_sent"] for each in record.expressions] == [1, 1, 0, 1, 1]


def test_folders_belong_to_the_video_and_the_object_whose_names_make_them(tmp_path):
    found = records(ReasonVOS(write_reason_vos(tmp_path)), "test")
    annotations = truth(found["v"])
    assert [(each.id, each.annotated) for each in annotations.objects] == [("0", {0, 2}), ("1", {1, 2}), ("2", set())]
    assert np.array_equal(masks_of(annotations, "0"), [LEFT, EMPTY, EMPTY])
    assert np.array_equal(masks_of(annotations, "1"), [EMPTY, RIGHT, RIGHT])
    assert annotations.annotated == {0, 1, 2}
    assert np.array_equal(masks_of(truth(found["v_1"]), "0"), [CORNER])


def test_every_expression_is_evaluated_in_the_frames_of_its_object(tmp_path):
    dataset = fo.Dataset.from_dir(str(write_reason_vos(tmp_path)), dataset_type=types.ReasonVOS)
    sample = dataset.first()
    assert sample["source"] == "VIPSeg"
    found = {masklet.expression.id: masklet for masklet in read_masklets(sample, "ground_truth", exact=True)}
    assert {id_: masklet.frames for id_, masklet in found.items()} == {
        "0_0": (0, 2),
        "1_0": (1, 2),
        "3": (1, 2),
        "1_0_2": (1, 2),
    }
    assert np.array_equal(found["0_0"].union(0), LEFT)
    assert not found["0_0"].union(2).any()
    assert np.array_equal(found["3"].union(1), RIGHT)


def test_the_truth_as_prediction_is_perfect(tmp_path):
    dataset = fo.Dataset.from_dir(str(write_reason_vos(tmp_path)), dataset_type=types.ReasonVOS)
    dataset.clone_frame_field("ground_truth", "copy")
    results = rv.evaluate(dataset, "copy", gt_field="ground_truth", eval_key="perfect", protocol="reasonvos")
    assert results.metrics()["J&F"] == 1
    assert sorted(row["expression_id"] for row in results.expressions) == ["0_0", "1_0", "1_0_2", "3", "7"]


@pytest.mark.parametrize("mode", ["1", "I;16", "RGB", "RGBA", "LA"])
def test_any_value_above_0_is_the_object_whatever_the_mode_of_the_image(tmp_path, mode):
    root = write_reason_vos(tmp_path)
    path = root / "Annotations" / "VIPSeg_v_0" / "00012.png"
    if mode == "I;16":
        Image.fromarray(LEFT.astype(np.uint16) * 256).save(path)
    else:
        Image.fromarray(LEFT).convert("L").convert(mode).save(path)
    with Image.open(path) as image:
        assert image.mode == mode
    assert np.array_equal(masks_of(truth(records(ReasonVOS(root), "test")["v"]), "0")[0], LEFT)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"obj_id": 0, "exp_id": 0}, "expression number 1 has no 'exp_text'"),
        ({"obj_id": [0], "exp_id": 0, "exp_text": "x"}, "'obj_id' is"),
        ("text", "expression number 1 has no"),
    ],
)
def test_a_damaged_expression_is_named(tmp_path, value, message):
    root = write_reason_vos(tmp_path)
    video = {"source": "VIPSeg", "frames": FRAMES, "expressions": [value]}
    write_json(root / "meta_expressions.json", {"videos": {"v": video}})
    with pytest.raises(DatasetError, match=message):
        records(ReasonVOS(root), "test")
