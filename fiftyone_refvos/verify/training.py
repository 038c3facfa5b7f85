"""GLUS training cases: one training step with every intermediate, and the mask losses on their own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from fiftyone_refvos.models.glus.prompt import IMAGE
from fiftyone_refvos.models.llama_tokenizer import IMAGE_TOKEN
from fiftyone_refvos.training.batch import PAD_ID, Batch, Clip, Collator
from fiftyone_refvos.training.lora import published_parameter
from fiftyone_refvos.training.losses import bce_per_mask, dice_per_mask
from fiftyone_refvos.training.network import TrainingNetwork, TrainingOutput
from fiftyone_refvos.verify.relus import KINK, ReluInput, watched_relus
from fiftyone_refvos.verify.report import CaseReport
from fiftyone_refvos.verify.training_case import StepCase, drawn_clips, network_before, read_case

LOSS_TOLERANCE = 1e-5  # relative
GRADIENT_TOLERANCE = 1e-4  # relative, of a tensor to its largest value
TOLERANCE = 1e-4  # embeddings, hidden states
LOGIT_TOLERANCE = 1e-3  # mask logits, whose values reach 50
# AdamW's first step moves every value by about the learning rate, 3e-4, however small its gradient is.
STEP_TOLERANCE = 3e-5

_STEP_FILES = (
    "expected.json",
    "outputs.safetensors",
    "sam2_config.yaml",
    "checkpoint",
    "clip_vision_tower",
    "inputs/lora_adapter.safetensors",
    "inputs/mask_dict.json",
    "inputs/meta_expressions.json",
)
_LOSS_NAMES = {
    "ce_loss": ("ce",),
    "mask_bce_loss": ("bce",),
    "mask_dice_loss": ("dice",),
    "mask_loss": ("bce", "dice"),
    "contrastive_loss": ("contrastive",),
    "loss": ("total",),
}
_OF_GRADIENTS = ("grad", "total_grad_norm", "after_step")
_SUBSAMPLED = re.compile(r"^(inputs_embeds|low_res)(?:_sub(\d+))?$")


def is_step_case(path: Path) -> bool:
    """A folder with a GLUS checkpoint, an adapter, MeViS annotations and what a training step gave."""
    return path.is_dir() and all((path / name).exists() for name in _STEP_FILES)


def is_losses_case(path: Path) -> bool:
    """A folder with mask logits, their targets and the losses, and nothing else."""
    inputs, expected = path / "inputs.safetensors", path / "expected.json"
    if not (inputs.is_file() and expected.is_file()):
        return False
    rows = json.loads(expected.read_text(encoding="utf-8"))
    return isinstance(rows, list) and all(isinstance(row, dict) and row.keys() == {"bce", "dice"} for row in rows)


def check_losses(path: Path) -> CaseReport:
    """Computes BCE and DICE of every pair of logits and targets."""
    report = CaseReport(path, "GLUS mask losses")
    rows = json.loads((path / "expected.json").read_text(encoding="utf-8"))
    with safe_open(path / "inputs.safetensors", framework="pt") as file:
        for number, row in enumerate(rows):
            logits = file.get_tensor(f"logits{number}").float()
            targets = file.get_tensor(f"target{number}").float()
            for name, loss in (("bce", bce_per_mask), ("dice", dice_per_mask)):
                _add_relative(report, f"{name}{number}", loss(logits, targets).mean(), row[name], LOSS_TOLERANCE)
    return report


def check_step(path: Path) -> CaseReport:
    """Runs a training step in fp32 on the CPU, as it was made, and compares every stored quantity.

    The gradient of a ReLU jumps at zero, and on which side of it an input of 1e-6 falls is a matter of rounding, thus
    of the processor. Where only gradients disagree, the step is run again with such an input mirrored, and counts if
    all of it agrees then.
    """
    case = read_case(path)
    report, inputs = _run_step(case)
    failed = [stage.name for stage in report.stages if not stage.passed]
    if failed and all(name.startswith(_OF_GRADIENTS) for name in failed):
        for each in sorted(inputs, key=lambda each: each.distance):
            if each.distance >= KINK:
                break
            mirrored, _ = _run_step(case, mirror=each)
            if mirrored.passed:
                mirrored.add_values(f"{each} mirrored", torch.tensor(each.distance), torch.zeros(()), KINK)
                return mirrored
    return report


def _run_step(case: StepCase, mirror: ReluInput | None = None) -> tuple[CaseReport, list[ReluInput]]:
    """One step, and which inputs of its ReLUs were nearest to zero."""
    report = CaseReport(case.path, "GLUS training step")
    network = network_before(case)
    clips = drawn_clips(case, network.glus)
    batch = Collator(network.glus.clip.config.image_size, network.glus.config.clip_view)(clips)
    _compare_batch(report, case, clips, batch)
    with watched_relus(network, mirror) as inputs:
        output = network(batch)
    _compare_forward(report, case, output)
    _compare_losses(report, case, output)
    _compare_contrastive(report, case, batch, network, output)
    output.losses["total"].backward()
    _compare_gradients(report, case, network)
    _compare_update(report, case, network)
    compared = {stage.name for stage in report.stages}
    for name in sorted(case.golden.keys() - compared):
        report.not_compared[name] = "unknown name"
    return report, inputs


def _compare_batch(report: CaseReport, case: StepCase, clips: Sequence[Clip], batch: Batch) -> None:
    golden = case.golden
    written = [c.text.replace(IMAGE, IMAGE_TOKEN) for clip in clips for c in clip.conversations]
    report.add_equal(
        "conversations", written, [t.replace(IMAGE, IMAGE_TOKEN) for t in case.expected["conversations"]]
    )
    for name in ("input_ids", "labels", "attention_mask"):
        report.add_values(name, getattr(batch, name), golden[name], 0.0)
    rows_of_clips = [len(clip.expressions) for clip in clips]
    report.add_values("offset", torch.tensor([0, *rows_of_clips]).cumsum(0), golden["offset"], 0.0)
    masks = [mask for group in batch.targets for mask in group.masks]
    order = torch.cat([group.rows for group in batch.targets]).argsort().tolist()
    in_order = [masks[n].float().flatten(1) for n in order]
    report.add_values("gt_mask_area", torch.stack([mask.sum(1) for mask in in_order]), golden["gt_mask_area"], 0.0)
    report.add_values("gt_mask_max", torch.stack([mask.amax(1) for mask in in_order]), golden["gt_mask_max"], 0.0)


def _compare_forward(report: CaseReport, case: StepCase, output: TrainingOutput) -> None:
    golden = case.golden
    assert output.low_res is not None  # every case weighs its mask losses
    mask = output.expanded_ids != PAD_ID
    report.add_values("expanded_attention_mask", mask, golden["expanded_attention_mask"], 0.0)
    report.add_values("seg_hidden", output.seg_hidden.flatten(0, 1), golden["seg_hidden"], TOLERANCE)
    report.add_values("seg_embed", output.seg_embeddings.flatten(0, 1), golden["seg_embed"], TOLERANCE)
    for name, tensor in golden.items():
        match = _SUBSAMPLED.match(name)
        if match is None:
            continue
        step = int(match[2] or 1)
        if match[1] == "inputs_embeds":
            report.add_values(name, output.inputs_embeds[:, ::step], tensor, TOLERANCE)
        else:
            report.add_values(name, output.low_res.flatten(0, 1)[:, ::step, ::step], tensor, LOGIT_TOLERANCE)


def _compare_losses(report: CaseReport, case: StepCase, output: TrainingOutput) -> None:
    for name, golden in case.expected["losses"].items():
        parts = [output.losses[part] for part in _LOSS_NAMES[name] if part in output.losses]
        if golden is None or not parts:
            report.add_equal(name, [part.item() for part in parts], [] if golden is None else [golden])
        else:
            _add_relative(report, name, sum(parts, start=torch.zeros(())), golden, LOSS_TOLERANCE)


def _compare_contrastive(
    report: CaseReport, case: StepCase, batch: Batch, network: TrainingNetwork, output: TrainingOutput
) -> None:
    rows, ours = case.expected["contrastive"], output.contrastive
    assert ours is not None  # the source of every case is contrastive
    anchors = [[row.video, row.expression, frame] for row in batch.rows for frame in row.frames]
    report.add_equal("contrastive.anchors", anchors, [row["anchor"] for row in rows])
    for name, counts in (("num_positive", ours.num_positive), ("num_negative", ours.num_negative)):
        report.add_equal(f"contrastive.{name}", counts.tolist(), [row[name] for row in rows])
    with_loss = [n for n, row in enumerate(rows) if row["loss"] is not None]
    report.add_equal("contrastive.with_loss", ours.anchors.tolist(), with_loss)
    if with_loss:
        report.add_equal("contrastive.drawn_are_related", [case.drawn_are_related], [True])
        golden = torch.tensor([rows[n]["loss"] for n in with_loss])
        _add_relative(report, "contrastive.losses", ours.losses, golden, LOSS_TOLERANCE)
    report.add_equal("bank_size_after", [len(network.bank.entries)], [case.expected["bank_size_after"]])


def _compare_gradients(report: CaseReport, case: StepCase, network: TrainingNetwork) -> None:
    parameters = _published_parameters(network)
    gradients = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
    trainable = sorted([name, list(p.shape), name in gradients] for name, p in parameters.items())
    report.add_equal("trainable", trainable, sorted(case.expected["trainable"]))
    for group, golden in case.expected["grad_norms"].items():
        norm = _norm(gradient for name, gradient in gradients.items() if _in_group(name, group))
        _add_relative(report, f"grad_norms.{group}", norm, golden, GRADIENT_TOLERANCE)
    _add_relative(
        report, "total_grad_norm", _norm(gradients.values()), case.expected["total_grad_norm"], GRADIENT_TOLERANCE
    )
    without = {
        group: sum(_in_group(name, group) and name not in gradients for name in parameters)
        for group in case.expected["params_without_grad"]
    }
    report.add_equal("params_without_grad", [without], [case.expected["params_without_grad"]])
    for name, golden in case.golden.items():
        if name.startswith("grad."):
            scale = golden.abs().max().clamp(min=1e-12)
            ours = gradients.get(name.removeprefix("grad."), torch.empty(0))
            report.add_values(name, ours / scale, golden / scale, GRADIENT_TOLERANCE)


def _compare_update(report: CaseReport, case: StepCase, network: TrainingNetwork) -> None:
    config, parameters = case.config, _published_parameters(network)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    torch.nn.utils.clip_grad_norm_(parameters.values(), config.clip_norm)
    optimizer.step()
    for name, golden in case.golden.items():
        if name.startswith("after_step."):
            ours = parameters[name.removeprefix("after_step.")].detach()
            report.add_values(name, ours, golden, STEP_TOLERANCE)


def _published_parameters(network: TrainingNetwork) -> dict[str, torch.nn.Parameter]:
    return {published_parameter(name): parameter for name, parameter in network.trained_parameters().items()}


def _in_group(name: str, group: str) -> bool:
    return f".{group}." in f".{name}."


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    return torch.stack([tensor.double().pow(2).sum() for tensor in tensors]).sum().sqrt()


def _add_relative(report: CaseReport, name: str, ours: Tensor, golden: Tensor | float, tolerance: float) -> None:
    ratio = ours.detach().double() / torch.as_tensor(golden, dtype=torch.float64)
    report.add_values(name, ratio, torch.ones_like(ratio), tolerance)
