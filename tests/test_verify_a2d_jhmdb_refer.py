"""`refvos verify` on A2D-Sentences, JHMDB-Sentences and the refCOCO family in miniature: every figure is met."""

from __future__ import annotations

import json
import shutil

import pytest

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


def test_a_mask_with_a_pixel_less_is_found(tmp_path):
    folder = tmp_path / "refer"
    shutil.copytree(shared_path("data", "refer"), folder, copy_function=shutil.copyfile)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    expected = json.loads((folder / "expected_counts.json").read_text())
    expected["grefcoco"]["union_polygon_area"]["3"] += 1
    (folder / "expected_counts.json").write_text(json.dumps(expected))
    (report,) = verify([folder])
    assert [stage.name for stage in report.stages if not stage.passed] == ["union_polygon_area"]
