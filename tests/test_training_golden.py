"""A training step and the mask losses agree with the published program, quantity by quantity."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fiftyone_refvos.verify import verify
from tests.shared import shared_path

STAGES = {
    "conversations",
    "input_ids",
    "labels",
    "attention_mask",
    "expanded_attention_mask",
    "inputs_embeds_sub4",
    "seg_hidden",
    "seg_embed",
    "low_res_sub4",
    "gt_mask_area",
    "gt_mask_max",
    "ce_loss",
    "mask_bce_loss",
    "mask_dice_loss",
    "contrastive_loss",
    "loss",
    "contrastive.num_positive",
    "contrastive.num_negative",
    "contrastive.losses",
    "contrastive.drawn_are_related",
    "trainable",
    "grad_norms.lora_A",
    "grad_norms.sam_mask_decoder.transformer",
    "total_grad_norm",
    "params_without_grad",
}


def test_training_step_agrees_with_the_published_program_at_every_stage() -> None:
    case = shared_path("golden", "glus", "train_step")
    (report,) = verify([case])
    assert report.passed, "\n".join(report.lines())
    assert report.kind == "GLUS training step"
    assert {stage.name for stage in report.stages} >= STAGES | load_file(case / "outputs.safetensors").keys()
    assert not report.not_compared


def test_mask_losses_agree_with_the_published_program() -> None:
    (report,) = verify([shared_path("golden", "glus", "losses")])
    assert report.passed, "\n".join(report.lines())
    assert [stage.name for stage in report.stages] == [f"{name}{n}" for n in range(3) for name in ("bce", "dice")]


@pytest.mark.parametrize("name", ["bce", "dice"])
def test_wrong_mask_loss_fails(tmp_path: Path, name: str) -> None:
    shutil.copytree(shared_path("golden", "glus", "losses"), tmp_path / "case")
    rows = json.loads((tmp_path / "case" / "expected.json").read_text())
    rows[1][name] *= 1 + 1e-4
    (tmp_path / "case" / "expected.json").unlink()
    (tmp_path / "case" / "expected.json").write_text(json.dumps(rows))
    (report,) = verify([tmp_path / "case"])
    assert [stage.name for stage in report.stages if not stage.passed] == [f"{name}1"]
