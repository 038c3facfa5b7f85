"""Training cases of the key frame selector: one step with every intermediate."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fiftyone_refvos.models.selector.base import load_trainee
from fiftyone_refvos.models.selector.prompt import SCORE_TOKEN
from fiftyone_refvos.models.selector.weights import TRAINING_PREFIX, published_name
from fiftyone_refvos.training.config import LoraConfig, LossConfig
from fiftyone_refvos.training.selector.config import SelectorTrainingConfig
from fiftyone_refvos.training.selector.conversation import (
    ANSWERS,
    LONG_REQUESTS,
    SHORT_REQUESTS,
    ScoreConversationWriter,
    Turn,
)
from fiftyone_refvos.training.selector.network import SelectorTrainingNetwork, distance
from fiftyone_refvos.training.selector.sampling import ScoreBatch, ScoreClip, ScoreCollator, make_clip
from fiftyone_refvos.training.selector.sources import LabelledExpression
from fiftyone_refvos.verify.report import CaseReport
from fiftyone_refvos.video import FolderFrames, Frame, open_frames_dir

TOLERANCE = 1e-5

_FILES = (
    "outputs.json",
    "outputs.safetensors",
    "checkpoint",
    "vision_tower",
    "inputs/batch.json",
    "inputs/iou_labels",
    "inputs/trainable_init.safetensors",
)
_LOSSES = {"loss": "total", "ce_loss": "ce", "iou_loss": "score"}


@dataclass(frozen=True)
class _Video:
    """A video of a case, as a `LabelledVideo`."""

    name: str
    frames: FolderFrames
    expressions: tuple[LabelledExpression, ...]

    @property
    def size(self) -> tuple[int, int]:
        return self.frames.size

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, indices: Iterable[int]) -> Iterator[Frame]:
        return self.frames.read(indices)


def is_case(path: Path) -> bool:
    """A folder with the base of a selector, label files, and what a training step gave."""
    return path.is_dir() and all((path / name).exists() for name in _FILES)


def check(path: Path) -> CaseReport:
    """Runs a training step in fp32 on the CPU, as it was made, and compares every stored quantity."""
    report = CaseReport(path, "key frame selector, training step")
    golden, outputs = load_file(path / "outputs.safetensors"), _read(path / "outputs.json")
    stored = _read(path / "inputs" / "batch.json")
    config = _config(stored["hyper"])
    initial = load_file(path / "inputs" / "trainable_init.safetensors")
    head = initial[f"{TRAINING_PREFIX}model.text_hidden_fcs.0.2.weight"]
    trainee = load_trainee(path / "checkpoint", path / "vision_tower", score_dim=len(head))
    report.add_equal("score_token_id", [trainee.tokenizer.token_id(SCORE_TOKEN)], [stored["score_token_id"]])
    network = SelectorTrainingNetwork(trainee.network, config)
    parameters = {_published(name): each for name, each in trainee.network.named_parameters() if each.requires_grad}
    report.add_equal("trainable", sorted(parameters), sorted(initial))
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(initial[name])
    writer = ScoreConversationWriter(
        trainee.tokenizer,
        config.sampling.wording,
        tokens_per_image=trainee.network.tokens_per_image,
        max_length=trainee.network.config.llama.max_position_embeddings,
    )
    clips = [_clip(path, sample, writer) for sample in stored["samples"]]
    collate = ScoreCollator(trainee.network.clip.config.image_size, trainee.network.config.clip_view)
    batch = collate(clips)
    _compare_batch(report, stored, clips, batch, golden)
    _compare_step(report, network, parameters, batch, golden, outputs)
    compared = {stage.name for stage in report.stages}
    for name in sorted(golden.keys() - compared):
        report.not_compared[name] = "unknown name"
    return report


def _compare_batch(
    report: CaseReport,
    stored: Mapping[str, Any],
    clips: list[ScoreClip],
    batch: ScoreBatch,
    golden: Mapping[str, Tensor],
) -> None:
    written = [conversation.text for clip in clips for conversation in clip.conversations]
    report.add_equal(
        "conversations", written, [text for sample in stored["samples"] for text in sample["conversations"]]
    )
    offset = torch.tensor([len(clip.conversations) for clip in clips]).cumsum(0).tolist()
    report.add_equal("conversation_offset", [0, *offset], stored["conversation_offset"])
    targets = [value for sample in stored["samples"] for value in sample["iou_targets"]]
    report.add_values("iou_targets", batch.scores, torch.tensor(targets), 0.0)
    for name in ("input_ids", "labels"):
        report.add_values(name, getattr(batch, name), golden[name], 0.0)
    order = torch.arange(batch.input_ids.shape[1])
    report.add_values("attention_mask", order < batch.lengths[:, None], golden["attention_mask"], 0.0)


def _compare_step(
    report: CaseReport,
    network: SelectorTrainingNetwork,
    parameters: Mapping[str, nn.Parameter],
    batch: ScoreBatch,
    golden: Mapping[str, Tensor],
    outputs: Mapping[str, Any],
) -> None:
    output = network(batch)
    report.add_values("expanded_labels", output.expanded_labels, golden["expanded_labels"], 0.0)
    report.add_values("expanded_attention_mask", output.expanded_mask, golden["expanded_attention_mask"], 0.0)
    _compare_losses(report, output.losses, outputs["loss"], "")
    output.losses["total"].backward()
    for name, parameter in parameters.items():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        report.add_values(f"grad/{name}", gradient, golden[f"grad/{name}"], TOLERANCE)
    config = network.config
    norm = nn.utils.clip_grad_norm_(parameters.values(), config.clip_norm)
    report.add_values("grad_norm", norm, torch.tensor(outputs["grad_norm"]), TOLERANCE)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    optimizer.step()
    for name, parameter in parameters.items():
        report.add_values(f"updated/{name}", parameter.detach(), golden[f"updated/{name}"], TOLERANCE)
    after = network(batch)
    _compare_losses(report, after.losses, outputs["loss_after_step"], "_after_step")
    recorded = after if _are_of_after(golden["predicted_scores"][:, 0], batch, outputs) else output
    report.add_values("score_hidden", recorded.hidden, golden["score_hidden"], TOLERANCE)
    report.add_values("predicted_scores", recorded.scores[:, None], golden["predicted_scores"], TOLERANCE)


def _are_of_after(scores: Tensor, batch: ScoreBatch, outputs: Mapping[str, Any]) -> bool:
    """Whether stored scores are those of the forward pass after the step: their loss says so."""
    loss = float(distance(scores, batch))
    before, after = (outputs[name]["iou_loss"] for name in ("loss", "loss_after_step"))
    return abs(loss - after) < abs(loss - before)


def _compare_losses(
    report: CaseReport, losses: Mapping[str, Tensor], golden: Mapping[str, float], suffix: str
) -> None:
    for name, ours in _LOSSES.items():
        report.add_values(f"{name}{suffix}", losses[ours].detach(), torch.tensor(golden[name]), TOLERANCE)


def _clip(path: Path, sample: Mapping[str, Any], writer: ScoreConversationWriter) -> ScoreClip:
    """The clip that the published program drew."""
    name = sample["video"]
    frames = open_frames_dir(path / "inputs" / "frames" / name)
    index = {Path(file).stem: number for number, file in enumerate(frames.names)}
    context = [index[frame] for frame in sample["context_frames"]]
    rows = zip(sample["exp_ids"], sample["expressions"], sample["conversations"], strict=True)
    expressions, turns = [], []
    for identity, text, conversation in rows:
        labels = _read(path / "inputs" / "iou_labels" / name / f"{identity}.json")
        expressions.append(LabelledExpression(identity, text, tuple(labels)))
        turns.append(_turn(text, conversation))
    return make_clip(
        "golden",
        _Video(name, frames, tuple(expressions)),
        expressions,
        turns,
        context=context,
        target=context.index(index[sample["target_frame"]]),
        writer=writer,
    )


def _turn(text: str, conversation: str) -> Turn:
    """The request and the answer that were drawn, back as templates."""
    asked, _, answer = conversation.removesuffix("</s>").rpartition(" ASSISTANT: ")
    requests = [each for each in SHORT_REQUESTS + LONG_REQUESTS if asked.endswith(f"\n{each.format(text.strip())}")]
    if len(requests) != 1 or answer not in ANSWERS:
        raise ValueError(f"the conversation about {text!r} is worded as none here: {conversation!r}")
    return Turn(requests[0], answer)


def _published(name: str) -> str:
    """How the published training calls a parameter."""
    return TRAINING_PREFIX + published_name(name)


def _config(hyper: Mapping[str, Any]) -> SelectorTrainingConfig:
    lora = LoraConfig(rank=hyper["lora_r"], alpha=hyper["lora_alpha"], dropout=hyper["lora_dropout"])
    return SelectorTrainingConfig(
        lora=lora,
        losses=LossConfig(ce=hyper["ce_loss_weight"]),
        score_weight=hyper["iou_loss_weight"],
        learning_rate=hyper["lr"],
        betas=tuple(hyper["betas"]),
        weight_decay=hyper["weight_decay"],
        clip_norm=hyper["grad_clip"],
        gradient_checkpointing=False,
    )


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
