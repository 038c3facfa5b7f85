"""Exporting MeViS: masks stay with their frames for readers that sort the names as text."""

from __future__ import annotations

import json

import pytest

from fiftyone_refvos.exports.formats.mevis import MeViS
from fiftyone_refvos.exports.formats.revos import ReVOS
from tests.export_records import decoded, video, write
from tests.mevis_folder import box_mask


@pytest.mark.parametrize(
    ("stems", "written"),
    [
        (["00012", "00015", "00018"], ["00012", "00015", "00018"]),
        (["9", "12", "15"], ["09", "12", "15"]),
        (["frame9", "frame10", "frame11"], ["00000", "00001", "00002"]),
    ],
)
@pytest.mark.parametrize(
    ("format_cls", "meta", "images"),
    [
        (MeViS, "train/meta_expressions.json", "train/JPEGImages"),
        (ReVOS, "meta_expressions_train_.json", "JPEGImages"),
    ],
)
def test_masks_are_parallel_to_the_sorted_names_of_frames(tmp_path, format_cls, meta, images, stems, written):
    masks = [box_mask(t, 3, 4, 5) for t in range(3)]
    root = write(format_cls, tmp_path / "out", video(tmp_path, {"1": masks}, {"0": ("it", ["1"])}, stems=stems))
    assert json.loads((root / meta).read_text())["videos"]["one"]["frames"] == written
    assert sorted(path.stem for path in (root / images / "one").iterdir()) == written
    for name, original in zip(written, stems, strict=True):
        copied = (root / images / "one" / f"{name}.jpg").read_bytes()
        assert copied == (tmp_path / "images" / "one" / f"{original}.jpg").read_bytes()
    (stored,) = json.loads(next(root.rglob("mask_dict.json")).read_text().replace("\n", "")).values()
    assert [decoded(each).tolist() for each in stored] == [mask.tolist() for mask in masks]
