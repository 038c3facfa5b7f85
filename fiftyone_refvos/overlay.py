"""Pictures of masks over frames, and H.264 videos that the FiftyOne App plays frame by frame."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from numpy.typing import ArrayLike, NDArray

from fiftyone_refvos.decoding import read_timetable
from fiftyone_refvos.masklet import BoolArray
from fiftyone_refvos.video import Frame

# Okabe and Ito's palette without black, which a dark frame would swallow; the most contrasting ones first.
_PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


def expression_colors(count: int) -> NDArray[np.uint8]:
    """Distinct colours that colour-blind people can tell apart: `(count, 3) uint8` RGB.

    Colour k is the same for every `count`. The first 7 are Okabe and Ito's; further rounds are lighter and
    darker versions of them, which differ less and less.

    Raises:
        ValueError: if `count` is negative
    """
    if count < 0:
        raise ValueError(f"the number of colours must not be negative, got {count}")
    colors = np.zeros((count, 3), dtype=np.uint8)
    for k in range(count):
        turn, hue = divmod(k, len(_PALETTE))
        towards = 255 if turn % 2 else 0
        share = 0.7 * _scattered((turn + 1) // 2)
        colors[k] = np.round((1 - share) * np.array(_PALETTE[hue]) + share * towards)
    return colors


def draw_masks(frame: Frame, masks: BoolArray, colors: ArrayLike, alpha: float = 0.45) -> Frame:
    """Draws masks over a frame: filled, translucent, with an opaque contour just inside each mask.

    Pixels outside all masks stay as they are. Later masks lie over earlier ones, contours over all of them.

    Args:
        frame: `(H, W, 3) uint8` RGB; stays as it is
        masks: `(N, H, W) bool`
        colors: `(N, 3)` RGB in [0, 255], one per mask
        alpha: share of the colour in the filled part, in [0, 1]

    Returns:
        a new frame, `(H, W, 3) uint8` RGB

    Raises:
        ValueError: if shapes do not fit or alpha is outside [0, 1]
    """
    masks, colors = np.asarray(masks, dtype=bool), np.asarray(colors).reshape(-1, 3)
    if masks.ndim != 3 or masks.shape[1:] != frame.shape[:2]:
        raise ValueError(f"expected masks of shape (N, {frame.shape[0]}, {frame.shape[1]}), got {masks.shape}")
    if len(colors) != len(masks):
        raise ValueError(f"expected one colour per mask, got {len(colors)} for {len(masks)} masks")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
    drawn = frame.copy()
    for mask, color in zip(masks, colors, strict=True):
        drawn[mask] = np.round((1 - alpha) * drawn[mask] + alpha * color)
    for mask, color in zip(masks, colors, strict=True):
        drawn[_contour(mask, contour_width(mask.shape))] = color
    return drawn


def contour_width(size: tuple[int, ...]) -> int:
    """How many pixels wide contours are drawn in a frame of a size (H, W)."""
    return max(1, round(min(size) / 240))


def write_video(
    path: Path | str,
    frames: Iterable[Frame],
    frame_rate: float | Fraction,
    *,
    crf: int = 18,
    gop_size: int = 12,
) -> int:
    """Writes frames as a constant-rate H.264 mp4 that browsers play at once, in which frame k is image k.

    The file appears under its name only when it is complete and the number of its frames was checked. Odd
    sizes are padded to even ones by repeating the last column or row, because yuv420p knows no odd ones.

    Args:
        path: the mp4 to write; an existing one is replaced
        frames: `(H, W, 3) uint8` RGB images, all of one size; one at a time is in memory
        frame_rate: frames per second
        crf: quality of the encoder, from 0 (lossless, large) to 51; 18 looks like the original
        gop_size: the greatest distance of key pictures, in frames; small for quick seeks

    Returns:
        the number of frames

    Raises:
        ValueError: if there is no frame, frames differ in size or are not uint8, or the rate is not positive
    """
    path, rate = Path(path), Fraction(frame_rate).limit_denominator(1001)  # 29.97... is 30000/1001
    if rate <= 0:
        raise ValueError(f"the frame rate must be positive, got {frame_rate}")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        count = _encode(unfinished, _padded(frames), rate, {"crf": str(crf), "g": str(gop_size)})
        found = len(read_timetable(unfinished, rate).ranks)
        if found != count:
            raise RuntimeError(f"{path}: {count} frames were written, but the file has {found}; please report this")
        os.replace(unfinished, path)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()
    return count


def _padded(frames: Iterable[Frame]) -> Iterator[Frame]:
    """The frames, checked, with even sides."""
    shape = None
    for index, frame in enumerate(frames):
        shape = frame.shape if shape is None else shape
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"expected frames (H, W, 3) uint8, frame {index} is {frame.shape} {frame.dtype}")
        if frame.shape != shape:
            raise ValueError(f"all frames must be of one size: frame {index} is {frame.shape}, the first is {shape}")
        yield np.pad(frame, ((0, shape[0] % 2), (0, shape[1] % 2), (0, 0)), mode="edge")


def _encode(path: Path, frames: Iterator[Frame], rate: Fraction, options: dict[str, str]) -> int:
    first = next(frames, None)
    if first is None:
        raise ValueError("there is no frame to write")
    count = 0
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1  # several threads give other bytes at every run
        _declare_colors(stream)
        for count, frame in enumerate(chain([first], frames), start=1):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
            )
            picture.pts, picture.time_base = count - 1, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return count


def _declare_colors(stream: VideoStream) -> None:
    # Undeclared, browsers take large videos for BT.709, while FFmpeg writes BT.601: colours are off by up
    # to 40 of 255.
    context = stream.codec_context
    context.colorspace = context.color_primaries = context.color_trc = 1  # BT.709
    context.color_range = ColorRange.MPEG.value


def _contour(mask: BoolArray, width: int) -> BoolArray:
    """The pixels of a mask `(H, W) bool` within `width` steps of its outside; the frame's border is none."""
    inside = mask
    for _ in range(width):
        around = np.pad(inside, 1, mode="edge")
        inside = inside & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return mask & ~inside


def _scattered(number: int) -> float:
    """The van der Corput sequence 0, 1/2, 1/4, 3/4, 1/8, ...: every new number is far from all before."""
    return sum(int(bit) / 2 ** (place + 1) for place, bit in enumerate(reversed(f"{number:b}")))
