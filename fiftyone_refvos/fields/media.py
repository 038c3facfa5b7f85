"""The frames of a sample for models and metrics, and the size of the picture that boxes refer to."""

from __future__ import annotations

from pathlib import Path

import fiftyone as fo

from fiftyone_refvos import video
from fiftyone_refvos.fields.samples import FieldError, Place, locate
from fiftyone_refvos.image_files import open_image
from fiftyone_refvos.video import FrameSource

Size = tuple[int, int]  # (H, W)


def frame_source(sample: fo.Sample) -> FrameSource:
    """Opens the frames of a sample: for a clip those of the clip, for an image its one.

    The exact images of a folder dataset (`sample.frames_dir`, `sample.frame_names`) go before the mp4 that
    was made of them for the App.

    Raises:
        FieldError: if the images or the video are not where the sample says
    """
    place = locate(sample)
    source = _whole_source(place)
    if place.last is None:
        return source
    # Metadata, from which clips are made, count a frame too many for some containers.
    return video.clip(source, place.first - 1, min(place.last, len(source)) - 1)


def _whole_source(place: Place) -> FrameSource:
    frames_dir, frame_names = place.values("frames_dir", "frame_names")
    path = Path(place.filepath)
    if frames_dir is not None:
        if not Path(frames_dir).is_dir():
            raise FieldError(
                f"{place} has its exact frames in {frames_dir}, which does not exist: put the folder back, "
                "or clear sample.frames_dir, frame_names and frame_size to work on the video file instead"
            )
        return video.open_frames_dir(frames_dir, frame_names)
    if not path.is_file():
        raise FieldError(f"{place}: the file does not exist; put it back or mend sample.filepath")
    return video.open_video(path) if place.is_video else open_image(path)


def canvas_size(sample: fo.Sample, source_size: Size) -> Size:
    """(H, W) of the picture that the App shows, to which boxes are relative.

    A folder dataset is shown as an mp4 padded to even size on the right and at the bottom; anything else as
    it is.

    Args:
        sample: the sample
        source_size: (H, W) of the frames that models see
    """
    return canvas_of(locate(sample), source_size)


def canvas_of(place: Place, source_size: Size) -> Size:
    """As `canvas_size`.

    Raises:
        FieldError: if `sample.frame_size` is another than that of the frames
    """
    frames_dir, stored = place.values("frames_dir", "frame_size")
    if stored is not None and (stored[1], stored[0]) != tuple(source_size):
        raise FieldError(
            f"{place}: frame_size says {stored[0]}x{stored[1]} (width x height), but the frames are "
            f"{source_size[1]}x{source_size[0]}: mend sample.frame_size, or clear it together with frames_dir"
        )
    if frames_dir is None and stored is None:
        return source_size
    return _even(source_size[0]), _even(source_size[1])


def stored_size(place: Place) -> Size | None:
    """(H, W) of the frames where the sample tells it exactly, which is for folder datasets; else None."""
    frames_dir, stored = place.values("frames_dir", "frame_size")
    if stored is not None:
        return stored[1], stored[0]
    return _whole_source(place).size if frames_dir is not None else None


def source_size(place: Place) -> Size:
    """(H, W) of the frames as displayed: of the file if it is there, else what the metadata say."""
    if Path(place.filepath).is_file():
        return _whole_source(place).size
    # Metadata come second: those of a clip that a phone turned by 90 degrees have width and height exchanged.
    names = ("frame_height", "frame_width") if place.is_video else ("height", "width")
    height, width = place.values(*(f"metadata.{name}" for name in names))
    if height is None or width is None:
        raise FieldError(f"{place}: neither file nor metadata tell the size of the frames; put the file back")
    return height, width


def num_frames(place: Place) -> int:
    """The number of frames of the whole video, from the sample if it knows, else by opening the file."""
    if not place.is_video:
        return 1
    frame_names, counted = place.values("frame_names", "metadata.total_frame_count")
    return len(frame_names) if frame_names else counted or len(_whole_source(place))


def _even(length: int) -> int:
    return length + length % 2
