"""Segmenting one video file or image folder, without any dataset or database."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fiftyone_refvos.masklet import Expression, Masklet
from fiftyone_refvos.segment import segment_frames
from fiftyone_refvos.video import FrameSource, VideoFrames, open_frames

if TYPE_CHECKING:  # networks take seconds to import, and `import fiftyone_refvos` should not
    from fiftyone_refvos.models.segmenter import Segmenter
    from fiftyone_refvos.zoo import RefVOSModel

FOLDER_RATE = 24  # frames per second of the overlay of an image folder, which has no rate of its own


@dataclass(frozen=True)
class SegmentedVideo:
    """What `segment_video` gives: one masklet per expression, and a video to look at."""

    masklets: list[Masklet]
    overlay: Path


def segment_video(
    path: str | Path,
    expressions: str | Sequence[str],
    *,
    model: str | RefVOSModel | Segmenter = "glus",
    output: str | Path | None = None,
    **options: Any,
) -> SegmentedVideo:
    """Segments one video file or image folder, without any dataset or database.

    Args:
        path: an mp4, or a folder of images
        expressions: what to look for
        model: a name of the registry, a model of `foz.load_zoo_model`, or a segmenter
        output: where the overlay video goes; by default `<name>_masklets.mp4` in the current folder
            (an existing file is replaced)
        options: of `fiftyone_refvos.models.loading.load_segmenter`, such as `device` or `checkpoint`

    Raises:
        VideoError: if the video cannot be read
        ValueError: for expressions that the model cannot take, or an overlay that cannot be written
    """
    target = _checked_target(Path(path), output)
    frames = open_frames(path)
    segmenter = _load(model, options)
    texts = [expressions] if isinstance(expressions, str) else expressions
    texts = list(dict.fromkeys(text.strip() for text in texts))
    asked = [Expression(str(number), text) for number, text in enumerate(texts)]
    masklets = segment_frames(segmenter, frames, asked)
    write_overlay(target, frames, masklets)
    return SegmentedVideo(masklets, target)


def _checked_target(path: Path, output: str | Path | None) -> Path:
    """Where the overlay goes, known to be writable before the work begins."""
    target = Path(output) if output is not None else Path(f"{path.stem}_masklets.mp4")
    if target.resolve() == path.resolve():
        raise ValueError(f"the overlay would replace the video {path}; name another output")
    if not os.access(target.parent, os.W_OK):
        raise ValueError(f"no overlay can be written to {target}: make the folder {target.parent.resolve()} first")
    return target


def _load(model: Any, options: dict[str, Any]) -> Segmenter:
    from fiftyone_refvos.models.loading import load_segmenter

    if isinstance(model, str):
        return load_segmenter(model, **options)
    if options:
        raise ValueError(f"the model is loaded already, so {', '.join(options)} cannot be set; load it with them")
    # A model of FiftyOne's zoo holds a segmenter, and where it is one of images, another one of videos.
    segmenter: Segmenter = model.for_videos().segmenter if hasattr(model, "for_videos") else model
    return segmenter


def write_overlay(path: Path, frames: FrameSource, masklets: Sequence[Masklet]) -> None:
    """Writes the video with all masklets drawn over it, each expression in a colour of its own."""
    from fiftyone_refvos.overlay import draw_masks, expression_colors, write_video

    colors = expression_colors(len(masklets))
    rate = frames.frame_rate if isinstance(frames, VideoFrames) else Fraction(FOLDER_RATE)
    pictures = (
        draw_masks(frame, np.stack([masklet.union(index) for masklet in masklets]), colors)
        for index, frame in enumerate(frames.read(range(len(frames))))
    )
    write_video(path, pictures, rate)
