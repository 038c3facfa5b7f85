"""One training step of GLUS: a batch of clips to losses (paper, sections 3.2 to 3.4).

Frames of all clips are encoded in one call, all conversations go through the language model in one call, and
all rows of one query frame through the mask decoder in one call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache

from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID
from fiftyone_refvos.sampling import memory_positions
from fiftyone_refvos.training.batch import Batch
from fiftyone_refvos.training.config import TrainingConfig
from fiftyone_refvos.training.contrastive import (
    BankEntry,
    ContrastiveOutcome,
    Draw,
    TokenBank,
    contrastive_loss,
    draw_randomly,
)
from fiftyone_refvos.training.lora import prepare
from fiftyone_refvos.training.losses import mask_losses

_MEMORY_STRIDE = 1  # in training every query frame is remembered


@dataclass
class TrainingOutput:
    """The losses of a batch, and what they were computed from, without its gradient.

    Attributes:
        losses: "ce", "bce", "dice", "contrastive" and their sum "total", each times its weight; a loss whose
            weight is 0, or that the batch gives no reason for, is missing
        expanded_ids: `(R, L')` ids with `IMAGE_ID` once per visual token
        inputs_embeds: `(R, L', D)`
        seg_hidden: `(R, Q, D)` final-norm states that predict [SEG]
        seg_embeddings: `(R, Q, d)` their projections, the prompts of SAM2
        low_res: `(Q, T, h, w)` mask logits of the rows with a target; None if no mask loss was asked for
        contrastive: of all anchors; None if there was none
    """

    losses: dict[str, Tensor]
    expanded_ids: Tensor
    inputs_embeds: Tensor
    seg_hidden: Tensor
    seg_embeddings: Tensor
    low_res: Tensor | None = None
    contrastive: ContrastiveOutcome | None = None


@dataclass(frozen=True)
class _Sequences:
    """All conversations of a batch as the language model sees them."""

    expanded_ids: Tensor
    embeds: Tensor
    predicting: Tensor  # (R, Q) positions that predict [SEG]
    shared: int  # length of the beginning that all rows have in common


class TrainingNetwork(nn.Module):
    """GLUS with the losses that it is trained with.

    Args:
        glus: with its weights, its memory fuser scaled as in the checkpoint; it is trained in place, in float32 but
            for large parts that are frozen, which are bfloat16 with that precision; its configuration says from now
            on that it is run as it was trained
        config: what trains, and the weights of the losses
        draw: how the contrastive loss takes its positives and negatives
    """

    def __init__(self, glus: GlusNetwork, config: TrainingConfig, *, draw: Draw = draw_randomly) -> None:
        super().__init__()
        prepare(glus, config)
        glus.config = replace(glus.config, **config.run_settings)
        self.glus = glus
        self.config = config
        self.bank = TokenBank(config.losses.bank_size)
        self._draw = draw
        self._trains_clip = config.trainable == "all"
        self._trains_encoders = config.trainable != "published"
        without_dropout = self._trains_encoders or config.lora is None or config.lora.dropout == 0
        # what is computed twice cannot fill a cache
        self._shares_beginnings = without_dropout and not config.gradient_checkpointing
        self.train()

    @property
    def device(self) -> torch.device:
        """Where all parameters are."""
        return self.glus.device

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by their names in `self.glus`."""
        return {name: parameter for name, parameter in self.glus.named_parameters() if parameter.requires_grad}

    def forward(self, batch: Batch) -> TrainingOutput:
        """Computes the losses of a batch that is on the network's device; the token bank takes its tokens."""
        weights = self.config.losses
        sequences = self._sequences(batch, self._visual_tokens(batch))
        hidden = self._hidden(batch, sequences)
        prompts = self.glus.seg_projection(hidden)
        output = TrainingOutput(
            losses={},
            expanded_ids=sequences.expanded_ids,
            inputs_embeds=sequences.embeds.detach(),
            seg_hidden=hidden.detach(),
            seg_embeddings=prompts.detach(),
        )
        if weights.ce:
            output.losses["ce"] = weights.ce * self._cross_entropy(batch, hidden)
        if (weights.bce or weights.dice) and len(batch.target_rows):
            self._add_mask_losses(output, batch, prompts)
        if weights.contrastive:
            self._add_contrastive_loss(output, batch, prompts)
        # without any loss there still is something to call backward() on
        weighted = list(output.losses.values()) or [0.0 * prompts.sum()]
        output.losses["total"] = torch.stack(weighted).sum()
        return output

    def _visual_tokens(self, batch: Batch) -> Tensor:
        """`(F, tokens, D)` of each distinct frame."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._trains_clip):
            features = self.glus.pool(self.glus.clip_features(batch.clip_pixels.to(self.glus.dtype)))
        return self.glus.projector(features)

    def _sequences(self, batch: Batch, tokens: Tensor) -> _Sequences:
        """Puts the visual tokens of each row's video in the place of its images."""
        per_image = tokens.shape[1]
        ids = batch.input_ids
        is_image = ids == IMAGE_ID
        repeats = torch.where(is_image, per_image, 1)
        # every row has the same number of images, so that all stay equally long
        expanded = ids.flatten().repeat_interleave(repeats.flatten()).view(len(ids), -1)
        images = expanded == IMAGE_ID
        words = self.glus.llama.embed_tokens(expanded.masked_fill(images, 0))
        of_rows = tokens[batch.images[batch.row_video]].to(words.dtype)
        embeds = words.masked_scatter(images[..., None], of_rows)
        shift = (is_image.cumsum(1) * (per_image - 1)).gather(1, batch.seg_positions)
        shared = (expanded == expanded[0]).all(0).long().cumprod(0).sum()
        predicting = batch.seg_positions + shift - 1
        return _Sequences(expanded, embeds, predicting, min(int(shared), int(predicting.min())))

    def _hidden(self, batch: Batch, sequences: _Sequences) -> Tensor:
        """Final-norm states `(R, Q, D)` that predict [SEG].

        What comes after the last of them is left out, and padding on the right needs no mask: causal attention
        never looks at what comes later. The beginning that all rows of a video share is computed once, unless
        each row has dropout of its own, or gradient checkpointing saves more memory than that.
        """
        length = int(sequences.predicting.max()) + 1
        embeds = sequences.embeds[:, :length]
        shared = sequences.shared if self._shares_beginnings and len(batch.images) < len(embeds) else 0
        cache = self._beginnings(batch, embeds[:, :shared]) if shared else None
        prompts = {}
        if batch.open_answers and sequences.predicting.shape[1] > 1:
            visible, positions = _prompts_of_inference(sequences.predicting, length)
            prompts = {"attention_mask": visible[:, None, shared:], "position_ids": positions[:, shared:]}
        states = self.glus.llama(
            inputs_embeds=embeds[:, shared:], past_key_values=cache, use_cache=cache is not None, **prompts
        ).last_hidden_state
        row = torch.arange(len(embeds), device=embeds.device)[:, None]
        return states[row, sequences.predicting - shared]

    def _beginnings(self, batch: Batch, embeds: Tensor) -> DynamicCache:
        """Keys and values of the beginning `(R, P, D)` of every row, computed once per video."""
        config = self.glus.config.llama
        first_rows = torch.searchsorted(batch.row_video, torch.arange(len(batch.images), device=embeds.device))
        of_videos, of_rows = DynamicCache(config=config), DynamicCache(config=config)
        self.glus.llama(inputs_embeds=embeds[first_rows], past_key_values=of_videos, use_cache=True)
        for number, layer in enumerate(of_videos.layers):
            of_rows.update(layer.keys[batch.row_video], layer.values[batch.row_video], number)
        return of_rows

    def _cross_entropy(self, batch: Batch, hidden: Tensor) -> Tensor:
        """Over what is said at the place of each [SEG]; all other text is not supervised."""
        labels = batch.labels.gather(1, batch.seg_positions)
        return F.cross_entropy(self.glus.lm_head(hidden).flatten(0, 1).float(), labels.flatten())

    def _add_mask_losses(self, output: TrainingOutput, batch: Batch, prompts: Tensor) -> None:
        weights = self.config.losses
        low_res = self._decode(batch, prompts[batch.target_rows])
        bce, dice = mask_losses(low_res, batch.targets, clip_targets=weights.clip_targets)
        output.low_res = low_res.detach()
        if weights.bce:
            output.losses["bce"] = weights.bce * bce
        if weights.dice:
            output.losses["dice"] = weights.dice * dice

    def _decode(self, batch: Batch, prompts: Tensor) -> Tensor:
        """Mask logits `(Q, T, h, w)` for the prompts `(T, Q, d)` of the rows with a target.

        Published, everything but the mask decoder runs without gradient, and so do memories; a network that
        starts from nothing has to learn its memory through them.
        """
        sam = self.glus.sam
        num_queries = prompts.shape[1]
        through_memory = torch.is_grad_enabled() and self._trains_encoders
        if through_memory:
            _make_trainable(sam)
        with torch.set_grad_enabled(through_memory):
            pixels = torch.cat([sam.preprocess(frames) for frames in batch.query_frames])
            features = sam.encode_image(pixels)
        video = batch.row_video[batch.target_rows]
        low_res: list[Tensor] = []
        memories: list[Tensor] = []
        for query in range(num_queries):
            with torch.set_grad_enabled(through_memory):
                maps = features.select(video * num_queries + query)
                chosen = memory_positions(query, _MEMORY_STRIDE, sam.num_memories) if self.config.memory else []
                conditioned = sam.attend(maps.top, [memories[position] for position in chosen])
            masks = sam.decode(conditioned, maps, prompts[:, query])
            low_res.append(masks.low_res[:, 0])
            if self.config.memory and query + 1 < num_queries:
                with torch.set_grad_enabled(through_memory):
                    memories.append(sam.remember(conditioned, masks.low_res))
        return torch.stack(low_res)

    def _add_contrastive_loss(self, output: TrainingOutput, batch: Batch, prompts: Tensor) -> None:
        weights = self.config.losses
        rows = [n for n, row in enumerate(batch.rows) if row.contrastive and row.objects]
        if not rows:
            return
        anchors = [
            BankEntry(f"{row.source}/{row.video}", row.expression, frame, row.objects)
            for row in (batch.rows[n] for n in rows)
            for frame in row.frames
        ]
        outcome = contrastive_loss(anchors, prompts[rows].flatten(0, 1), self.bank, weights, self._draw)
        output.contrastive = outcome.detach()
        if outcome.mean is not None:
            output.losses["contrastive"] = weights.contrastive * outcome.mean


def _prompts_of_inference(predicting: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """What each token of R conversations sees, `(R, L, L)`, and its place in its prompt, `(R, L)`.

    At inference an answer is open in the last round only. Here all rounds are in one sequence, so the token
    that ends an open answer, from which [SEG] is predicted, is hidden from all that follow and takes no place.

    Args:
        predicting: `(R, Q)` positions of those tokens
        length: L
    """
    order = torch.arange(length, device=predicting.device)
    opens = (order == predicting[..., None]).any(1)
    visible = (order <= order[:, None]) & (~opens[:, None] | (order == order[:, None]))
    return visible, order - (opens.cumsum(1) - opens.long())


def _make_trainable(sam: nn.Module) -> None:
    """Replaces the tables that SAM2's attention computed in inference mode, which no gradient may pass."""
    for module in sam.modules():
        table = getattr(module, "freqs_cis", None)
        if isinstance(table, Tensor) and table.is_inference():
            module.freqs_cis = table.clone()
