"""What the trainer asks of data: videos, expressions, and the pixels that an expression means in a frame.

The trainer knows no FiftyOne: a view, generated videos or a dataset's folder each become a `TrainingSource`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fiftyone_refvos.video import Frame


@dataclass(frozen=True, slots=True)
class TrainingExpression:
    """One expression of a video.

    Attributes:
        id: unique in its video
        text: as written
        object_ids: the objects that are meant; none for an expression without a target
        frames: indices of the frames whose target is known, from which alone query frames are drawn; None for all
    """

    id: str
    text: str
    object_ids: tuple[str, ...]
    frames: frozenset[int] | None = None


class TrainingVideo(Protocol):
    """A video to train on: a `FrameSource` that also knows its expressions and their targets."""

    @property
    def name(self) -> str:
        """Unique in its source; errors and the token bank call the video so."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of every frame."""

    @property
    def expressions(self) -> Sequence[TrainingExpression]:
        """What is said about the video."""

    def __len__(self) -> int:
        """T, the number of frames."""

    def frame_name(self, index: int) -> str:
        """The name of a frame: its file name without suffix, or its number."""

    def read(self, indices: Iterable[int]) -> Iterator[Frame]:
        """The frames of the given indices (from 0) in the given order, `(H, W, 3) uint8` RGB."""

    def targets(self, expressions: Sequence[TrainingExpression], index: int) -> NDArray[np.uint8]:
        """How many objects of each of E expressions cover each pixel of a frame, `(E, H, W)`.

        The published loaders sum the masks of an expression's objects: where two overlap the value is 2.
        """


class TrainingSource(Protocol):
    """Videos of one dataset."""

    @property
    def name(self) -> str:
        """What logs and the mixture call it."""

    @property
    def contrastive(self) -> bool:
        """Whether the object contrastive loss applies (published: MeViS alone)."""

    def __len__(self) -> int:
        """Number of videos, all of which have an expression whose target is known in enough frames in a row."""

    def video(self, index: int) -> TrainingVideo:
        """The video number `index`, from 0; opened anew at each call."""
