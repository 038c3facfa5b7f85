"""What the training of MLLMSeg asks of data: images, expressions, and the pixels that an expression means.

It knows no FiftyOne: a view, generated images or a dataset's folder each become an `ImageSource`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fiftyone_refvos.masklet import BoolArray
from fiftyone_refvos.video import Frame


@dataclass(frozen=True, slots=True)
class ImageExpression:
    """One expression of an image.

    Attributes:
        id: unique in its image
        text: as written
        has_target: False where it means nothing in the image
    """

    id: str
    text: str
    has_target: bool = True


class TrainingImage(Protocol):
    """An image to train on."""

    @property
    def name(self) -> str:
        """Errors call the image so."""

    @property
    def expressions(self) -> Sequence[ImageExpression]:
        """What is said about the image; images without any target are drawn in vain where the training wants one."""

    def read(self) -> Frame:
        """`(H, W, 3) uint8` RGB."""

    def masks(self, expressions: Sequence[ImageExpression]) -> BoolArray:
        """The pixels of each of E expressions, `(E, H, W)`: of several objects all; none without a target."""


class ImageSource(Protocol):
    """Images of one dataset."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def __len__(self) -> int:
        """Number of images."""

    def image(self, index: int) -> TrainingImage:
        """The image number `index`, from 0; opened anew at each call."""
