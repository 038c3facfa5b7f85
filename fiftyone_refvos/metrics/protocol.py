"""What every protocol is: a named way to score the units of a video, and to average them over a dataset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fiftyone_refvos.metrics.video import Summary, UnitScores, VideoMasks


@dataclass(frozen=True, kw_only=True)
class Protocol(ABC):
    """A published evaluation, reproduced number by number.

    `score` works on one video, so that a dataset can be streamed, or its videos shared among processes; the
    scores of all videos together go into `summarize`.

    Attributes:
        name: of the protocol, as in `PROTOCOLS`
        description: the program that it follows and what is particular about it
    """

    name: str
    description: str

    @abstractmethod
    def score(self, video: VideoMasks) -> list[UnitScores]:
        """The scores of all units of a video.

        Raises:
            ValueError: for missing frames, bad masks and unknown ids, named in the message; where the official
                program stops for a missing prediction, for that too
        """

    @abstractmethod
    def summarize(self, scores: Sequence[UnitScores]) -> Summary:
        """The values of a dataset from the scores of all its videos; NaN where there is nothing to average."""

    def evaluate(self, videos: Iterable[VideoMasks]) -> Summary:
        """Scores videos one after the other, and summarizes them."""
        return self.summarize([unit for video in videos for unit in self.score(video)])


def mean(values: Iterable[float]) -> float:
    """The mean as `np.mean` makes it, as float; NaN, without a warning, if there are no values."""
    array = np.array([*values], dtype=np.float64)
    return float(np.mean(array)) if array.size else float("nan")


def inner_frames(video: VideoMasks) -> slice:
    """All frames but the first and the last, which semi-supervised protocols leave out.

    Raises:
        ValueError: if no frame remains
    """
    if len(video.frames) < 3:
        raise ValueError(f"{video.name}: first and last frame are not counted, none of {len(video.frames)} remains")
    return slice(1, -1)
