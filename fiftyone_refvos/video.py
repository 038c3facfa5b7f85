"""Frames of a video: an mp4 or an image folder, sequentially or by index.

Which picture is frame i (from 0; FiftyOne's frame number is i + 1):

- Constant rate (the presentation times are equidistant): the i-th picture, at whatever time the first starts.
- Variable rate: the picture on screen `(i + 0.01) / frame_rate` seconds after the first one, because that is
  where the player of the FiftyOne App seeks for frame number i + 1. So pictures may repeat or be left out,
  exactly as in the App. The last picture stays on screen to the end.

The frame rate is the container's average, as in `sample.metadata.frame_rate`. Pictures that an edit list
hides are no frames, although ffprobe's `nb_frames` counts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Protocol

import av
import numpy as np
from numpy.typing import NDArray

from fiftyone_refvos.decoding import (
    MEND,
    Cursor,
    Timetable,
    VideoError,
    open_container,
    read_timetable,
    upright,
)
from fiftyone_refvos.image_files import read_image

__all__ = ["FolderFrames", "Frame", "FrameSource", "VideoError", "VideoFrames", "clip", "open_frames"]
__all__ += ["open_frames_dir", "open_video"]

Frame = NDArray[np.uint8]

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


class FrameSource(Protocol):
    """The frames of one video, all of one size, numbered from 0."""

    @property
    def name(self) -> str:
        """What errors call this video: a path."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of every frame, as displayed."""
        ...

    def __len__(self) -> int:
        """The number of frames."""
        ...

    def read(self, indices: Iterable[int]) -> Iterator[Frame]:
        """Yields the RGB frames `(H, W, 3) uint8` of the given indices, in the given order."""
        ...


def open_frames(path: Path | str) -> FrameSource:
    """Opens a video file or an image folder.

    Raises:
        VideoError: as `open_video` and `open_frames_dir`
    """
    return open_frames_dir(path) if Path(path).is_dir() else open_video(path)


def open_video(path: Path | str) -> VideoFrames:
    """Opens a video file; its first picture is decoded, the rest is looked at when it is needed.

    Raises:
        VideoError: if the file is missing, empty, not a video, or cut off before its first picture
    """
    path = Path(path)
    if path.is_dir():
        raise VideoError(path, "is a folder", "open the images in it with open_frames_dir")
    if not path.exists():
        raise VideoError(path, "there is no such file", "check the path")
    if path.stat().st_size == 0:
        raise VideoError(path, "the file is empty (0 bytes)", MEND)
    container, stream = open_container(path)
    with container:
        frame_rate = stream.average_rate or stream.base_rate or 0  # FiftyOne has the same substitute
        try:
            height, width = upright(next(container.decode(stream))).shape[:2]
        except (StopIteration, av.FFmpegError) as error:
            raise VideoError(path, "no picture of it can be decoded", MEND) from error
    return VideoFrames(path, (height, width), Fraction(frame_rate))


