"""MLLMSeg and its data as the training loop sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from fiftyone_refvos.models.internvl_tokenizer import ChatTokenizer
from fiftyone_refvos.models.mllmseg.network import MllmsegNetwork
from fiftyone_refvos.training.learner import Forgetful
from fiftyone_refvos.training.mllmseg.batch import ImageBatch, collate
from fiftyone_refvos.training.mllmseg.config import MllmsegTrainingConfig
from fiftyone_refvos.training.mllmseg.conversation import ImageConversationWriter
from fiftyone_refvos.training.mllmseg.network import MllmsegTrainingNetwork
from fiftyone_refvos.training.mllmseg.sampling import ImageMixture
from fiftyone_refvos.training.mllmseg.sources import ImageSource


class MllmsegLearner(Forgetful):
    """A `Learner` that trains MLLMSeg on a mixture of sources.

    Args:
        mllmseg: with its weights; it is trained in place
        tokenizer: of the same checkpoint
        config: of the training
        sources: at least one
        rates: how often each is drawn from, in relation to the others

    Raises:
        ValueError: for rates that are no weights of the sources
    """

    def __init__(
        self,
        mllmseg: MllmsegNetwork,
        tokenizer: ChatTokenizer,
        config: MllmsegTrainingConfig,
        sources: Sequence[ImageSource],
        rates: Sequence[float],
    ) -> None:
        self._batch_size = config.batch_size
        writer = ImageConversationWriter(
            tokenizer,
            config.sampling.wording,
            tokens_per_image=mllmseg.tokens_per_image,
            max_length=mllmseg.config.internvl.text_config.max_position_embeddings,
        )
        self._prompts = writer.prompts
        self._mixture = ImageMixture(sources, rates, writer, config)
        with torch.random.fork_rng(devices=[]):  # the low-rank updates begin with random numbers
            torch.manual_seed(config.seed)
            self._training = MllmsegTrainingNetwork(mllmseg, config)

    @property
    def network(self) -> nn.Module:
        return self._training

    def draw(self, rng: np.random.Generator) -> ImageBatch:
        return collate([self._mixture.draw(rng) for _ in range(self._batch_size)], self._prompts)

    def losses(self, batch: ImageBatch, rng: np.random.Generator) -> Mapping[str, Tensor]:
        return self._training(batch).losses

    def sample_ids(self, batch: ImageBatch) -> Sequence[str]:
        return batch.ids
