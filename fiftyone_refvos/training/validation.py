"""J&F of a network that is in training on a held-out view, in memory: nothing is written into the dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import fiftyone as fo

from fiftyone_refvos.evaluation.pairs import Fields, Pair
from fiftyone_refvos.evaluation.videos import Videos
from fiftyone_refvos.fields import FieldError, frame_source
from fiftyone_refvos.metrics import MEVIS, VideoMasks
from fiftyone_refvos.models.glus.config import PUBLISHED_GAMMA, GlusInference
from fiftyone_refvos.models.glus.inference import GlusSegmenter
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.glus.weights import temporary_memory_gamma
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.segment import segment_frames


class Validation:
    """Segments the videos of a view and measures the masks as `rv.evaluate` does, by MeViS' protocol.

    The network runs as a user would run it: with the layer scale of the memory that its checkpoint names.

    Args:
        view: of videos that are not trained on
        network: that is trained, with LoRA in it
        tokenizer: of the same checkpoint
        masklets_field: the frame field with the true masks, without `frames.`
        expressions_field: the sample field with the expressions

    Raises:
        FieldError: for missing fields, wrong masks, and a view in which nothing is annotated
        ValueError: for expressions that the model cannot take
    """

    def __init__(
        self,
        view: fo.Dataset | fo.DatasetView,
        network: GlusNetwork,
        tokenizer: LlamaTokenizer,
        *,
        masklets_field: str,
        expressions_field: str,
    ) -> None:
        self._network = network
        self._segmenter = GlusSegmenter(network, tokenizer, GlusInference())
        fields = Fields(masklets_field, masklets_field, expressions_field)
        self._videos = _Segmented(view, fields, self._segmenter)
        self.num_expressions = 0
        for sample_id in self._videos.ids:  # what is wrong is said now, not at the first validation
            for pair in self._videos.annotated(sample_id):
                self._segmenter.check(pair.expression)
                self.num_expressions += 1
        if not self.num_expressions:
            raise FieldError(
                f"there is nothing to validate on: no expression of the {len(self._videos.ids)} videos is annotated "
                f"in {masklets_field!r}; choose another view, or another field"
            )

    def __call__(self) -> float:
        """The mean of J and F, in [0, 1]."""
        gamma = PUBLISHED_GAMMA if self._network.config.memory_gamma == "published" else None
        with temporary_memory_gamma(self._network, gamma):
            summary = MEVIS.evaluate(self._masks())
        return summary.dataset["J&F"]

    def _masks(self) -> Iterator[VideoMasks]:
        for sample_id in self._videos.ids:
            yield from self._videos.masks(sample_id, MEVIS)


class _Segmented(Videos):
    """Videos whose predicted masks come from a model instead of a field."""

    def __init__(self, view: Any, fields: Fields, segmenter: GlusSegmenter) -> None:
        super().__init__(view, fields)
        self._segmenter = segmenter

    def annotated(self, sample_id: str) -> list[Pair]:
        """The expressions to be measured, with their true masks."""
        return super().pairs(sample_id)

    def pairs(self, sample_id: str) -> list[Pair]:
        pairs = self.annotated(sample_id)
        if not pairs:
            return []
        frames = frame_source(self.dataset[sample_id])
        masklets = segment_frames(self._segmenter, frames, [pair.expression for pair in pairs])
        return [
            replace(pair, prediction=tuple(masklet.masks[number - 1] for number in pair.numbers))
            for pair, masklet in zip(pairs, masklets, strict=True)
        ]
