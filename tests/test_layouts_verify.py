"""`refvos verify` on datasets in miniature: all figures are met and known, also of nastier ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fiftyone_refvos.verify import verify
from fiftyone_refvos.verify.report import CaseReport
from tests.shared import shared_path

DATASETS = ("LVVIS", "ReVOS", "ReasonVOS", "Ref-DAVIS17", "Ref-SAV", "Refer-YouTube-VOS", "mevis")


def run(path: Path) -> CaseReport:
    (report,) = verify([path])
    return report


def copied(name: str, to: Path) -> Path:
    shutil.copytree(shared_path("data", name), to, copy_function=shutil.copyfile)
    for path in (to, *to.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return to


def content(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", DATASETS)
def test_every_figure_is_met_and_none_is_unknown(name):
    report = run(shared_path("data", name))
    assert report.passed, "\n".join(report.lines())
    assert "not known" not in report.not_compared.values()


def test_frames_that_nobody_annotated_are_told_from_empty_ones(tmp_path):
    root = copied("Refer-YouTube-VOS", tmp_path / "copy")
    (root / "train" / "Annotations" / "3cef2ff745" / "00010.png").unlink()
    expected = content(root / "expected_counts.json")
    video = expected["splits"]["train"]["videos"]["3cef2ff745"]
    report = run(root)
    assert {stage.name for stage in report.stages if not stage.passed} == {
        "frames_without_annotation_file",
        "area_per_frame",
    }
    video["frames_without_annotation_file"] = ["00010"]
    for expression in video["expressions"].values():
        expression["area_per_frame"][2] = None
    (root / "expected_counts.json").write_text(json.dumps(expected))
    assert run(root).passed


def test_sparse_annotation_and_repeated_ids_are_counted(tmp_path):
    root = copied("ReasonVOS", tmp_path / "copy")
    (root / "Annotations" / "BURST_c1088cc7bc33_1" / "00003.png").unlink()
    shutil.rmtree(root / "Annotations" / "MeViS_c687ebf7339f_1")
    meta = content(root / "meta_expressions.json")
    for expression in meta["videos"]["c1088cc7bc33"]["expressions"]:
        expression["exp_id"] %= 2
    (root / "meta_expressions.json").write_text(json.dumps(meta))
    expected = content(root / "expected_counts.json")
    videos = expected["videos"]
    del videos["c1088cc7bc33"]["annotation_folders"]["BURST_c1088cc7bc33_1"]["00003"]
    del videos["c687ebf7339f"]["annotation_folders"]["MeViS_c687ebf7339f_1"]
    videos["c1088cc7bc33"]["n_distinct_exp_ids"] = 2
    (root / "expected_counts.json").write_text(json.dumps(expected))
    report = run(root)
    assert report.passed, "\n".join(report.lines())


def test_void_pixels_are_counted(tmp_path):
    root = copied("Ref-DAVIS17", tmp_path / "copy")
    path = root / "valid" / "Annotations" / "carousel" / "00003.png"
    with Image.open(path) as image:
        labels = np.array(image)
    labels[:2, :5] = 255
    Image.fromarray(labels, "L").save(path)
    (stage,) = (stage for stage in run(root).stages if not stage.passed)
    assert stage.name == "void_pixels_per_frame"
    assert "valid carousel: [0, 0, 0, 10, 0, 0, 0], expected [0, 0, 0, 0, 0, 0, 0]" in stage.note


def test_an_object_that_is_never_seen_has_areas(tmp_path):
    root = copied("Ref-SAV", tmp_path / "copy")
    path = next(root.rglob("*_manual.json"))
    parsed = content(path)
    for row in parsed["masklet"]:
        row[1] = None
    path.write_text(json.dumps(parsed))
    expected = content(root / "expected_counts.json")
    expected["train"]["sav_000001"]["areas"]["1"] = [0] * 6
    (root / "expected_counts.json").write_text(json.dumps(expected))
    report = run(root)
    assert report.passed, "\n".join(report.lines())


def test_a_wrong_category_is_found(tmp_path):
    root = copied("LVVIS", tmp_path / "copy")
    expected = content(root / "expected_counts.json")
    expected["categories"].remove("kite")
    (root / "expected_counts.json").write_text(json.dumps(expected))
    assert [stage.name for stage in run(root).stages if not stage.passed] == ["categories, unknown"]


def test_a_damaged_dataset_is_recognised_and_named(tmp_path):
    root = copied("Ref-DAVIS17", tmp_path / "copy")
    shutil.rmtree(root / "DAVIS")
    shutil.rmtree(root / "davis_text_annotations")
    (root / "meta_expressions" / "valid" / "meta_expressions.json").write_text("{")
    report = run(root)
    assert not report.passed
    assert any("meta_expressions.json is not valid JSON" in line for line in report.lines())


def rewritten(root: Path, change: Callable[[Any], None]) -> CaseReport:
    """The report on a dataset whose figures were changed."""
    expected = content(root / "expected_counts.json")
    change(expected)
    (root / "expected_counts.json").write_text(json.dumps(expected))
    return run(root)


def test_what_is_not_there_may_be_counted_as_0_or_left_out(tmp_path):
    def change(expected: Any) -> None:
        expected["splits"]["train"]["by_type"]["3"] = 0

    report = rewritten(copied("ReVOS", tmp_path / "revos"), change)
    assert report.passed, "\n".join(report.lines())

    def add_folder(expected: Any) -> None:
        expected["videos"]["c687ebf7339f"]["annotation_folders"]["MeViS_c687ebf7339f_9"] = {}

    report = rewritten(copied("ReasonVOS", tmp_path / "reasonvos"), add_folder)
    assert report.passed, "\n".join(report.lines())


def test_the_order_of_the_files_of_a_submission_is_free_and_the_files_are_not(tmp_path):
    root = copied("Refer-YouTube-VOS", tmp_path / "copy")
    assert rewritten(root, lambda expected: expected["splits"]["valid"]["submission_files"].reverse()).passed
    report = rewritten(root, lambda expected: expected["splits"]["valid"]["submission_files"].pop())
    assert [stage.name for stage in report.stages if not stage.passed] == ["submission_files"]


def test_a_masklet_that_no_expression_names_is_not_compared(tmp_path):
    root = copied("mevis", tmp_path / "copy")
    path = root / "train" / "mask_dict.json"
    path.write_text(json.dumps({**content(path), "77": content(path)["0"]}))

    def change(expected: Any) -> None:
        train = expected["splits"]["train"]
        train["masklets"]["77"] = train["masklets"]["0"]
        train["n_masklets"] += 1

    report = rewritten(root, change)
    assert report.passed, "\n".join(report.lines())
    assert report.not_compared["masklets 77"] == "no expression names them"


def test_an_object_without_pixels_and_expression_counts_in_ref_sav_and_so_do_figures_beside_its_splits(tmp_path):
    root = copied("Ref-SAV", tmp_path / "copy")
    path = next(root.rglob("*_manual.json"))
    parsed = content(path)
    for row in parsed["masklet"]:
        row.append(None)
    path.write_text(json.dumps(parsed))

    def change(expected: Any) -> None:
        video = expected["train"]["sav_000001"]
        video["areas"]["3"] = [0] * 6
        video["n_masklets"] = 4
        expected["n_videos"] = 3

    report = rewritten(root, change)
    assert report.passed, "\n".join(report.lines())
    report = rewritten(root, lambda expected: expected.update(n_videos=4))
    assert [stage.name for stage in report.stages if not stage.passed] == ["n_videos"]
