"""The pictures of an export: copied, linked, decoded, or left out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from enum import Enum
from pathlib import Path

from PIL import Image

from fiftyone_refvos.datasets.files import inside_for_writing
from fiftyone_refvos.datasets.records import FileMedia, FolderMedia, MediaRecord
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.video import IMAGE_SUFFIXES, open_frames_dir, open_video

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


def write_frames(record: MediaRecord, folder: Path, stems: Iterable[str], mode: MediaMode) -> None:
    """Writes every frame of a video, or the one image, as `<folder>/<stem>.jpg`.

    JPEGs are copied or linked as they are; other images and the pictures of video files are encoded.

    Raises:
        VideoError: for media that cannot be read
    """
    if mode is MediaMode.NONE:
        return
    folder.mkdir(parents=True, exist_ok=True)
    paths = [inside_for_writing(folder, f"{stem}.jpg") for stem in stems]
    files = _files(record)
    if files is not None and all(file.suffix.lower() in _JPEG for file in files):
        for file, path in zip(files, paths, strict=True):
            put(file, path, mode)
        return
    for picture, path in zip(_pictures(record, len(paths)), paths, strict=True):
        picture.save(path, quality=JPEG_QUALITY)


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


def _pictures(record: MediaRecord, count: int) -> Iterator[Image.Image]:
    media = record.media
    if isinstance(media, FolderMedia):
        source = open_frames_dir(media.folder, media.names)
    elif _is_image(media):
        source = open_frames_dir(media.path.parent, [media.path.name])
    else:
        return (Image.fromarray(frame) for frame in open_video(media.path).read(range(count)))
    return (Image.fromarray(frame) for frame in source.read(range(count)))


def _is_image(media: FileMedia) -> bool:
    return media.path.suffix.lower() in IMAGE_SUFFIXES
