"""Rendered videos whose expressions have a label in every frame: what the selector learns, and from what."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fiftyone_refvos.demo.rendered import RenderedVideo, RenderedVideos
from fiftyone_refvos.training.selector.sources import LabelledExpression
from fiftyone_refvos.video import Frame

Labels = Callable[[RenderedVideo], Mapping[str, Sequence[float]]]
"""The label of every frame of a video per expression id, of those expressions that have labels."""

_BEST, _HALF = 0.9, 40
"""About what glus-tiny's masks reach, and the pixels (of 160 x 160) from which they reach half of it."""


@dataclass(frozen=True)
class LabelledRendering:
    """A rendered video as `LabelledVideo` has it."""

    video: RenderedVideo
    expressions: tuple[LabelledExpression, ...]

    @property
    def name(self) -> str:
        return self.video.name

    @property
    def size(self) -> tuple[int, int]:
        return self.video.size

    def __len__(self) -> int:
        return len(self.video)

    def read(self, indices: Iterable[int]) -> Iterator[Frame]:
        return self.video.read(indices)


class LabelledRenderings:
    """A `LabelSource` of rendered videos.

    Args:
        videos: of which some are taken
        numbers: which
        labels: of their expressions
    """

    name = "demo"

    def __init__(self, videos: RenderedVideos, numbers: Sequence[int], labels: Labels) -> None:
        self._videos, self._numbers, self._labels = videos, numbers, labels

    def __len__(self) -> int:
        return len(self._numbers)

    def video(self, index: int) -> LabelledRendering:
        video = self._videos.video(self._numbers[index])
        labels = self._labels(video)
        return LabelledRendering(
            video,
            tuple(
                LabelledExpression(each.id, each.text, tuple(labels[each.id]))
                for each in video.expressions
                if each.id in labels
            ),
        )


def seen(video: RenderedVideo) -> dict[str, list[float]]:
    """What a good segmenter's IoU would be by what can be seen of the objects alone; nothing without objects."""
    counts, found = pixel_counts(video), {}
    for expression in video.expressions:
        if expression.object_ids:
            areas = counts[:, [int(number) + 1 for number in expression.object_ids]].sum(1)
            found[expression.id] = (_BEST * areas / (areas + _HALF)).tolist()
    return found


def pixel_counts(video: RenderedVideo) -> NDArray[np.int64]:
    """How many pixels show each object in each frame, `(T, 1 + objects)`, the background first."""
    count = 1 + len(video.objects)
    return np.stack([np.bincount(labels.ravel(), minlength=count) for labels in video.labels])


def label_files(folder: Path) -> Labels:
    """The labels in a folder of label files; a mirrored video has those of the video."""

    def read(video: RenderedVideo) -> dict[str, list[float]]:
        files = (folder / video.name.split(" ")[0]).glob("*.json")
        return {path.stem: json.loads(path.read_text()) for path in files}

    return read
