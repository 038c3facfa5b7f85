"""Which expressions of which image become a sample (published data sampling)."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from fiftyone_refvos.training.config import SamplingConfig
from fiftyone_refvos.training.mixture import SourceMixture
from fiftyone_refvos.training.mllmseg.batch import ImageConversation
from fiftyone_refvos.training.mllmseg.config import MllmsegTrainingConfig
from fiftyone_refvos.training.mllmseg.conversation import ImageConversationWriter
from fiftyone_refvos.training.mllmseg.sources import ImageExpression, ImageSource, TrainingImage
from fiftyone_refvos.video import Frame

_TRIES = 1000  # of images none of whose drawn expressions has a target


class ImageMixture:
    """Draws samples from several sources.

    Args:
        sources: at least one
        rates: how often each is drawn from, in relation to the others
        writer: of the conversations
        config: of the training

    Raises:
        ValueError: for no source, for an empty one, or for rates that are no weights of the sources
    """

    def __init__(
        self,
        sources: Sequence[ImageSource],
        rates: Sequence[float],
        writer: ImageConversationWriter,
        config: MllmsegTrainingConfig,
    ) -> None:
        self._sources = SourceMixture(sources, rates, holds="images")
        self._writer, self._config = writer, config

    def draw(self, rng: np.random.Generator) -> ImageConversation:
        """Draws a source by its rate, one of its images, expressions of it, the wording, and the JPEG quality.

        Where none of the expressions has a target all is drawn anew, as in the published program, unless the
        configuration says otherwise.

        Raises:
            ValueError: for a text that cannot be asked, masks that do not fit their image, and sources that have
                hardly any targets
        """
        for _ in range(_TRIES):
            source = self._sources.draw(rng)
            image = source.image(int(rng.integers(len(source))))
            expressions = draw_expressions(image.expressions, self._config.sampling, rng)
            if self._is_usable(expressions):
                return self._make(f"{source.name}/{image.name}", image, expressions, rng)
        raise ValueError(
            f"none of {_TRIES} images that were drawn has an expression with a target, as the last one of "
            f"{source.name!r}"
        )

    def _is_usable(self, expressions: Sequence[ImageExpression]) -> bool:
        if self._config.all_absent:
            return len(expressions) > 0
        return any(expression.has_target for expression in expressions)

    def _make(
        self, name: str, image: TrainingImage, expressions: Sequence[ImageExpression], rng: np.random.Generator
    ) -> ImageConversation:
        prompt = self._writer.draw(rng, expressions, what=f"image {name!r}")
        frame, masks = image.read(), image.masks(expressions)
        if masks.shape != (len(expressions), *frame.shape[:2]):
            raise ValueError(
                f"image {name!r} is {frame.shape[0]}x{frame.shape[1]} (height x width), but the masks of "
                f"{len(expressions)} expressions are of shape {masks.shape}"
            )
        if self._config.jpeg_quality is not None:
            lowest, highest = self._config.jpeg_quality
            frame = recompressed(frame, int(rng.integers(lowest, highest + 1)))
        return ImageConversation(name, frame, prompt, masks)


def draw_expressions(
    expressions: Sequence[ImageExpression], sampling: SamplingConfig, rng: np.random.Generator
) -> list[ImageExpression]:
    """Some of the expressions of an image, in random order, none twice."""
    drawable = [each for each in expressions if each.has_target or sampling.no_target]
    count = min(sampling.expressions, len(drawable))
    return [drawable[n] for n in rng.choice(len(drawable), count, replace=False)] if drawable else []


def recompressed(image: Frame, quality: int) -> Frame:
    """An image `(H, W, 3) uint8` after it was a JPEG."""
    file = BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=quality)
    return np.array(Image.open(file))
