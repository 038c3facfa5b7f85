"""GLUS and its data as the training loop sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.training.batch import Batch, Collator
from fiftyone_refvos.training.config import TrainingConfig
from fiftyone_refvos.training.conversation import ConversationWriter
from fiftyone_refvos.training.network import TrainingNetwork
from fiftyone_refvos.training.sampling import Mixture
from fiftyone_refvos.training.sources import TrainingSource


class GlusLearner:
    """A `Learner` that trains GLUS on a mixture of sources.

    Args:
        glus: with its weights, its memory fuser scaled as in the checkpoint; it is trained in place
        tokenizer: of the same checkpoint
        config: of the training
        sources: at least one
        rates: how often each is drawn from, in relation to the others

    Raises:
        ValueError: for rates that are no weights of the sources
    """

    def __init__(
        self,
        glus: GlusNetwork,
        tokenizer: LlamaTokenizer,
        config: TrainingConfig,
        sources: Sequence[TrainingSource],
        rates: Sequence[float],
    ) -> None:
        if config.sampling.context_frames is None:
            config = replace(config, sampling=replace(config.sampling, context_frames=glus.config.context_frames))
        self._batch_size = config.batch_size
        with torch.random.fork_rng(devices=[]):  # the low-rank updates begin with random numbers
            torch.manual_seed(config.seed)
            self._training = TrainingNetwork(glus, config)
        self._collate = Collator(glus.clip.config.image_size, glus.config.clip_view)
        writer = ConversationWriter(
            tokenizer,
            config.sampling,
            tokens_per_image=glus.tokens_per_image,
            max_length=glus.config.llama.max_position_embeddings,
        )
        self._mixture = Mixture(sources, rates, writer)

    @property
    def network(self) -> nn.Module:
        return self._training

    def draw(self, rng: np.random.Generator) -> Batch:
        return self._collate([self._mixture.draw(rng) for _ in range(self._batch_size)])

    def losses(self, batch: Batch, rng: np.random.Generator) -> Mapping[str, Tensor]:
        return self._training(batch).losses

    def sample_ids(self, batch: Batch) -> Sequence[str]:
        return batch.sample_ids

    def state(self) -> Mapping[str, Any]:
        return self._training.bank.state_dict()

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._training.bank.load_state_dict(dict(state))
