"""`refvos verify` on golden metrics: all of it is compared, and a wrong digit is found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fiftyone_refvos.verify import verify
from fiftyone_refvos.verify.report import CaseReport
from tests.shared import shared_path


def run(path: Path) -> CaseReport:
    (report,) = verify([path])
    return report


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to, copy_function=shutil.copyfile)
    for path in (to, *to.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return to


def test_the_golden_cases_pass():
    videos = run(shared_path("golden", "vos_metrics", "case_a"))
    assert videos.passed, "\n".join(videos.lines())
    assert len(videos.stages) > 50
    images = run(shared_path("golden", "res_metrics"))
    assert images.passed, "\n".join(images.lines())
    assert len(images.stages) == 7


def test_a_case_is_told_by_its_files_not_by_its_name(tmp_path):
    case = shared_path("golden", "vos_metrics", "case_a")
    for number, name in enumerate(("mevis", "ref_sav", "sav", "reasonvos")):
        copied(case / name, tmp_path / f"set-{number}")
    reports = list(verify([tmp_path]))
    assert [report.kind for report in reports] == ["video metrics"] * 4
    assert all(report.passed for report in reports)
    assert not any(report.not_compared for report in reports)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("mevis", ("per_frame", "e42e6cafdbe1_0", "F", 1)),
        ("mevis", ("dataset", "n_expressions")),
        ("davis2017", ("unsupervised", "per_object", "boxes_1", "J-Recall")),
        ("davis2017", ("vos_benchmark_skip_first_last_true", "dataset_percent", "JF")),
        ("revos", ("reference_png255_predictions", "dataset", "overall", "R")),
        ("ref_davis17", ("annotators", "2", "per_frame", "two-cats_3", "J", 4)),
        ("sav", ("skip_first_last_false", "per_object_percent", "sav_010000/001", "F")),
    ],
)
def test_a_wrong_number_fails(name, keys, tmp_path):
    case = copied(shared_path("golden", "vos_metrics", "case_a", name), tmp_path / "case")
    expected = json.loads((case / "expected.json").read_text())
    at: Any = expected
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] += 1e-8
    (case / "expected.json").write_text(json.dumps(expected))
    report = run(case)
    assert [stage.passed for stage in report.stages].count(False) == 1


def test_null_is_nan_and_nothing_else(tmp_path):
    case = copied(shared_path("golden", "vos_metrics", "case_a", "davis2017"), tmp_path / "case")
    expected = json.loads((case / "expected.json").read_text())
    expected["semi-supervised"]["dataset"]["J-Decay"] = None
    (case / "expected.json").write_text(json.dumps(expected))
    failed = [stage for stage in run(case).stages if not stage.passed]
    assert [stage.name for stage in failed] == ["semi-supervised"]
    assert failed[0].error == float("inf")


def test_a_broken_case_says_what_is_wrong(tmp_path):
    case = copied(shared_path("golden", "vos_metrics", "case_a", "mevis"), tmp_path / "case")
    predictions = json.loads((case / "predictions.json").read_text())
    name = next(iter(predictions))
    predictions[name]["0"].pop()
    (case / "predictions.json").write_text(json.dumps(predictions))
    assert f"{name}: prediction '0' has masks for 11 frames, 12 are annotated" in (run(case).error or "")
