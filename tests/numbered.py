"""Videos whose every picture carries its number, so that a wrong picture cannot pass for the right one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from fiftyone_refvos.video import Frame, FrameSource

_BITS = 8
# Every group of 12 has B-frames, and nothing in the pictures moves the key pictures.
X264 = {"g": "12", "bf": "3", "crf": "18", "x264-params": "b-adapt=0:scenecut=0"}


def numbered(number: int, width: int = 80, height: int = 48) -> Frame:
    """A picture with its number as a strip of black and white blocks, and a red and a green side."""
    frame = np.full((height, width, 3), (200, 40, 40), dtype=np.uint8)
    frame[:, width // 2 :] = (40, 160, 40)
    block = width // _BITS
    for bit in range(_BITS):
        frame[: height // 2, bit * block : (bit + 1) * block] = 255 * (number >> bit & 1)
    return frame


def number_of(frame: Frame) -> int:
    """The number in a picture of `numbered`."""
    block = frame.shape[1] // _BITS
    row = frame[frame.shape[0] // 4, :, 1]
    return sum(int(row[bit * block + block // 2] > 128) << bit for bit in range(_BITS))


def numbers(source: FrameSource, indices: Iterable[int] | None = None) -> list[int]:
    """The numbers of the frames of a source, by default of all in order."""
    return [number_of(frame) for frame in source.read(range(len(source)) if indices is None else indices)]


def encode(
    path: Path,
    frames: Sequence[Frame],
    *,
    rate: Fraction | int = 25,
    stamps: Sequence[int] | None = None,
    tick: Fraction | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    rotation: int = 0,
) -> Path:
    """Writes a video with the given presentation times, in ticks; by default at a constant rate from 0."""
    options = options if options is not None else (X264 if codec == "libx264" else {})
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = tick or 1 / Fraction(rate)
        if rotation:
            stream.set_display_rotation(rotation)
        for stamp, frame in zip(stamps or range(len(frames)), frames, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = stamp, stream.codec_context.time_base
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def ffmpeg(*arguments: str | Path) -> None:
    """Runs the command-line program."""
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True)


PICTURES = [numbered(number) for number in range(60)]


# Times in ms, and the pictures that Chromium 156 shows at them, sought to (i + 0.01) / 23.885 as by the App.
_TIMES = """0 7 107 147 187 227 247 267 287 307 314 414 421 461 561 568 668 768 808 848 855 895 902 1002 1022
1062 1069 1109 1129 1229"""
_SHOWN = "0 1 1 2 3 4 6 8 10 10 11 12 13 13 15 15 16 16 16 17 18 20 22 22 23 24 26 28 28 28"
VARIABLE_TIMES = [int(number) for number in _TIMES.split()]
VARIABLE_SHOWN = [int(number) for number in _SHOWN.split()]


def variable(path: Path) -> Path:
    """Writes a video of variable rate: the times are VARIABLE_TIMES, the frames show VARIABLE_SHOWN."""
    return encode(path, PICTURES[:30], stamps=VARIABLE_TIMES, tick=Fraction(1, 1000))
