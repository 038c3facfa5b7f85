"""One training step of MLLMSeg: a batch of conversations about images to losses (paper, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

import peft
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fiftyone_refvos.models.mllmseg.inference import probabilities_at_size
from fiftyone_refvos.models.mllmseg.network import MllmsegNetwork
from fiftyone_refvos.models.mllmseg.prompt import IGNORED
from fiftyone_refvos.training.config import LoraConfig
from fiftyone_refvos.training.lora import ADAPTER, is_lora
from fiftyone_refvos.training.mllmseg.batch import ImageBatch
from fiftyone_refvos.training.mllmseg.config import MllmsegTrainingConfig
from fiftyone_refvos.training.mllmseg.losses import (
    dice_per_mask,
    focal_per_mask,
    mean_over_masks,
    soft_iou_per_mask,
    token_cross_entropy,
    with_absent,
)

_ATTENTION = ("q_proj", "k_proj", "v_proj")
_ADAPTED = (*_ATTENTION, "o_proj", "gate_proj", "up_proj", "down_proj")
_NORM = "internvl.model.language_model.norm."
# The published program trains what has certain words in its name, and so InternLM2's words but not Qwen2's.
_TRAINED = {
    "internlm2": ("mask_decoder.", _NORM, "internvl.model.language_model.embed_tokens.", "internvl.lm_head."),
    "qwen2": ("mask_decoder.", _NORM),
}


@dataclass
class MllmsegOutput:
    """The losses of a batch, and what they were computed from, without its gradient.

    Attributes:
        losses: "ce", "focal", "dice" and their sum "total", each times its weight
        iou: soft IoU, the mean over all masks
        hidden: `(B, L, H)` final-norm states
        mask_logits: of each image `(n, h, w)`, one per [SEG]
    """

    losses: dict[str, Tensor]
    iou: Tensor
    hidden: Tensor
    mask_logits: list[Tensor] = field(default_factory=list)


class MllmsegTrainingNetwork(nn.Module):
    """MLLMSeg with the losses that it is trained with.

    Args:
        mllmseg: with its weights, without LoRA; it is trained in place, in float32 but for frozen parameters, which
            are bfloat16 with that precision
        config: what trains, and the weights of the losses
    """

    def __init__(self, mllmseg: MllmsegNetwork, config: MllmsegTrainingConfig) -> None:
        super().__init__()
        self.mllmseg = mllmseg
        self.config = config
        prepare(mllmseg, config)
        self.train()

    def train(self, mode: bool = True) -> MllmsegTrainingNetwork:
        """The vision tower and its projector, which are frozen as published, stay in eval mode."""
        super().train(mode)
        self.mllmseg.internvl.model.vision_tower.eval()
        self.mllmseg.internvl.model.multi_modal_projector.eval()
        return self

    def forward(self, batch: ImageBatch) -> MllmsegOutput:
        """Computes the losses of a batch that is on the network's device."""
        network, weights = self.mllmseg, self.config
        with torch.set_grad_enabled(torch.is_grad_enabled() and weights.trainable == "all"):
            pixels = torch.cat([network.pixels(image) for image in batch.images])
            vision = network.internvl.model.get_image_features(pixels, return_dict=True)
        hidden = self._hidden(batch, vision.pooler_output)
        losses = {"ce": weights.losses.ce * self.cross_entropy(hidden, batch.labels)}
        output = MllmsegOutput(losses, hidden.new_zeros(()), hidden.detach())
        first = batch.first_image_position
        values: list[tuple[Tensor, Tensor, Tensor]] = []
        for row, detail in enumerate(vision.last_hidden_state[:, 1:]):
            # one call per image, so that the statistics of a batch are those of an image, as published
            rows = hidden[row, first - 1 : first - 1 + network.tokens_per_image]
            states = hidden[row, batch.decisions[row][~batch.absent[row]] - 1]
            values.append(self._mask_values(output, batch, row, detail, rows, states))
        focal, dice, iou = (mean_over_masks(torch.cat(each)) for each in zip(*values, strict=True))
        losses |= {"focal": weights.focal_weight * focal, "dice": weights.losses.dice * dice}
        losses["total"] = torch.stack(list(losses.values())).sum()
        output.iou = iou.detach()
        return output

    def cross_entropy(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """Of the tokens that are learned, from the states `(B, L, H)` one position before; no others get logits."""
        learned = labels[:, 1:] != IGNORED
        return token_cross_entropy(self.mllmseg.logits(hidden[:, :-1][learned]), labels[:, 1:][learned])

    def _hidden(self, batch: ImageBatch, tokens: Tensor) -> Tensor:
        """Final-norm states `(B, L, H)`, with the visual tokens `(B, tokens, H)` in their places."""
        language_model = self.mllmseg.language_model
        words = language_model.embed_tokens(batch.input_ids)
        first = batch.first_image_position
        embeds = torch.cat([words[:, :first], tokens.to(words), words[:, first + tokens.shape[1] :]], dim=1)
        return language_model(
            inputs_embeds=embeds,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state

    def _mask_values(
        self, output: MllmsegOutput, batch: ImageBatch, row: int, detail: Tensor, rows: Tensor, states: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Focal loss, DICE loss and soft IoU of all expressions of an image, those without a target last."""
        absent = batch.absent[row]
        missing = int(absent.sum())
        if len(states):
            logits = self.mllmseg.mask_decoder(detail, rows, self.mllmseg.grid, states)
            output.mask_logits.append(logits.detach())
            targets = batch.masks[row][~absent]
            size = (targets.shape[-2], targets.shape[-1])
            pair = probabilities_at_size(logits, size), targets
            values = [of(*pair) for of in (focal_per_mask, dice_per_mask, soft_iou_per_mask)]
        else:
            output.mask_logits.append(rows.new_zeros(0))
            values = [rows.new_zeros(0, dtype=torch.float32)] * 3
        focal, dice, iou = (
            with_absent(value, missing, of_absent) for value, of_absent in zip(values, (0.0, 0.0, 1.0), strict=True)
        )
        return focal, dice, iou


def prepare(network: MllmsegNetwork, config: MllmsegTrainingConfig) -> None:
    """Adds what is trained to a network, says which of its parameters train, and in what precision each is held."""
    # what transformers' own switch sets, whose name depends on the release
    for layer in network.language_model.layers:
        layer.gradient_checkpointing = config.gradient_checkpointing
        layer._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    for module in network.mask_decoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = config.dropout
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = config.dropout
    if config.trainable == "all":
        network.float().requires_grad_(True)
        return
    if config.lora is not None:
        add_lora(network, config.lora)
    trained = _TRAINED[network.config.family]
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name.startswith(trained) or is_lora(name))
        rounded = config.precision == "bf16" and not parameter.requires_grad
        parameter.data = parameter.data.to(torch.bfloat16 if rounded else torch.float32)


def add_lora(network: MllmsegNetwork, config: LoraConfig) -> None:
    """Adds an update that is zero at first to every projection of the language model, in place.

    InternLM2 has one projection for query, key and value, and so one matrix A: the three share it here.
    """
    lora = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(_ADAPTED),
        bias="none",
    )
    peft.inject_adapter_in_model(lora, network.language_model, adapter_name=ADAPTER)
    if network.config.family == "internlm2":
        for layer in network.language_model.layers:
            query, *others = (getattr(layer.self_attn, name).lora_A[ADAPTER] for name in _ATTENTION)
            for other in others:
                other.weight = query.weight
