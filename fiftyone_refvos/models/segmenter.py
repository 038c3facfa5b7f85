"""The one interface of every referring segmenter: frames and expressions in, streamed masks out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from fiftyone_refvos.masklet import Expression, FrameResult
from fiftyone_refvos.video import FrameSource


def check_request(frames: FrameSource, expressions: Sequence[Expression]) -> None:
    """Refuses what no model can work on.

    Raises:
        ValueError: for a video without frames, no expressions, or ids given twice
    """
    ids = [expression.id for expression in expressions]
    if not ids:
        raise ValueError(f"no expressions for {frames.name}; give at least one")
    if len(set(ids)) < len(ids):
        raise ValueError(f"the expression ids of {frames.name} are not unique: {ids}")
    if len(frames) == 0:
        raise ValueError(f"{frames.name} has no frames")


def check_key_frames(frames: FrameSource, expressions: Sequence[Expression], key_frames: Mapping[str, int]) -> None:
    """Refuses key frames that are not in the video, or of expressions that were not given.

    Raises:
        ValueError: for such a key frame
    """
    unknown = sorted(key_frames.keys() - {expression.id for expression in expressions})
    if unknown:
        raise ValueError(f"key frames for unknown expression ids: {unknown}")
    for identity, key in key_frames.items():
        if not 0 <= key < len(frames):
            raise ValueError(
                f"key frame {key} of expression {identity!r} is outside of {frames.name}, "
                f"whose frames are 0 to {len(frames) - 1}"
            )


class Segmenter(Protocol):
    """A network that finds what an expression names in the frames of a video."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """The settings that the masks depend on, as plain values."""
        ...

    def check(self, expression: Expression) -> None:
        """Raises a ValueError for an expression that the model cannot take."""
        ...

    def segment(
        self,
        frames: FrameSource,
        expressions: Sequence[Expression],
        *,
        key_frames: Mapping[str, int] | None = None,
    ) -> Iterator[FrameResult]:
        """Streams the masks of all expressions of a video, each (frame, expression) exactly once, in any order.

        Args:
            frames: the frames of one video
            expressions: what to look for; their ids are unique
            key_frames: frame index from 0 per expression id, from which to work in both directions; 0 by default

        Raises:
            ValueError: for expressions that the model cannot take (empty, too long, reserved tokens),
                or key frames outside the video
        """
        ...


@runtime_checkable
class ImageCapable(Protocol):
    """A segmenter of videos whose network knows single images, too."""

    def for_images(self) -> Segmenter:
        """The segmenter of images, each as a video of one frame."""
        ...
