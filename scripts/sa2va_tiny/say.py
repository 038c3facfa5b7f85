"""The language model's part: true statements about a clip in Sa2VA's chat, and what lies where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fiftyone_refvos.demo.rendered import RenderedVideos
from fiftyone_refvos.models.sa2va.network import Sa2vaNetwork
from fiftyone_refvos.models.sa2va.pixels import internvl_frames
from fiftyone_refvos.models.sa2va.tokens import load_tokenizer
from fiftyone_refvos.training.learner import Forgetful
from scripts.glus_tiny.statements import TEXT_WEIGHT, Statement, draw_statements, statements
from scripts.sa2va_tiny.chat import MOST_FRAMES, Chat, draw_frames

QUESTION = "What is in the last frame?"


class Statements(NamedTuple):
    """Clips, and what is said about them.

    Attributes:
        pixels: `(B * N, 3, S, S)` tiles of the vision tower
        ids: `(B, L)` of the statements, padded with 0
        weights: `(B, L)` of their losses, 0 for padding
    """

    pixels: Tensor
    ids: Tensor
    weights: Tensor


class StatementLearner(Forgetful):
    """A `Learner` of vision tower, projector and language model.

    Args:
        network: trained in place
        checkpoint: with its tokenizer
        videos: to draw clips of; the clips of a batch have the same number of frames
        batch_size: clips per pass
        most_statements: of a clip
    """

    def __init__(
        self,
        network: Sa2vaNetwork,
        checkpoint: Path,
        videos: RenderedVideos,
        *,
        batch_size: int,
        most_statements: int = 10,
    ) -> None:
        self._network, self._videos = network, videos
        self._batch_size, self._most = batch_size, most_statements
        self._tokenizer = load_tokenizer(checkpoint)
        self._chat = Chat(network, self._tokenizer)

    @property
    def network(self) -> nn.Module:
        network: nn.Module = self._network.mllm
        return network

    def draw(self, rng: np.random.Generator) -> Statements:
        frames: list[NDArray[np.uint8]] = []
        ids, weights = [], []
        count = int(rng.choice([1, MOST_FRAMES]))
        for _ in range(self._batch_size):
            video = self._videos.video(int(rng.integers(len(self._videos))))
            chosen = draw_frames(len(video), count, rng)
            frames += video.read(chosen)
            said = [each for each in statements(video, chosen[-1]) if count > 1 or each.kind != "motion"]
            row_ids, row_weights = self._encode(said, rng)
            ids.append(torch.tensor(row_ids))
            weights.append(torch.tensor(row_weights))
        padded = (pad_sequence(each, batch_first=True) for each in (ids, weights))
        return Statements(internvl_frames(frames, frames[0].shape[0]), *padded)

    def _encode(self, said: Sequence[Statement], rng: np.random.Generator) -> tuple[list[int], list[float]]:
        ids: list[int] = []
        weights: list[float] = []
        for statement in draw_statements(said, self._most, rng):
            for text, weight in ((statement.expression, TEXT_WEIGHT), (f"{statement.answer}.", 1.0)):
                pieces = self._tokenizer.encode(text)
                ids += pieces
                weights += [weight] * len(pieces)
        return ids, weights

    def losses(self, batch: Statements, rng: np.random.Generator) -> Mapping[str, Tensor]:
        mllm, count = self._network.mllm, len(batch.ids)
        tokens = mllm.model.get_image_features(batch.pixels, return_dict=True).pooler_output
        beginning = self._chat.beginning(tokens.unflatten(0, (count, -1)), QUESTION)
        words = self._network.embed_words(batch.ids)
        embeds = torch.cat([beginning, words[:, :-1]], dim=1)
        states = mllm.model.language_model(inputs_embeds=embeds).last_hidden_state
        logits = mllm.lm_head(states[:, beginning.shape[1] - 1 :])
        each = F.cross_entropy(logits.flatten(0, 1), batch.ids.flatten(), reduction="none")
        weights = batch.weights.flatten()
        loss = (each * weights).sum() / weights.sum()
        return {"statements": loss, "total": loss}

    def sample_ids(self, batch: Statements) -> Sequence[str]:
        return [f"statements about {len(batch.ids)} demo clips"]
