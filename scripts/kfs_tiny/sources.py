"""Rendered videos whose expressions have a label in every frame: what the selector learns, and from what."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from fiftyone_refvos.demo.rendered import RenderedVideo, RenderedVideos
from fiftyone_refvos.training.selector.sources import LabelledExpression
from fiftyone_refvos.video import Frame

Labels = Callable[[RenderedVideo], Mapping[str, Sequence[float]]]
"""The label of every frame of a video per expression id, of those expressions that have labels."""

_BEST, _HALF = 0.9, 40
"""About what glus-tiny's masks reach, and the pixels (of 160 x 160) from which they reach half of it."""

_TOUCHED, _ROOM = 0.35, 20.0
"""The share of it that is lost where objects touch, and from how many pixels between them on nothing is lost.

Of 140 expressions whose IoU differs by much, such labels have a rank correlation with the IoU of glus-tiny's masks of
0.58; what can be seen alone has 0.41.
"""


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


class Seen:
    """`Labels` that masks alone tell: what a good segmenter's IoU would be by what can be seen of the objects.

    It falls where little of them can be seen, and where other objects are near.
    """

    def __init__(self) -> None:
        self._known: dict[str, Sight] = {}

    def sight(self, video: RenderedVideo) -> Sight:
        """The sight of a video, computed once for it and its mirrored twin."""
        name = video.name.split(" ")[0]
        if name not in self._known:
            self._known[name] = Sight.of(video)
        return self._known[name]

    def __call__(self, video: RenderedVideo) -> dict[str, list[float]]:
        """The labels of all expressions with an object."""
        sight, found = self.sight(video), {}
        for expression in video.expressions:
            if expression.object_ids:
                meant = [int(number) for number in expression.object_ids]
                areas = sight.areas[:, meant]
                total = areas.sum(1)
                room = (areas * sight.room(meant)).sum(1) / np.maximum(total, 1)
                ious = _BEST * total / (total + _HALF) * (1 - _TOUCHED * (1 - room))
                found[expression.id] = ious.tolist()
        return found


@dataclass(frozen=True)
class Sight:
    """What can be seen of each object in each frame.

    Attributes:
        areas: `(T, objects)` pixels
        gaps: `(T, objects, objects)` pixels from one to the next, 1 where they touch; infinite where
            one is not seen, and to itself
    """

    areas: NDArray[np.int64]
    gaps: NDArray[np.float32]

    @classmethod
    def of(cls, video: RenderedVideo) -> Sight:
        """Looks at every frame."""
        areas = pixel_counts(video)[:, 1:]
        gaps = np.full((*areas.shape, areas.shape[1]), np.inf, np.float32)
        for frame, one in np.argwhere(areas > 0):
            labels = np.asarray(video.labels[frame])
            far = distance_transform_edt(labels != one + 1)
            for other in np.flatnonzero(areas[frame]):
                if other != one:
                    gaps[frame, other, one] = far[labels == other + 1].min()
        return cls(areas, gaps)

    def room(self, meant: Sequence[int]) -> NDArray[np.float32]:
        """How far away other objects are from each that is meant, `(T, meant)` in [0, 1], of `_ROOM` pixels."""
        others = [number for number in range(self.areas.shape[1]) if number not in meant]
        return np.minimum(self.gaps[:, meant][:, :, others].min(2, initial=_ROOM), _ROOM) / _ROOM

    @cached_property
    def clearness(self) -> NDArray[np.float32]:
        """How clearly each object can be seen: the share of its pixels, and its room; NaN where it cannot be seen.

        Returns:
            `(T, objects, 2)` in [0, 1]
        """
        rooms = [self.room([number])[:, 0] for number in range(self.areas.shape[1])]
        clear = np.stack([self.areas / np.maximum(self.areas.max(0), 1), np.stack(rooms, axis=1)], axis=2)
        return np.where(self.areas[..., None] > 0, clear, np.nan).astype(np.float32)


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
