"""Single frames of demo videos as images to train on, with what one frame tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fiftyone_refvos.demo.rendered import RenderedExpression, RenderedVideo, RenderedVideos
from fiftyone_refvos.masklet import BoolArray
from fiftyone_refvos.training.mllmseg.sources import ImageExpression
from fiftyone_refvos.video import Frame
from scripts.glus_tiny.points import FEWEST_PIXELS
from scripts.sa2va_tiny.talk import RATES

COUNTS = (4, 2, 1, 1)
"""How many of its expressions the images of a frame have at most: a model asks about one by one, but learns faster
from several."""


@dataclass(frozen=True)
class DemoFrame:
    """A frame, as `TrainingImage` has it.

    Attributes:
        video: of the frame
        frame: its number
        expressions: about it; one has a target if an object that it means can be seen
    """

    video: RenderedVideo
    frame: int
    expressions: tuple[ImageExpression, ...]

    @property
    def name(self) -> str:
        return f"{self.video.name}/{self.video.frame_name(self.frame)}"

    def read(self) -> Frame:
        return next(self.video.read([self.frame]))

    def masks(self, expressions: Sequence[ImageExpression]) -> BoolArray:
        meant = {each.id: each for each in self.video.expressions}
        return self.video.targets([meant[each.id] for each in expressions], self.frame).astype(bool)


class DemoFrames:
    """An `ImageSource` of all frames of rendered videos, each with some of its expressions.

    Expressions that tell of motion are left out, since no frame can answer them, and in a frame those whose objects
    show only a few pixels, which might be said to be there or not.

    Args:
        videos: with their frames
    """

    name = "demo frames"

    def __init__(self, videos: RenderedVideos) -> None:
        self._videos = videos
        self._frames = len(videos.video(0))

    def __len__(self) -> int:
        """Several images of each frame."""
        return len(self._videos) * self._frames * len(COUNTS)

    def image(self, index: int) -> DemoFrame:
        """Which expressions of its frame an image has follows from its number."""
        place, variant = divmod(index, len(COUNTS))
        number, frame = divmod(place, self._frames)
        video = self._videos.video(number)
        usable = clear_expressions(video, frame)
        rates = np.array([RATES[each.kind] for each, _ in usable])
        drawn = min(len(usable), COUNTS[variant])
        rng = np.random.default_rng(index)
        chosen = rng.choice(len(usable), drawn, replace=False, p=rates / rates.sum()) if usable else ()
        expressions = [ImageExpression(usable[n][0].id, usable[n][0].text, usable[n][1]) for n in chosen]
        return DemoFrame(video, frame, tuple(expressions))


def clear_expressions(video: RenderedVideo, frame: int) -> list[tuple[RenderedExpression, bool]]:
    """The expressions that one frame answers, and whether they have a target in it."""
    static = [each for each in video.expressions if each.static]
    if not static:
        return []
    seen = video.targets(static, frame).sum((1, 2))
    return [
        (each, pixels > 0)
        for each, pixels in zip(static, seen.tolist(), strict=True)
        if pixels == 0 or pixels >= FEWEST_PIXELS
    ]
