"""The pictures of one video file: when each is shown, and decoding them in any order with bounded memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

APP_OFFSET = 0.01  # of a frame: the App seeks to (frame number - 1 + 0.01) / frame_rate
SEEK_GAP = 16  # pictures; decoding so many costs no more than a seek, which empties the decoder's threads
KEPT_PICTURES = 32  # reading backwards decodes a group of pictures once per so many, not once per frame
KEPT_BYTES = 128 * 2**20  # fewer are kept of large ones
MEND = "copy or download it again, or convert it: `ffmpeg -i in.mp4 -c:v libx264 -pix_fmt yuv420p out.mp4`"


class VideoError(ValueError):
    """A video or image folder that cannot be read: which one, what is wrong with it, and how to mend it."""

    def __init__(self, path: Path | str, problem: str, remedy: str) -> None:
        super().__init__(str(path), problem, remedy)  # all three, so that worker processes can pickle it
        self.path = Path(path)

    def __str__(self) -> str:
        path, problem, remedy = self.args
        return f"{path}: {problem}; {remedy}"


def open_container(path: Path) -> tuple[InputContainer, VideoStream]:
    """Opens a video file: the container, which the caller closes, and its first video stream.

    Raises:
        VideoError: if it is no video
    """
    try:
        container = av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise VideoError(path, f"is no readable video ({error.strerror})", MEND) from error
    if not container.streams.video:
        container.close()
        raise VideoError(path, "has no video stream", "give a file with pictures")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return container, stream


def upright(picture: av.VideoFrame) -> NDArray[np.uint8]:
    """The pixels of a picture as RGB `(H, W, 3) uint8`, turned and mirrored as the file says."""
    pixels = picture.to_ndarray(format="rgb24")
    matrix: Any = picture.side_data.get("DISPLAYMATRIX")  # a buffer, which PyAV's stubs do not know
    if matrix is not None:
        # x' = a x + c y, y' = b x + d y; for quarter turns two of the four are 0, the others ±1 (as 16.16).
        a, b, _, c, d = np.frombuffer(matrix, dtype=np.int32)[:5].tolist()
        if abs(b) > abs(a):
            pixels, a, d = pixels.transpose(1, 0, 2), c, b
        pixels = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(pixels)


@dataclass(frozen=True)
class Timetable:
    """Which picture of a file is on screen at each frame, known without decoding any.

    Attributes:
        stamps: presentation times of the pictures, ascending, in ticks; pictures are known by their rank
        keys: ranks of the pictures at which decoding can start, ascending
        ranks: `(num_frames,)` rank of the picture of each frame; len(stamps) where the file was cut off
        start_time: seconds from the time 0 of the file to its first picture
        timed: whether the file tells the times; if not, pictures count as they come and `stamps` are ranks
    """

    stamps: list[int]
    keys: list[int]
    ranks: NDArray[np.intp]
    start_time: float
    timed: bool


class _Packet(NamedTuple):
    pts: int | None
    dts: int | None
    key: bool
    hidden: bool  # by an edit list: decoded, never shown


def read_timetable(path: Path, frame_rate: Fraction) -> Timetable:
    """Reads the packets of a video file once, for the picture of each frame (the rule is in `video.py`)."""
    container, stream = open_container(path)
    packets: list[_Packet] = []
    with container:
        with suppress(av.FFmpegError):  # what was read so far is what there is
            for packet in _whole_packets(container, stream):
                packets.append(_Packet(packet.pts, packet.dts, packet.is_keyframe, packet.is_discard))
        tick = stream.time_base or Fraction(1)
        lost = max(0, stream.frames - len(packets)) if _has_sample_table(container) else 0
        length = stream.duration * tick if stream.duration else Fraction(container.duration or 0, av.time_base)
        counted = bool(stream.frames)
    shown = [packet for packet in packets if not packet.hidden]
    num_frames = len(shown) + lost
    if lost:
        # Packets are stored in decoding order, so a lost one may be shown between two that are there. But
        # none is shown before it is decoded, so what is shown by the last decoding time is complete.
        cut = max((packet.dts for packet in packets if packet.dts is not None), default=0)
        shown = [packet for packet in shown if packet.pts is None or packet.pts <= cut]
    stamps = sorted({packet.pts for packet in shown if packet.pts is not None})
    if len(stamps) < len(shown):  # times are missing or given twice: raw H.264, some AVI
        ranks = np.minimum(np.arange(num_frames), len(shown))
        return Timetable(list(range(len(shown))), [], ranks, 0.0, timed=False)
    if _equidistant(stamps) or not frame_rate:
        ranks = np.minimum(np.arange(num_frames), len(stamps))
    else:
        if not counted:  # FiftyOne's count, but no still at the end where the rest of the file was lost
            shown_for = int(stamps[-1] - stamps[0] + np.diff(stamps).max()) * tick
            num_frames = max(1, round(min(length, shown_for) * frame_rate))
        ranks = _on_screen(stamps, num_frames, float(frame_rate * tick), complete=not lost)
    keys = {packet.pts for packet in shown if packet.key}
    start_time = float(stamps[0] * tick) if stamps else 0.0
    return Timetable(stamps, [i for i, stamp in enumerate(stamps) if stamp in keys], ranks, start_time, timed=True)


def _has_sample_table(container: InputContainer) -> bool:
    """Whether the container counts its packets exactly; elsewhere the number is missing or an estimate."""
    return "mp4" in container.format.name


def _whole_packets(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """The packets in decoding order, up to the one in whose midst an mp4 was cut off."""
    for packet in container.demux(stream):
        if packet.is_corrupt and _has_sample_table(container):
            return
        if packet.size:  # the last one is empty: PyAV's sign to empty the decoder
            yield packet


def _equidistant(stamps: list[int]) -> bool:
    """Whether the times are those of a constant rate, but for rounding to whole ticks."""
    if len(stamps) < 3:
        return True
    return bool(np.abs(np.linspace(stamps[0], stamps[-1], len(stamps)) - stamps).max() <= 1)


def _on_screen(stamps: list[int], num_frames: int, frames_per_tick: float, *, complete: bool) -> NDArray[np.intp]:
    """`(num_frames,)` rank of the last picture that is shown by the time at which the App looks."""
    times = np.array(stamps) - stamps[0]
    instants = (np.arange(num_frames) + APP_OFFSET) / frames_per_tick
    ranks = np.searchsorted(times, instants, side="right") - 1
    if not complete:
        ranks[instants > times[-1]] = len(stamps)
    return ranks


class Cursor:
    """Decodes pictures of a video file by rank, and keeps the last few; close it after use."""

    def __init__(self, path: Path, timetable: Timetable) -> None:
        self._path, self._table = path, timetable
        self._recent: dict[int, av.VideoFrame] = {}  # rank -> picture, oldest first
        self._container, self._stream = open_container(path)
        self._start(0, jumped=False)

    def close(self) -> None:
        """Closes the file."""
        self._container.close()

    def picture(self, rank: int) -> av.VideoFrame:
        """The picture of the given rank.

        Raises:
            VideoError: if decoding stops before it
        """
        if rank in self._recent:
            return self._recent[rank]
        if rank >= len(self._table.stamps):
            raise self._stopped(rank)
        key = self._table.keys[max(0, bisect_right(self._table.keys, rank) - 1)] if self._table.keys else 0
        if self._next > rank or key > self._next + SEEK_GAP:
            self._jump(key)
        passed = self._decode_until(rank)
        if rank not in self._recent and self._jumped:  # not every file can be entered where it says
            self._rewind()
            passed = self._decode_until(rank)
        if rank not in self._recent:
            if not passed:
                raise self._stopped(rank)
            # Some packets give no picture (leading ones of a cut stream, hidden ones of VP8): as in a player,
            # the picture before stays on screen.
            before = max((kept for kept in self._recent if kept < rank), default=self._next - 1)
            self._recent[rank] = self._recent[before]
        return self._recent[rank]

    def _decode_until(self, rank: int) -> bool:
        """Decodes on to the picture of that rank, or past it if it is missing; False at the end."""
        for found, picture in self._pictures:
            self._next = found + 1
            self._recent[found] = picture
            size = sum(plane.buffer_size for plane in picture.planes)
            while len(self._recent) > max(2, min(KEPT_PICTURES, KEPT_BYTES // size)):
                del self._recent[next(iter(self._recent))]
            if found >= rank:
                return True
        return False

    def _rewind(self) -> None:
        """Goes to the first picture, by opening the file anew: right for every container."""
        self._container.close()
        self._container, self._stream = open_container(self._path)
        self._start(0, jumped=False)

    def _jump(self, key: int) -> None:
        """Goes to a key picture."""
        if key == 0:
            self._rewind()
            return
        try:
            self._container.seek(self._table.stamps[key], stream=self._stream)
            self._start(key, jumped=True)
        except av.FFmpegError:
            self._rewind()

    def _start(self, rank: int, *, jumped: bool) -> None:
        self._next, self._jumped = rank, jumped
        self._pictures: Iterator[tuple[int, av.VideoFrame]] = self._decode(
            self._table.stamps[rank] if jumped else None
        )

    def _decode(self, start: int | None) -> Iterator[tuple[int, av.VideoFrame]]:
        """Yields (rank, picture) as shown, from the key picture of time `start`, or the very first, on."""
        stamps = self._table.stamps
        for count, picture in enumerate(self._decode_packets(start)):
            if not self._table.timed:
                yield count, picture
            elif picture.pts is not None:
                rank = bisect_left(stamps, picture.pts)
                if stamps[rank : rank + 1] == [picture.pts]:
                    yield rank, picture

    def _decode_packets(self, start: int | None) -> Iterator[av.VideoFrame]:
        entered: int | None = None
        try:
            for packet in chain(_whole_packets(self._container, self._stream), [None]):  # None: what is left
                if packet is not None and start is not None and entered is None:
                    if not packet.is_keyframe:
                        continue
                    if packet.pts is None or packet.pts > start:
                        return  # the jump went too far
                    entered = packet.pts
                for picture in self._stream.decode(packet):
                    # Shown before the key picture but stored after it (open groups): needs what lies before.
                    if entered is None or (picture.pts is not None and picture.pts >= entered):
                        yield picture
        except av.FFmpegError:
            return  # what is left in the decoder may be built on the broken picture

    def _stopped(self, rank: int) -> VideoError:
        ranks = self._table.ranks
        frame = int(np.searchsorted(ranks, rank))
        problem = f"decoding stopped at frame {frame} of {len(ranks)} (frames 0 to {frame - 1} can be read)"
        return VideoError(self._path, problem if frame else f"no frame of {len(ranks)} can be decoded", MEND)
