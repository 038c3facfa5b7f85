"""MLLMSeg against the published program: every stage of the golden cases, and all tensor names."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from fiftyone_refvos.verify import verify
from fiftyone_refvos.verify.mllmseg import MASK_TOLERANCE, PROBABILITY_TOLERANCE, TOLERANCE
from tests.shared import shared_path

RES_STAGES = {
    "special_ids",
    "img0.question",
    "img0.answer",
    "img0.prompt",
    "img0.input_ids",
    "img0.labels",
    "img0.pixel_values_s8",
    "img0.vit_embeddings",
    "img0.vit_layer0",
    "img0.vit_last",
    "img0.projected_tokens",
    "img0.llm_hidden_image",
    "img0.llm_hidden_seg",
    "img0.llm_hidden_text_tail",
    "img0.generated_ids",
    "img0.dec.dysample_offset_raw",
    "img0.dec.llm_up32",
    "img0.dec.v2l",
    "img0.dec.fused",
    "img0.dec.vl_q0",
    "img0.dec.conv1_out_q0_s2",
    "img0.mask_logits_q0",
    "img0.prob_full",
    "img0.mask_full",
    "img0.rec_box_xyxy",
    "img0.eval_inter_union",
    "single0.mask_full",
}
GRES_STAGES = {
    "img0.answer_gt",
    "img0.answer_predicted",
    "img0.argmax_pass1",
    "img0.argmax_pass2",
    "img0.hidden_before_token_pass1",
    "img0.hidden_before_token_pass2",
    "img0.output_ids_pass1",
    "img1.pass1_mask_logits_s4",
    "img1.pred_no_target",
    "img1.mask_full_raw",
    "img1.mask_full_final",
    "reference_eval",
}


@pytest.mark.parametrize(
    ("case", "stages"),
    [("res_internlm2", RES_STAGES), ("res_qwen2", RES_STAGES), ("gres_internlm2", GRES_STAGES)],
)
def test_every_stage_of_inference_agrees_with_the_published_program(case: str, stages: set[str]) -> None:
    (report,) = verify([shared_path("golden", "mllmseg", case)])
    assert report.passed, "\n".join(report.lines())
    assert {stage.name for stage in report.stages} >= stages
    assert report.not_compared == {}
    assert max(stage.tolerance for stage in report.stages) <= TOLERANCE == 1e-4


def test_probabilities_and_masks_have_the_tighter_tolerances() -> None:
    (report,) = verify([shared_path("golden", "mllmseg", "res_qwen2")])
    tolerances = {stage.name: stage.tolerance for stage in report.stages}
    assert tolerances["img0.prob_full"] == PROBABILITY_TOLERANCE == 2e-5
    assert tolerances["img0.mask_full"] == MASK_TOLERANCE == 2 / 75_000
    assert tolerances["img0.rec_box_xyxy"] == 0


@pytest.mark.parametrize(
    ("model", "count"), [("8B_RES", 631), ("8B_GRES", 631), ("1B", 695), ("2B", 575), ("4B", 839)]
)
def test_all_published_tensor_names_are_accounted_for(model: str, count: int) -> None:
    name = f"MLLMSeg_InternVL2_5_{model}.published_keys.json.gz"
    (report,) = verify([shared_path("golden", "mllmseg", name)])
    assert report.passed, "\n".join(report.lines())
    assert report.stages[0].note == f"{count} accounted for"


def test_a_tensor_more_less_or_of_another_shape_fails_the_table(tmp_path: Path) -> None:
    source = shared_path("golden", "mllmseg", "MLLMSeg_InternVL2_5_2B.published_keys.json.gz")
    table = json.loads(gzip.decompress(source.read_bytes()))
    shapes = table["keys"]
    del shapes["res_decoder.upsample_adapter_l.init_pos"]
    shapes["res_decoder.conv3.weight"] = [1, 1, 5, 5]
    shapes["mlp1.3.bias"] = [7]
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(table))
    (report,) = verify([path])
    note = report.stages[0].note
    assert not report.passed
    assert "1 missing: mask_decoder.upsample_adapter_l.init_pos" in note
    assert "1 unexpected: mask_decoder.conv3.weight" in note
    assert "internvl.model.multi_modal_projector.linear_2.bias is [7], expected [2048]" in note


def test_wrong_values_ids_and_pixels_fail_the_case(tmp_path: Path) -> None:
    source = shared_path("golden", "mllmseg", "res_qwen2")
    case = Path(shutil.copytree(source, tmp_path / "case", copy_function=shutil.copyfile))
    case.chmod(0o755)
    golden = load_file(case / "outputs.safetensors")
    golden["img0.vit_last"][3, 5] += 3 * TOLERANCE
    golden["img0.labels"][-3] += 1
    golden["img0.mask_full"][0, :2, :3] ^= 1
    golden["img0.more"] = golden["img0.labels"].clone()
    save_file(golden, case / "outputs.safetensors")
    (report,) = verify([case])
    failed = [stage.name for stage in report.stages if not stage.passed]
    assert failed == ["img0.vit_last", "img0.labels", "img0.mask_full"]
    assert report.not_compared == {"img0.more": "unknown name"}
