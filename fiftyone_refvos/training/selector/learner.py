"""The selector and its data as the training loop sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.models.selector.network import SelectorNetwork
from fiftyone_refvos.training.learner import Forgetful
from fiftyone_refvos.training.selector.config import SelectorTrainingConfig
from fiftyone_refvos.training.selector.conversation import ScoreConversationWriter
from fiftyone_refvos.training.selector.network import SelectorTrainingNetwork
from fiftyone_refvos.training.selector.sampling import LabelMixture, ScoreBatch, ScoreCollator
from fiftyone_refvos.training.selector.sources import LabelSource


class SelectorLearner(Forgetful):
    """A `Learner` that trains the selector on a mixture of sources.

    Args:
        selector: with its weights; it is trained in place
        tokenizer: of the same network
        config: of the training
        sources: at least one
        rates: how often each is drawn from, in relation to the others

    Raises:
        ValueError: for rates that are no weights of the sources
    """

    def __init__(
        self,
        selector: SelectorNetwork,
        tokenizer: LlamaTokenizer,
        config: SelectorTrainingConfig,
        sources: Sequence[LabelSource],
        rates: Sequence[float],
    ) -> None:
        self._batch_size = config.batch_size
        writer = ScoreConversationWriter(
            tokenizer,
            config.sampling.wording,
            tokens_per_image=selector.tokens_per_image,
            max_length=selector.config.llama.max_position_embeddings,
            words=selector.config.words,
        )
        self._mixture = LabelMixture(sources, rates, writer, config)
        self._collate = ScoreCollator(selector.clip.config.image_size, selector.config.clip_view)
        with torch.random.fork_rng(devices=[]):  # the low-rank updates begin with random numbers
            torch.manual_seed(config.seed)
            self._training = SelectorTrainingNetwork(selector, config)

    @property
    def network(self) -> nn.Module:
        return self._training

    def draw(self, rng: np.random.Generator) -> ScoreBatch:
        return self._collate([self._mixture.draw(rng) for _ in range(self._batch_size)])

    def losses(self, batch: ScoreBatch, rng: np.random.Generator) -> Mapping[str, Tensor]:
        return self._training(batch).losses

    def sample_ids(self, batch: ScoreBatch) -> Sequence[str]:
        return batch.names
