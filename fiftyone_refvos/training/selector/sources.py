"""What the training of the selector asks of data: videos, expressions, and how good each frame is for each.

It knows no FiftyOne: a view or a folder of label files each become a `LabelSource`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from fiftyone_refvos.video import Frame


@dataclass(frozen=True, slots=True)
class LabelledExpression:
    """One expression of a video.

    Attributes:
        id: unique in its video
        text: as written
        labels: `(T,)` the pseudo-label of every frame of the video; None where there is none
    """

    id: str
    text: str
    labels: tuple[float | None, ...]

    @property
    def known(self) -> frozenset[int]:
        """Indices of the frames that have a label."""
        return frozenset(index for index, label in enumerate(self.labels) if label is not None)


class LabelledVideo(Protocol):
    """A video to train on: a `FrameSource` that also knows its expressions and their labels."""

    @property
    def name(self) -> str:
        """Unique in its source; errors call the video so."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of every frame."""

    @property
    def expressions(self) -> Sequence[LabelledExpression]:
        """What is said about the video; each has a label in some frame."""

    def __len__(self) -> int:
        """T, the number of frames."""

    def read(self, indices: Iterable[int]) -> Iterator[Frame]:
        """The frames of the given indices (from 0) in the given order, `(H, W, 3) uint8` RGB."""


class LabelSource(Protocol):
    """Videos of one dataset."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def __len__(self) -> int:
        """Number of videos."""

    def video(self, index: int) -> LabelledVideo:
        """The video number `index`, from 0; opened anew at each call."""
