"""The training of MLLMSeg: one step as the published program takes it, its losses, and what trains."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fiftyone_refvos.models.mllmseg.loading import load_mllmseg
from fiftyone_refvos.models.mllmseg.prompt import IGNORED
from fiftyone_refvos.training.config import LoraConfig
from fiftyone_refvos.training.mllmseg.batch import ImageBatch, ImageConversation, collate
from fiftyone_refvos.training.mllmseg.config import MllmsegTrainingConfig
from fiftyone_refvos.training.mllmseg.losses import dice_per_mask, focal_per_mask, mean_over_masks, soft_iou_per_mask
from fiftyone_refvos.training.mllmseg.network import MllmsegTrainingNetwork
from fiftyone_refvos.verify import verify
from tests.shared import shared_path
from tests.small_mllmseg import checkpoint_of, golden_segmenter, noise_image

SMALL = MllmsegTrainingConfig(
    lora=LoraConfig(rank=2, alpha=4, dropout=0.0), dropout=0.0, gradient_checkpointing=False
)


def fresh(case: str, config: MllmsegTrainingConfig = SMALL) -> MllmsegTrainingNetwork:
    torch.manual_seed(0)
    return MllmsegTrainingNetwork(load_mllmseg(checkpoint_of(case), device="cpu", dtype="float32").network, config)


def batch_of(case: str, *absent: list[bool]) -> ImageBatch:
    """One conversation per list, about as many expressions."""
    writer = golden_segmenter(case).prompts
    samples = []
    for number, flags in enumerate(absent):
        prompt = writer.write([f"red dog {n}" for n in range(len(flags))], flags)
        masks = np.zeros((len(flags), 20 + number, 30), dtype=bool)
        masks[[not flag for flag in flags], 5:12, 4:20] = True
        samples.append(ImageConversation(str(number), noise_image(20 + number, 30), prompt, masks))
    return collate(samples, writer)


def test_every_quantity_of_a_training_step_agrees_with_the_published_program() -> None:
    (report,) = verify([shared_path("golden", "mllmseg", "train_lora")])
    assert report.passed, "\n".join(report.lines())
    assert report.not_compared == {}
    names = {stage.name for stage in report.stages}
    assert names >= {
        "labels_reference",
        "eval.reference.losses",
        "train.ignorepad.losses",
        "train.buffers_after.res_decoder.conv1.1.running_var",
        "trainable",
        "train.grad_norm_total",
        "grad.language_model.base_model.model.model.layers.0.attention.wqkv.lora_A.default.weight",
        "merged.language_model.model.layers.0.attention.wqkv.weight",
        "merged_infer.mask_logits_s4",
    }
    assert sum(name.startswith("grad_norms.") for name in names) == 77


def test_focal_loss_applies_the_sigmoid_a_second_time() -> None:
    probabilities, targets = torch.tensor([[[0.0, 1.0]]]), torch.tensor([[[1.0, 0.0]]])
    wrong = 0.25 * np.log(2) + 0.75 * np.log1p(np.e)
    assert focal_per_mask(probabilities, targets).item() == pytest.approx(wrong / 2)
    assert focal_per_mask(probabilities, probabilities).item() == 0


def test_losses_of_a_perfect_and_of_an_empty_mask_are_zero() -> None:
    masks = torch.zeros(2, 4, 5)
    masks[0, 1:3] = 1
    assert dice_per_mask(masks, masks).tolist() == [0, 0]
    assert focal_per_mask(masks, masks).tolist() == [0, 0]
    assert soft_iou_per_mask(masks, masks).tolist() == [1, 1]
    assert mean_over_masks(torch.zeros(0)).item() == 0


def test_absent_expressions_count_in_the_means_and_have_no_mask() -> None:
    network = fresh("gres_internlm2").eval()
    alone = network(batch_of("gres_internlm2", [False]))
    beside = network(batch_of("gres_internlm2", [False], [True, True, True]))
    assert [len(logits) for logits in beside.mask_logits] == [1, 0]
    for name in ("focal", "dice"):
        torch.testing.assert_close(beside.losses[name] * 4, alone.losses[name], atol=1e-5, rtol=0)
    torch.testing.assert_close(beside.iou * 4 - 3, alone.iou, atol=1e-5, rtol=0)


def test_a_batch_without_any_target_trains_the_answer_alone() -> None:
    network = fresh("gres_internlm2")
    output = network(batch_of("gres_internlm2", [True, True]))
    assert output.losses["total"] == output.losses["ce"] > 0
    output.losses["total"].backward()
    assert network.mllmseg.internvl.lm_head.weight.grad is not None


@pytest.mark.parametrize("case", ["gres_internlm2", "res_qwen2"])
def test_padding_changes_no_state_and_has_no_label(case: str) -> None:
    network = fresh(case).eval()
    batch = batch_of(case, [False], [False, False, False])
    length = int(batch.attention_mask[0].sum())
    assert length < batch.input_ids.shape[1]
    both, first = network(batch), network(batch_of(case, [False]))
    torch.testing.assert_close(both.hidden[0, :length], first.hidden[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(both.mask_logits[0], first.mask_logits[0], atol=1e-4, rtol=0)
    assert (batch.labels[~batch.attention_mask] == IGNORED).all()
    assert batch.position_ids[0].max() == length - 1


def test_what_trains_depends_on_the_language_model() -> None:
    names = {"gres_internlm2": set[str](), "res_qwen2": set[str]()}
    for case, found in names.items():
        parameters = fresh(case).mllmseg.named_parameters()
        found.update(name for name, parameter in parameters if parameter.requires_grad and "lora" not in name)
        assert not any("vision_tower" in name or "multi_modal_projector" in name for name in found)
    decoder = {name for name in names["res_qwen2"] if name.startswith("mask_decoder.")}
    norm = "internvl.model.language_model.norm.weight"
    assert names["res_qwen2"] == decoder | {norm}
    words = {"internvl.model.language_model.embed_tokens.weight", "internvl.lm_head.weight"}
    assert names["gres_internlm2"] == decoder | {norm} | words


def test_query_key_and_value_share_a_matrix_where_the_published_projection_is_packed() -> None:
    for case, shared in (("gres_internlm2", True), ("res_qwen2", False)):
        attention = fresh(case).mllmseg.language_model.layers[0].self_attn
        query, key = (getattr(attention, name).lora_A["default"].weight for name in ("q_proj", "k_proj"))
        assert (query is key) == shared


def test_a_few_steps_lower_the_losses_with_dropout_and_checkpointing() -> None:
    config = MllmsegTrainingConfig(lora=LoraConfig(rank=4, alpha=8))
    network, batch = fresh("gres_internlm2", config), batch_of("gres_internlm2", [False, True])
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    history = []
    for _ in range(8):
        losses = network(batch).losses
        history.append({name: loss.item() for name, loss in losses.items()})
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
    assert history[-1]["ce"] < 0.5 * history[0]["ce"]
    assert history[-1]["total"] < history[0]["total"]
