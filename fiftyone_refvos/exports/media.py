"""The pictures of an export: copied, linked, decoded, or left out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from PIL import Image

from fiftyone_refvos.datasets.files import inside_for_writing
from fiftyone_refvos.datasets.records import FileMedia, FolderMedia, MediaRecord
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.video import IMAGE_SUFFIXES, FrameSource, open_frames_dir, open_video

JPEG_QUALITY = 95  # for pictures that have to be encoded; JPEGs are copied as they are
_JPEG = (".jpg", ".jpeg")


class MediaMode(Enum):
    """What becomes of images and videos."""

    COPY = "copy"
    SYMLINK = "symlink"
    """Links to the originals where a file can be used as it is."""
    NONE = "none"

    @classmethod
    def of(cls, export_media: bool | str | None) -> MediaMode:
        """Reads the `export_media` of `dataset.export`; by default files are copied.

        Raises:
            ExportError: for what no format here can do
        """
        known = {None: cls.COPY, True: cls.COPY, "symlink": cls.SYMLINK, False: cls.NONE}
        if export_media not in known:
            raise ExportError(f"export_media={export_media!r} is not supported, only True, False and 'symlink'")
        return known[export_media]


def write_frames(
    record: MediaRecord,
    folder: Path,
    stems: Sequence[str],
    mode: MediaMode,
    indices: Sequence[int] | None = None,
) -> None:
    """Writes frames of a video, or the one image, as `<folder>/<stem>.jpg`.

    JPEGs are copied or linked as they are; other images and the pictures of video files are encoded.

    Args:
        record: the video or image
        folder: for the files; it is made if need be
        stems: their names without suffix
        mode: whether to copy or to link
        indices: from 0, of the frames with these names; by default `stems` names every frame

    Raises:
        VideoError: for media that cannot be read
    """
    if mode is MediaMode.NONE:
        return
    paths = [inside_for_writing(folder, f"{stem}.jpg") for stem in stems]
    for parent in {path.parent for path in paths}:
        parent.mkdir(parents=True, exist_ok=True)
    indices = range(len(paths)) if indices is None else indices
    files = _files(record)
    if files is not None and all(file.suffix.lower() in _JPEG for file in files):
        for t, path in zip(indices, paths, strict=True):
            put(files[t], path, mode)
        return
    for frame, path in zip(open_media(record).read(indices), paths, strict=True):
        Image.fromarray(frame).save(path, quality=JPEG_QUALITY)


def put(file: Path, path: Path, mode: MediaMode) -> None:
    """Copies or links one file to a new place, whose folder exists."""
    if mode is MediaMode.COPY:
        shutil.copyfile(file, path)
    elif mode is MediaMode.SYMLINK:
        path.symlink_to(os.path.abspath(file))


def _files(record: MediaRecord) -> list[Path] | None:
    """The images that are frames already; None for a video file."""
    if isinstance(record.media, FolderMedia):
        return [record.media.folder / name for name in record.media.names]
    return [record.media.path] if _is_image(record.media) else None


def open_media(record: MediaRecord) -> FrameSource:
    """The pictures of a video or image, to be decoded.

    Raises:
        VideoError: for media that cannot be read
    """
    media = record.media
    if isinstance(media, FolderMedia):
        return open_frames_dir(media.folder, media.names)
    if _is_image(media):
        return open_frames_dir(media.path.parent, [media.path.name])
    return open_video(media.path)


def _is_image(media: FileMedia) -> bool:
    return media.path.suffix.lower() in IMAGE_SUFFIXES
