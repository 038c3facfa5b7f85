"""MLLMSeg image by image, also those of a video: nothing is remembered, and each says what is not in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from fiftyone_refvos.masklet import Expression, FrameResult
from fiftyone_refvos.models.mllmseg.inference import MllmsegSegmenter
from fiftyone_refvos.models.segmenter import Segmenter, check_key_frames, check_request
from fiftyone_refvos.video import FrameSource


class ImageSegmenter(Segmenter):
    """Segments images, each as a video of one frame.

    Args:
        segmenter: of images
    """

    def __init__(self, segmenter: MllmsegSegmenter) -> None:
        self.images = segmenter

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that the masks depend on, as plain values."""
        return self.images.identity

    def check(self, expression: Expression) -> None:
        """Raises a ValueError for an expression that is empty, too long, or holds a reserved token."""
        self.images.check(expression)

    def segment(
        self,
        frames: FrameSource,
        expressions: Sequence[Expression],
        *,
        key_frames: Mapping[str, int] | None = None,
    ) -> Iterator[FrameResult]:
        """Streams the masks of all expressions, frame after frame; a mask does not depend on key frames.

        Raises:
            ValueError: for a video without frames, expressions that cannot be asked, ids given twice, or key
                frames outside of the video
        """
        check_request(frames, expressions)
        self.images.check_image(expressions)
        check_key_frames(frames, expressions, key_frames or {})
        return self._segment(frames, expressions)

    def _segment(self, frames: FrameSource, expressions: Sequence[Expression]) -> Iterator[FrameResult]:
        for index, image in enumerate(frames.read(range(len(frames)))):
            for result in self.images.segment_image(image, expressions):
                score = np.array([result.score], dtype=np.float32)
                yield FrameResult(index, result.expression.id, result.mask[None], score, result.found)


class PerFrameSegmenter(ImageSegmenter):
    """Segments every frame of a video as an image of its own."""

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that the masks depend on, as plain values."""
        return {**super().identity, "over_time": "per_frame"}

    def for_images(self) -> ImageSegmenter:
        """The segmenter of images; what is done over time is no setting of it."""
        return ImageSegmenter(self.images)
