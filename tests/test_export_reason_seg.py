"""LISA's ReasonSeg: what LISA draws and says of the files that are written."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import fiftyone as fo
import numpy as np
import pytest

from fiftyone_refvos import types
from fiftyone_refvos.datasets.records import ExpressionRecord
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.formats.reason_seg import ReasonSeg, is_sentence
from fiftyone_refvos.exports.media import MediaMode
from tests.export_records import draw, files_of, image, two_objects, video, write
from tests.mevis_folder import SIZE, box_mask, simple_mevis


def lisa_reads(image_path: Path) -> tuple[Any, list[str], bool]:
    """Mask, texts and `is_sentence` as LISA gets them: larger shapes first, 255 where nothing counts."""
    content = json.loads(Path(str(image_path).replace(".jpg", ".json")).read_text(encoding="utf-8"))
    assert cv2.imread(str(image_path)) is not None
    mask = np.zeros(SIZE, np.uint8)
    for shape in sorted(content["shapes"], key=lambda each: -_area(each["points"])):
        draw(mask, shape["points"], 255 if "ignore" in shape["label"].lower() else 1)
    return mask, content["text"], content["is_sentence"]


def _area(points: Any) -> int:
    mask = np.zeros(SIZE, np.uint8)
    draw(mask, points, 1)
    return int(mask.sum())


def test_every_expression_in_every_frame_has_an_image_and_a_file(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        root = write(ReasonSeg, tmp_path / "out", two_objects(tmp_path, name="a/b"))
    names = ["a_b_00012_0", "a_b_00012_1", "a_b_00012_2", "a_b_00015_0", "a_b_00015_1", "a_b_00015_2"]
    names += ["a_b_00018_0", "a_b_00018_2"]  # the small object is absent
    expected = [f"train/{name}.{suffix}" for name in names for suffix in ("jpg", "json")]
    assert files_of(root) == sorted([*expected, "explanatory/train.json"])
    assert json.loads((root / "explanatory" / "train.json").read_text()) == []
    assert "1 times an expression is left out" in caplog.text
    large, small = box_mask(5, 3, 12, 12), box_mask(10, 10, 6, 6)
    for id_, mask, text, sentence in (
        ("0", large, "the large one", False),
        ("1", small, "Is it small?", True),
        ("2", large | small, "both", False),
    ):
        drawn, texts, found = lisa_reads(root / "train" / f"a_b_00012_{id_}.jpg")
        assert np.array_equal(drawn, mask)
        assert (texts, found) == ([text], sentence)
    for name in names:
        original = tmp_path / "images" / "a_b" / f"{name.split('_')[2]}.jpg"
        assert (root / "train" / f"{name}.jpg").read_bytes() == original.read_bytes()


def test_void_is_ignored_outside_of_the_expression(tmp_path):
    ring = box_mask(5, 5, 20, 20) & ~box_mask(10, 10, 8, 8)
    void = box_mask(0, 0, 33, 12)
    exported = video(tmp_path, {"1": [ring] * 3}, {"0": ("ring", ["1"])}, void=[void, None, None], split="valid")
    root = write(ReasonSeg, tmp_path / "out", exported)
    assert np.array_equal(lisa_reads(root / "val" / "one_00012_0.jpg")[0], np.where(ring, 1, np.where(void, 255, 0)))
    assert np.array_equal(lisa_reads(root / "val" / "one_00015_0.jpg")[0], ring)


@pytest.mark.parametrize("seed", range(3))
def test_ragged_masks_of_several_objects_are_drawn_exactly(tmp_path, seed):
    random = np.random.default_rng(seed)
    one, two, void = (cv2.blur(random.random(SIZE), (5, 5)) > 0.5 for _ in range(3))
    exported = video(tmp_path, {"1": [one] * 3, "2": [two] * 3}, {"0": ("x", ["1", "2"])}, void=[void] * 3)
    root = write(ReasonSeg, tmp_path / "out", exported)
    drawn = lisa_reads(root / "train" / "one_00018_0.jpg")[0]
    assert np.array_equal(drawn, np.where(one | two, 1, np.where(void, 255, 0)))


def test_only_frames_for_which_an_expression_is_known_are_written(tmp_path):
    exported = two_objects(tmp_path, annotated=[0, 1])
    large, *_ = exported.record.expressions
    partly = replace(large, covered=frozenset({1}))
    root = write(
        ReasonSeg, tmp_path / "out", replace(exported, record=replace(exported.record, expressions=(partly,)))
    )
    assert [path for path in files_of(root) if path.endswith(".jpg")] == ["train/one_00015_0.jpg"]


def test_images_are_encoded_once_and_links_never_break(tmp_path):
    masks = {"1": box_mask(0, 0, 33, 47), "2": box_mask(32, 46, 1, 1)}
    root = write(ReasonSeg, tmp_path / "out", image(tmp_path, "a.png", masks), media=MediaMode.SYMLINK)
    root = root.rename(tmp_path / "moved")
    for id_, mask in masks.items():
        assert np.array_equal(lisa_reads(root / "train" / f"a_{id_}.jpg")[0], mask)
    exported = two_objects(tmp_path)
    links = write(ReasonSeg, tmp_path / "links", exported, media=MediaMode.SYMLINK).rename(tmp_path / "elsewhere")
    paths = sorted((links / "train").glob("*.jpg"))
    assert len(paths) == 8
    assert all(path.is_symlink() and path.is_file() for path in paths)


def test_lisa_finds_the_file_of_an_image_with_jpg_in_its_name(tmp_path):
    root = write(ReasonSeg, tmp_path / "out", image(tmp_path, "a.jpg.b", {"x.jpg": box_mask(1, 1, 4, 4)}))
    (path,) = (root / "train").glob("*.jpg")
    assert path.name == "a_jpg.b_x_jpg.jpg"
    assert lisa_reads(path)[1] == ["the thing x.jpg"]


@pytest.mark.parametrize(
    ("text", "kind", "attributes", "expected"),
    [
        ("the dog", None, {}, False),
        ("which one barks?", None, {}, True),
        ("It barks. ", None, {}, True),
        ("哪一只？", None, {}, True),
        ("the dog.", None, {"is_sent": 0}, False),
        ("what barks", "phrase", {"is_sent": 1}, True),
        ("the dog.", "phrase", {}, False),
        ("what barks", "sentence", {}, True),
        ("what barks", "reasoning", {}, False),
    ],
)
def test_sentences_are_told_from_phrases(text, kind, attributes, expected):
    assert is_sentence(ExpressionRecord("0", text, (), kind, attributes)) is expected


def test_names_stay_apart_and_inside(tmp_path):
    one, other = (two_objects(tmp_path, name=name, stems=("0", "1", "2")) for name in ("a/b", "a_b"))
    with pytest.raises(ExportError, match="would both be written as 'a_b_0_0'"):
        write(ReasonSeg, tmp_path / "out", one, other)
    with pytest.raises(ValueError, match="leads out of"):
        write(ReasonSeg, tmp_path / "two", two_objects(tmp_path, name="../escape"))
    assert list((tmp_path / "two" / "train").iterdir()) == []


def test_a_dataset_is_exported(tmp_path):
    dataset = fo.Dataset.from_dir(str(simple_mevis(tmp_path / "in")), dataset_type=types.MeViS)
    dataset.export(str(tmp_path / "out"), dataset_type=types.ReasonSeg, masklets_field="ground_truth")
    assert len(list((tmp_path / "out" / "train").glob("*.jpg"))) == 2 * (4 + 3 + 4)
    drawn = lisa_reads(tmp_path / "out" / "train" / "two_00001_2.jpg")[0]
    assert np.array_equal(drawn, box_mask(6, 3, 8, 9) | box_mask(10, 31, 23, 14))
