"""gIoU and cIoU of a network in training on a held-out view, in memory: nothing is written into the dataset."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import fiftyone as fo

from fiftyone_refvos.evaluation.images import Images
from fiftyone_refvos.evaluation.pairs import Fields, Pair
from fiftyone_refvos.evaluation.scoring import DEFAULT_IMAGE_PROTOCOL, score_expressions
from fiftyone_refvos.fields import FieldError, frame_source
from fiftyone_refvos.masklet import encode
from fiftyone_refvos.metrics import ImageScore
from fiftyone_refvos.models.internvl_tokenizer import ChatTokenizer
from fiftyone_refvos.models.mllmseg.config import MllmsegInference
from fiftyone_refvos.models.mllmseg.inference import MllmsegSegmenter
from fiftyone_refvos.models.mllmseg.network import MllmsegNetwork
from fiftyone_refvos.training.mllmseg.config import Measure
from fiftyone_refvos.training.mllmseg.views import digest_of_ids

logger = logging.getLogger(__name__)


class ImageValidation:
    """Segments the images of a view and measures the masks as `rv.evaluate` does, by the protocol of gRefCOCO.

    Args:
        view: of images that are not trained on
        network: that is trained, with LoRA in it
        tokenizer: of the same checkpoint
        measure: which value counts
        masks_field: the field with the true masks
        expressions_field: the field with the expressions

    Raises:
        FieldError: for missing fields, wrong masks, and a view in which nothing is annotated
        ValueError: for expressions that the model cannot take
    """

    def __init__(
        self,
        view: fo.Dataset | fo.DatasetView,
        network: MllmsegNetwork,
        tokenizer: ChatTokenizer,
        *,
        measure: Measure,
        masks_field: str,
        expressions_field: str,
    ) -> None:
        if view.media_type != "image":
            raise FieldError(f"MLLMSeg is validated on images, but {view.name or 'this view'!r} holds other samples")
        segmenter = MllmsegSegmenter(network, tokenizer, MllmsegInference())
        self._measure = measure
        self._fields = {"masks": masks_field, "expressions": expressions_field}
        self._images = _Segmented(view, Fields(masks_field, masks_field, expressions_field), segmenter)
        count = 0
        for sample_id in self._images.ids:  # what is wrong is said now, not at the first validation
            pairs = self._images.annotated(sample_id)
            segmenter.check_image([pair.expression for pair in pairs])
            count += len(pairs)
        if not count:
            raise FieldError(
                f"there is nothing to validate on: no expression of the {len(self._images.ids)} images is annotated "
                f"in {masks_field!r}; choose another view, or another field"
            )

    @property
    def identity(self) -> dict[str, Any]:
        """What is measured, as plain values: a best value of other images cannot be compared with."""
        return {"images": len(self._images.ids), "digest": digest_of_ids(self._images.ids), **self._fields}

    def __call__(self) -> float:
        """gIoU or cIoU, in [0, 1]."""
        values = DEFAULT_IMAGE_PROTOCOL.summarize(list(self._scores()))
        logger.info("Validation: %s", ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
        return values[self._measure] / 100

    def _scores(self) -> Iterator[ImageScore]:
        for sample_id in self._images.ids:
            for image in self._images.masks(sample_id):
                yield from (each.score for each in score_expressions(image))


class _Segmented(Images):
    """Images whose predicted masks come from a model instead of a field."""

    def __init__(self, view: fo.Dataset | fo.DatasetView, fields: Fields, segmenter: MllmsegSegmenter) -> None:
        super().__init__(view, fields)
        self._segmenter = segmenter

    def annotated(self, sample_id: str) -> list[Pair]:
        """The expressions to be measured, with their true masks."""
        return super().pairs(sample_id)

    def pairs(self, sample_id: str) -> list[Pair]:
        pairs = self.annotated(sample_id)
        if not pairs:
            return []
        (image,) = frame_source(self.dataset[sample_id]).read([0])
        results = self._segmenter.segment_image(image, [pair.expression for pair in pairs])
        return [
            replace(
                pair,
                facts=replace(pair.facts, rejected=not result.found),
                prediction=(tuple(encode(result.unrejected[None])),),
            )
            for pair, result in zip(pairs, results, strict=True)
        ]
