"""What is asked of a file of predictions, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.masks import parse_rle
from fiftyone_refvos.datasets.records import Size
from fiftyone_refvos.masklet import RLE


@dataclass(frozen=True)
class Wanted:
    """One expression of one video.

    Attributes:
        video: name of the video
        expression_id, text: of the expression
        folders: where a submission may have its masks, `<video>/<expression>`, the usual one first
        frames: the T names of the frames, without suffix
        size: (H, W) of the frames
    """

    video: str
    expression_id: str
    text: str
    folders: tuple[str, ...]
    frames: tuple[str, ...]
    size: Size

    def __str__(self) -> str:
        return f"expression {self.expression_id!r} of video {self.video!r}"


@dataclass(frozen=True)
class Prediction:
    """The masks of one expression.

    Attributes:
        masks: for each of the T frames one RLE per object, None where it is empty; N objects everywhere
        scores: `(N,)` of the objects, in [0, 1]
    """

    masks: tuple[tuple[RLE | None, ...], ...]
    scores: tuple[float, ...]


class PredictionSource(Protocol):
    """A folder, archive or file with predictions."""

    def videos(self) -> set[str]:
        """The names of the videos, or the beginnings of names, that it has something of."""
        ...

    def read(self, wanted: Wanted) -> Prediction | None:
        """The masks of an expression; None if there are none of it.

        Raises:
            DatasetError: for missing frames, masks of another size and damaged ones
        """
        ...


def rle_per_frame(values: object, wanted: Wanted, where: str) -> tuple[RLE | None, ...]:
    """A list of RLEs, one per frame.

    Raises:
        DatasetError: for another number, another size and damaged ones
    """
    if not isinstance(values, list) or len(values) != len(wanted.frames):
        count = len(values) if isinstance(values, list) else "no list of"
        raise DatasetError(f"{where}: there are {count} masks for {len(wanted.frames)} frames of {wanted}")
    return tuple(
        parse_rle(value, wanted.size, f"{where}, {wanted}, frame {name}")
        for value, name in zip(values, wanted.frames, strict=True)
    )
