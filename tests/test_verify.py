"""`refvos verify`: golden cases pass at every stage, broken ones fail, and what is none is told apart."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fiftyone_refvos.cli import main
from fiftyone_refvos.verify import CaseReport, verify
from tests.shared import shared_path

# Stages that the two inference cases must have; more may come.
STAGES = {
    "clip_pixels_sub4",
    "sam_pixels_sub16",
    "clip_features",
    "clip_pooled",
    "visual_tokens",
    "expr0.fwd.input_ids",
    "expr0.fwd.seg_hidden",
    "expr0.fwd.seg_embed",
    "expr0.fwd.image_embed_sub4",
    "expr0.fwd.maskmem_sub4",
    "expr0.fwd.low_res_sub4",
    "expr0.final_masks_packed, video",
    "variant.checkpoint_gamma.masks_packed, video",
    "variant.demo_context.low_res_sub8",
    "variant.mem_stride1.low_res_sub8",
}


@pytest.mark.parametrize("case", ["plain", "keyframe"])
def test_glus_agrees_with_the_published_program_at_every_stage(case: str) -> None:
    (report,) = verify([shared_path("golden", "glus", case)])
    assert report.passed, "\n".join(report.lines())
    assert {stage.name for stage in report.stages} >= STAGES
    assert all(name.endswith(".picked_steps") for name in report.not_compared)


@pytest.mark.parametrize("name", ["schedules.json", "tokenizer_cases.json", "published_keys.json.gz"])
def test_glus_tables_agree(name: str) -> None:
    (report,) = verify([shared_path("golden", "glus", name)])
    assert report.passed, "\n".join(report.lines())


def test_parent_folder_is_searched_and_a_file_of_a_case_means_the_case(monkeypatch) -> None:
    from fiftyone_refvos.verify import cases

    found: list[Path] = []

    def record(case: Path, check: object) -> CaseReport:
        found.append(case)
        return CaseReport(case, "found")

    monkeypatch.setattr(cases, "_run", record)
    golden = shared_path("golden", "glus")
    list(verify([golden]))
    tables = ["published_keys.json.gz", "schedules.json", "tokenizer_cases.json"]
    names = ["keyframe", "losses", "plain", *tables, "train_step"]
    assert sorted(path.name for path in found) == names
    found.clear()
    frame = golden / "plain" / "inputs" / "frames" / "00000.png"
    list(verify([golden / "plain" / "outputs.safetensors", golden / "README.md", frame]))
    assert found == [golden / "plain"] * 2
    found.clear()
    list(verify([golden / "train_step" / "inputs" / "frames" / "vidA" / "00000.png"]))
    assert found == [golden / "train_step"]
    found.clear()
    kfs = golden.parent / "kfs"
    list(verify([kfs / "infer_a" / "inputs" / "tokenization.json", kfs / "infer_a" / "inputs"]))
    assert found == [kfs / "infer_a"]  # a folder within a case is none


def copied_table(folder: Path, name: str, change) -> Path:
    table = json.loads(shared_path("golden", "glus", name).read_text())
    change(table)
    path = folder / "renamed.json"
    path.write_text(json.dumps(table))
    return path


def test_wrong_value_fails_with_exit_status_1(tmp_path: Path, capsys) -> None:
    def change(table) -> None:
        table["context_script"]["22"][1] += 1

    path = copied_table(tmp_path, "schedules.json", change)
    assert main(["verify", str(path)]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"FAIL context frames, center +1 +<= 0 +differs first at 21", printed)
    assert re.search(r"ok +context frames, linspace", printed)


def test_wrong_id_fails(tmp_path: Path) -> None:
    shutil.copytree(shared_path("golden", "glus", "tokenizer"), tmp_path / "somewhere")
    path = copied_table(tmp_path, "tokenizer_cases.json", lambda table: table[3]["input_ids"].append(7))
    assert main(["verify", str(path)]) == 1


def test_tensor_that_is_not_accounted_for_fails(tmp_path: Path) -> None:
    import gzip

    shapes = json.loads(gzip.decompress(shared_path("golden", "glus", "published_keys.json.gz").read_bytes()))
    shapes["model.visual_model.maskmem_tpos_enc"] = [7, 1, 1, 65]
    path = tmp_path / "keys.json.gz"
    path.write_bytes(gzip.compress(json.dumps(shapes).encode()))
    (report,) = verify([path])
    assert not report.passed
    assert "maskmem_tpos_enc is [7, 1, 1, 65], expected [7, 1, 1, 64]" in report.stages[0].note


def test_nothing_recognised_is_exit_status_2(tmp_path: Path, capsys) -> None:
    (tmp_path / "README.md").write_text("words")
    (tmp_path / "data.json").write_text("[]")
    assert main(["verify", str(tmp_path), str(tmp_path / "README.md")]) == 2
    assert "nothing was recognised" in capsys.readouterr().err


def test_path_that_does_not_exist_is_an_error(tmp_path: Path, capsys) -> None:
    assert main(["verify", str(tmp_path / "gone")]) == 1
    assert "gone does not exist" in capsys.readouterr().err


def test_broken_case_is_reported_and_the_others_still_run(tmp_path: Path) -> None:
    for name in ("checkpoint", "clip_vision_tower", "inputs/frames"):
        (tmp_path / "a" / name).mkdir(parents=True)
    for name in ("steps.json", "outputs.safetensors", "sam2_config.yaml"):
        (tmp_path / "a" / name).write_text("{}")
    shutil.copy(shared_path("golden", "glus", "schedules.json"), tmp_path / "b.json")
    broken, fine = verify([tmp_path])
    assert (broken.passed, fine.passed) == (False, True)
    assert broken.error is not None


def test_report_catches_every_kind_of_difference() -> None:
    report = CaseReport(Path("case"), "kind")
    assert not report.passed  # nothing was compared
    report.add_values("same", torch.tensor([1.0, float("nan")]), torch.tensor([1.0, float("nan")]), 0.0)
    assert report.passed
    report.add_values("shape", torch.zeros(2), torch.zeros(3), 1.0)
    report.add_values("nan", torch.tensor([0.0]), torch.tensor([float("nan")]), 1.0)
    report.add_values("value", torch.tensor([0.2]), torch.tensor([0.0]), 0.1)
    report.add_equal("items", [1, 2], [1, 3])
    report.add_equal("length", [1], [1, 1])
    masks = np.zeros((2, 100, 100), dtype=bool)
    changed = masks.copy()
    changed[0, 0, :6] = True
    report.add_masks("masks", changed, masks)
    assert [stage.passed for stage in report.stages] == [True, *[False] * 7]
    assert report.stages[-2].error == pytest.approx(6e-4)
    assert report.stages[-1].error == pytest.approx(3e-4)