def open_frames_dir(folder: Path | str, names: Sequence[str] | None = None) -> FolderFrames:
    """Opens an image folder as a video; only the first image is read here.

    They are read as `image_files` says, which is as `cv2.imread` does it, with which the datasets' tools read them.

    Args:
        folder: the folder of the images
        names: the file names in temporal order; by default all images but hidden files, by number where the
            name is a number, else in lexicographic order

    Raises:
        VideoError: if the folder is missing or has no images, or the first image cannot be read
    """
    folder = Path(folder)
    if not folder.is_dir():
        problem = "is no folder" if folder.exists() else "there is no such folder"
        raise VideoError(folder, problem, "give the folder that holds the frames of the video")
    if names is None:
        found = (file.name for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        names = sorted((name for name in found if not name.startswith(".")), key=_frame_order)
    if not names:
        raise VideoError(folder, "holds no images", f"put the frames there as {', '.join(IMAGE_SUFFIXES)}")
    height, width = read_image(folder / names[0]).shape[:2]
    return FolderFrames(folder, tuple(names), (height, width))


def clip(source: FrameSource, first: int, last: int) -> FrameSource:
    """The frames `first` to `last` of a source, both included and from 0, numbered from 0 again.

    Raises:
        IndexError: if not 0 <= first <= last < len(source)
    """
    if not 0 <= first <= last < len(source):
        problem = f"frames {first} to {last} are no clip of {source.name}"
        raise IndexError(f"{problem}: its frames are 0 to {len(source) - 1}")
    return _Clip(source, first, last)


@dataclass(frozen=True)
class VideoFrames:
    """The frames of a video file; holds no open file, so that it can be pickled and read by several at once.

    Attributes:
        path: the video file
        size: (H, W) as displayed: rotated as the file says; pixels that are not square stay as they are
        frame_rate: frames per second, the average over the file
    """

    path: Path
    size: tuple[int, int]
    frame_rate: Fraction

    @property
    def name(self) -> str:
        """The path."""
        return str(self.path)

    @property
    def start_time(self) -> float:
        """Seconds from the time 0 of the file to its first picture.

        Browsers show the first picture so long, and every other one so much later: where this is not 0, the
        Explore view of the App puts labels too early. Its Annotate view and FiftyOne's own readers do not.
        """
        return self._timetable.start_time

    def __len__(self) -> int:
        """The number of frames; of a file that was cut off, the number that it should have."""
        return len(self._timetable.ranks)

    def read(self, indices: Iterable[int]) -> Iterator[Frame]:
        """Yields the RGB frames `(H, W, 3) uint8` of the given indices, in the given order.

        Ascending order decodes every picture once, a jump starts at the key picture before it, and descending
        order lives on the last decoded pictures, of which at most 32 or 128 MB are kept.

        Raises:
            IndexError: for an index outside the video
            VideoError: where decoding stops (a file that was cut off), or a picture has another size
        """
        with closing(Cursor(self.path, self._timetable)) as cursor:
            for index in indices:
                _check_index(index, self)
                frame = upright(cursor.picture(int(self._timetable.ranks[index])))
                if frame.shape[:2] != self.size:
                    problem = f"frame {index} is {_text(frame.shape)}, the first one is {_text(self.size)}"
                    raise VideoError(self.path, problem, "re-encode it: `ffmpeg -i in.mp4 out.mp4`")
                yield frame

    @cached_property
    def _timetable(self) -> Timetable:
        return read_timetable(self.path, self.frame_rate)


@dataclass(frozen=True)
class FolderFrames:
    """The frames of an image folder.

    Attributes:
        folder: the folder of the images
        names: the file names in temporal order
        size: (H, W) of every image, EXIF orientation applied
    """

    folder: Path
    names: tuple[str, ...]
    size: tuple[int, int]

    @property
    def name(self) -> str:
        """The path of the folder."""
        return str(self.folder)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.names)

    def read(self, indices: Iterable[int]) -> Iterator[Frame]:
        """Yields the RGB frames `(H, W, 3) uint8` of the given indices, in the given order.

        Raises:
            IndexError: for an index outside the video
            VideoError: for an image that is missing, unreadable, or of another size than the first one
        """
        for index in indices:
            _check_index(index, self)
            path = self.folder / self.names[index]
            frame = read_image(path)
            if frame.shape[:2] != self.size:
                problem = f"is {_text(frame.shape)}, but {self.names[0]} is {_text(self.size)}"
                raise VideoError(path, problem, "bring all frames of the video to one size")
            yield frame


@dataclass(frozen=True)
class _Clip:
    """A run of frames of another source."""

    source: FrameSource
    first: int
    last: int

    @property
    def name(self) -> str:
        return f"{self.source.name}[{self.first}..{self.last}]"

    @property
    def size(self) -> tuple[int, int]:
        return self.source.size

    def __len__(self) -> int:
        return self.last - self.first + 1

    def read(self, indices: Iterable[int]) -> Iterator[Frame]:
        return self.source.read(self.first + _check_index(index, self) for index in indices)


def _frame_order(name: str) -> tuple[bool, int, str]:
    """Numbers first and in their order; the same as lexicographic for the zero-padded names of the datasets."""
    stem = Path(name).stem
    number = stem.isascii() and stem.isdecimal()
    return not number, int(stem) if number else 0, name


def _check_index(index: int, source: FrameSource) -> int:
    if not 0 <= index < len(source):
        raise IndexError(f"{source.name} has no frame {index}: its frames are 0 to {len(source) - 1}")
    return index


def _text(shape: tuple[int, ...]) -> str:
    return f"{shape[1]}x{shape[0]}"
