"""`refvos verify` on A2D-Sentences, JHMDB-Sentences and the refCOCO family in miniature: every figure is met."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import scipy.io

from fiftyone_refvos.verify import verify
from tests.shared import shared_path

FIGURES = {
    "a2d_sentences": {"videos", "split", "n_frames", "annotated", "n_train_samples", "n_test_samples"},
    "jhmdb_sentences": {"videos", "n_frames", "query", "area", "n_samples"},
    "refer": {"n_refs", "n_sentences", "refs_per_split", "polygon_mask_area", "union_polygon_area", "n_images"},
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_met(name):
    (report,) = verify([shared_path("data", name)])
    assert report.passed, "\n".join(report.lines())
    assert {stage.name for stage in report.stages} >= FIGURES[name]
    assert "not known" not in report.not_compared.values()


def copied(name: str, to: Path) -> Path:
    shutil.copytree(shared_path("data", name), to, copy_function=shutil.copyfile)
    for path in (to, *to.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return to


def rewritten(root: Path, change: Callable[[Any], None], name: str = "expected_counts.json") -> None:
    content = json.loads((root / name).read_text(encoding="utf-8"))
    change(content)
    (root / name).write_text(json.dumps(content))


def failed(root: Path) -> list[str]:
    (report,) = verify([root])
    return [stage.name for stage in report.stages if not stage.passed]


def test_a_mask_with_a_pixel_less_is_found(tmp_path):
    root = copied("refer", tmp_path / "refer")

    def change(expected: Any) -> None:
        expected["grefcoco"]["union_polygon_area"]["3"] += 1

    rewritten(root, change)
    assert failed(root) == ["union_polygon_area"]


def test_images_without_references_are_not_imported_and_missing_figures_not_compared(tmp_path):
    root = copied("refer", tmp_path / "refer")
    for name in ("refcoco", "refcoco+", "refcocog", "grefcoco"):

        def add(instances: Any) -> None:
            instances["images"].append({"id": 5, "height": 9, "width": 9, "file_name": "alone.jpg"})
            shape = {"category_id": 1, "iscrowd": 0, "segmentation": [[1, 1, 5, 1, 5, 5]]}
            instances["annotations"].append({"id": 3, "image_id": 5, **shape})

        rewritten(root / name, add, "instances.json")

    def change(expected: Any) -> None:
        expected["n_images"] += 1
        expected["n_annotations"] += 1
        expected["refcoco"]["polygon_mask_area"]["3"] = 10

    rewritten(root, change)
    assert failed(root) == []

    def leave_out(expected: Any) -> None:
        del expected["n_images"], expected["n_annotations"], expected["refcoco"]["polygon_mask_area"]["3"]

    rewritten(root, leave_out)
    assert failed(root) == []


def test_annotated_frames_in_which_nothing_is_seen_are_samples(tmp_path):
    root = copied("jhmdb_sentences", tmp_path / "jhmdb")
    path = next(root.rglob("wave/*/puppet_mask.mat"))
    masks = scipy.io.loadmat(path)["part_mask"]
    masks[:, :, 4] = 0
    scipy.io.savemat(path, {"part_mask": masks})

    def change(expected: Any) -> None:
        expected["videos"]["tiny_wave_u_nm_np1_fr_med_0"]["area"]["5"] = 0

    rewritten(root, change)
    assert failed(root) == []
