"""The key frame selector against the published program: every stage of the golden cases, and all tensor names."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from fiftyone_refvos.verify import verify
from fiftyone_refvos.verify.selector import TOLERANCE
from tests.shared import shared_path

STAGES = {
    "tokenization",
    "a1c0ffee0101/pixel_values_frame0",
    "a1c0ffee0101/vision_features",
    "a1c0ffee0101/cluster_index_2",
    "a1c0ffee0101/merged_tokens",
    "a1c0ffee0101/projected_tokens",
    "a1c0ffee0101/1/input_ids",
    "b2deadbeef/0/inputs_embeds_frame0",
    "b2deadbeef/0/hidden_states_at_score",
    "b2deadbeef/0/mlp_linear4",
    "b2deadbeef/0/logits_at_score",
    "b2deadbeef/0/scores",
    "score_files b2deadbeef/0",
    "key_frames.json",
    "glus_start_index",
}


def test_every_stage_of_inference_agrees_with_the_published_program() -> None:
    (report,) = verify([shared_path("golden", "kfs", "infer_a")])
    assert report.passed, "\n".join(report.lines())
    assert {stage.name for stage in report.stages} >= STAGES
    assert report.not_compared == {}
    assert all(stage.tolerance in (0, TOLERANCE) for stage in report.stages)


def test_clusters_are_those_of_the_published_program() -> None:
    (report,) = verify([shared_path("golden", "kfs", "cluster_a")])
    assert report.passed, "\n".join(report.lines())
    assert len(report.stages) == 3 * 8
    assert report.not_compared == {}


def test_all_published_tensor_names_are_accounted_for() -> None:
    names = {"": 331, "_training": 850, "_chat_univi_base": 325, "_vision_tower": 592}
    for suffix, count in names.items():
        (report,) = verify([shared_path("golden", "kfs", f"published_keys{suffix}.json.gz")])
        assert report.passed, "\n".join(report.lines())
        assert report.stages[0].note == f"{count} accounted for"


def test_a_tensor_more_less_or_of_another_shape_fails_the_table(tmp_path: Path) -> None:
    shapes = json.loads(gzip.decompress(shared_path("golden", "kfs", "published_keys_training.json.gz").read_bytes()))
    beginning = "base_model.model.model.layers.3.self_attn"
    del shapes[f"{beginning}.v_proj.lora_B.default.weight"]
    shapes[f"{beginning}.k_proj.lora_A.default.weight"] = [8, 4096]
    shapes[f"{beginning}.q_proj.lora_B.default.weight"] = [4096, 9]
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(shapes))
    (report,) = verify([path])
    note = report.stages[0].note
    assert not report.passed
    assert "1 missing: llama.layers.3.self_attn.v_proj.lora_B.default.weight" in note
    assert "1 unexpected: llama.layers.3.self_attn.k_proj.lora_A.default.weight" in note
    assert "llama.layers.3.self_attn.q_proj.lora_B.default.weight is [4096, 9], expected [4096, 8]" in note


def test_one_wrong_label_and_one_wrong_value_fail_the_case(tmp_path: Path) -> None:
    golden_case = shared_path("golden", "kfs", "cluster_a")
    case = Path(shutil.copytree(golden_case, tmp_path / "case", copy_function=shutil.copyfile))
    case.chmod(0o755)
    golden = load_file(case / "outputs.safetensors")
    golden["blobs/cluster_index"][0, 7] += 1
    golden["fraction/merged"][0, 0, 0] += 2 * TOLERANCE
    golden["more/merged"] = golden["fraction/merged"].clone()
    save_file(golden, case / "outputs.safetensors")
    (report,) = verify([case])
    assert [stage.name for stage in report.stages if not stage.passed] == ["blobs/cluster_index", "fraction/merged"]
    assert report.not_compared == {"more/merged": "unknown name"}


def test_a_training_step_agrees_with_the_published_program_at_every_stage() -> None:
    case = shared_path("golden", "kfs", "train_a")
    (report,) = verify([case])
    assert report.passed, "\n".join(report.lines())
    names = {stage.name for stage in report.stages}
    assert names >= load_file(case / "outputs.safetensors").keys()
    assert names >= {"conversations", "trainable", "ce_loss", "iou_loss", "loss", "grad_norm", "loss_after_step"}
    assert all(stage.tolerance in (0, TOLERANCE) for stage in report.stages)
    assert report.not_compared == {}


def test_pseudo_labels_are_those_of_the_published_rule() -> None:
    (report,) = verify([shared_path("golden", "kfs", "pseudo_label_a")])
    assert report.passed, "\n".join(report.lines())
    assert report.kind == "IoU pseudo-labels"
    assert len([stage for stage in report.stages if stage.tolerance == 0]) == 4
    assert report.not_compared == {}


def test_one_wrong_pseudo_label_fails_the_case(tmp_path: Path) -> None:
    golden_case = shared_path("golden", "kfs", "pseudo_label_a")
    case = Path(shutil.copytree(golden_case, tmp_path / "case", copy_function=shutil.copyfile))
    path = case / "outputs" / "iou_labels" / "e5feedaaaa" / "2.json"
    labels = json.loads(path.read_text())
    labels[1] = 0.0  # absent and nothing predicted: 1 in the published rule
    path.write_text(json.dumps(labels))
    (report,) = verify([case])
    assert [stage.name for stage in report.stages if not stage.passed] == ["iou_labels/e5feedaaaa/2.json"]
