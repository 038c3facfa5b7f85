"""The mp4 that the App plays for a folder of frames: encoded once, kept beside the dataset."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from fiftyone_refvos.datasets.files import DatasetError, inside_for_writing
from fiftyone_refvos.datasets.records import FolderMedia
from fiftyone_refvos.overlay import write_video
from fiftyone_refvos.video import open_frames_dir

CACHE = ".refvos_cache"

_VERSION = 1  # of the encoding; a new number makes all files anew


def playback_path(cache: Path, split: str, name: str, media: FolderMedia) -> Path:
    """Where the mp4 of a video is, or will be: under a name that no other images give.

    Raises:
        DatasetError: for names that lead out of the cache, and for images that are missing
    """
    try:
        images = [(file, (stat := (media.folder / file).stat()).st_size, stat.st_mtime_ns) for file in media.names]
    except OSError as error:
        raise DatasetError(f"a frame of video {name!r} cannot be read ({error}): unpack the images again") from error
    content = json.dumps([_VERSION, media.frame_rate, images])
    digest = hashlib.sha256(content.encode()).hexdigest()[:12]
    folder, stem = inside_for_writing(cache, split, name), Path(name.replace("\\", "/")).name
    return inside_for_writing(cache, str(folder.parent.relative_to(cache)), f"{stem}.{digest}.mp4")


def write_playback(path: Path, media: FolderMedia) -> None:
    """Encodes the frames of a folder, one picture per image, unless the file is there; it is then complete.

    Odd sizes are padded on the right and at the bottom, so that masks stay where they are.

    Raises:
        DatasetError: if the cache cannot be written
        VideoError: for images that cannot be read or differ in size
    """
    if path.is_file():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        source = open_frames_dir(media.folder, media.names)
        write_video(path, source.read(range(len(source))), media.frame_rate)
    except OSError as error:
        raise DatasetError(
            f"the video for the App cannot be written to {path} ({error}): pass cache_dir=, a folder with room that "
            "can be written"
        ) from error
