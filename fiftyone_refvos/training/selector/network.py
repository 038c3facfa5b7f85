"""One training step of the selector: a batch of clips to losses."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID
from fiftyone_refvos.models.selector.network import SelectorNetwork
from fiftyone_refvos.training.conversation import IGNORED
from fiftyone_refvos.training.lora import prepare
from fiftyone_refvos.training.selector.config import SelectorTrainingConfig
from fiftyone_refvos.training.selector.sampling import ScoreBatch

# Parts that train as a whole in the published recipe.
TRAINED_PARTS = ("llama.embed_tokens.", "lm_head.", "score_head.")


@dataclass
class ScoreOutput:
    """The losses of a batch, and what they were computed from.

    Attributes:
        losses: "ce" over the words of the answers, "score", and their sum "total", each times its weight
        expanded_labels: `(R, L')` labels with `IGNORED` once per visual token, and as padding
        expanded_mask: `(R, L') bool`, False for padding
        hidden: `(R, D)` final-norm states from which scores are read
        scores: `(R,)`
    """

    losses: dict[str, Tensor]
    expanded_labels: Tensor
    expanded_mask: Tensor
    hidden: Tensor
    scores: Tensor


class SelectorTrainingNetwork(nn.Module):
    """The selector with the losses that it is trained with.

    Args:
        selector: with its weights; it is trained in place, in float32 but for large parts that are frozen, which are
            bfloat16 with that precision
        config: what trains, and the weights of the losses
    """

    def __init__(self, selector: SelectorNetwork, config: SelectorTrainingConfig) -> None:
        super().__init__()
        prepare(selector, config, TRAINED_PARTS)
        self.selector = selector
        self.config = config
        self._trains_clip = config.trainable == "all"
        self.train()

    def forward(self, batch: ScoreBatch) -> ScoreOutput:
        """Computes the losses of a batch that is on the network's device."""
        images = self._visual_tokens(batch)
        embeds, labels, positions = self._sequences(batch, images)
        # Padding on the right needs no mask: causal attention never looks at what comes later.
        padded = pad_sequence(embeds, batch_first=True)
        states = self.selector.llama(inputs_embeds=padded, use_cache=False).last_hidden_state
        expanded = pad_sequence(labels, batch_first=True, padding_value=IGNORED)
        lengths = torch.tensor([len(row) for row in embeds], device=padded.device)
        hidden = states[torch.arange(len(states), device=states.device), positions]
        scores = self.selector.score(hidden)
        losses = {
            "ce": self.config.losses.ce * self._cross_entropy(states, expanded),
            "score": self.config.score_weight * distance(scores, batch),
        }
        losses["total"] = torch.stack(list(losses.values())).sum()
        mask = torch.arange(padded.shape[1], device=padded.device) < lengths[:, None]
        return ScoreOutput(losses, expanded, mask, hidden.detach(), scores.detach())

    def _visual_tokens(self, batch: ScoreBatch) -> Tensor:
        """`(F, tokens, D)` of each frame."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._trains_clip):
            features = self.selector.clip_features(batch.clip_pixels.to(self.selector.clip.dtype))
            merged = self.selector.merge(features).tokens
        return self.selector.projector(merged.to(self.selector.projector.weight.dtype))

    def _sequences(self, batch: ScoreBatch, images: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Input embeddings and labels of every row, its images expanded, and where its score is read."""
        per_image = self.selector.tokens_per_image
        embeds, labels, positions = [], [], []
        rows = zip(batch.row_video.tolist(), batch.lengths.tolist(), batch.score_positions.tolist(), strict=True)
        for number, (video, length, score_position) in enumerate(rows):
            shown = [*range(batch.starts[video], batch.starts[video + 1]), batch.targets[video]]
            ids = batch.input_ids[number, :length]
            embeds.append(self.selector.embed(ids.tolist(), list(images[shown])))
            repeats = torch.where(ids == IMAGE_ID, per_image, 1)
            labels.append(batch.labels[number, :length].repeat_interleave(repeats))
            # the state before [SCORE], which predicts it
            positions.append(score_position - 1 + len(shown) * (per_image - 1))
        return embeds, labels, torch.tensor(positions, device=images.device)

    def _cross_entropy(self, states: Tensor, labels: Tensor) -> Tensor:
        """The mean over all supervised tokens of the batch."""
        following = labels[:, 1:]
        supervised = following != IGNORED
        logits = self.selector.lm_head(states[:, :-1][supervised])
        return F.cross_entropy(logits.float(), following[supervised])


def distance(scores: Tensor, batch: ScoreBatch) -> Tensor:
    """The mean over clips of the mean distance of their scores to the labels."""
    distances = (scores - batch.scores.to(scores)).abs()
    count = len(batch.targets)
    sums = distances.new_zeros(count).index_add(0, batch.row_video, distances)
    return (sums / batch.row_video.bincount(minlength=count)).sum() / (count + 1e-8)
