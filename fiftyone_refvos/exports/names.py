"""Names of files: for readers that look for videos or images in one folder alone, and of single frames."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from fiftyone_refvos.datasets.files import inside
from fiftyone_refvos.datasets.records import FileMedia
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.records import Exported
from fiftyone_refvos.video import IMAGE_SUFFIXES


class FlatNames:
    """One part of a path for each name: slashes become "_", as in `UVO_all_-fbscFfkh4M`.

    Args:
        root: the folder that names may not lead out of
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._owners: dict[str, str] = {}

    def take(self, name: str) -> str:
        """The flat name of a video or file, once for each.

        Raises:
            DatasetError: for names that lead out of the folder
            ExportError: if another one got the same flat name
        """
        flat = "_".join(inside(self._root, name).relative_to(self._root).parts)
        key = flat.casefold()  # as some file systems compare names
        if key in self._owners:
            raise ExportError(
                f"{name!r} and {self._owners[key]!r} would both be written as {flat!r}: give one of them another "
                "video_name or image_name, or export them one by one"
            )
        self._owners[key] = name
        return flat


def sorted_stems(stems: Sequence[str]) -> tuple[str, ...]:
    """Names of frames that are in temporal order when readers sort them as text: "09" and "10" for "9" and "10".

    They stay as they are where they are sorted; numbers get zeros in front; other names become numbers from 00000.
    """
    names = tuple(stems)
    if any(later <= earlier for earlier, later in pairwise(names)):
        width = max(len(name) for name in names)
        names = tuple(name.zfill(width) if name.isdecimal() else "" for name in names)
    if any(later <= earlier for earlier, later in pairwise(names)):
        names = tuple(f"{t:05d}" for t in range(len(names)))
    return names


def picture_names(exported: Exported) -> list[str]:
    """What each frame is called among the images of a dataset: `<video>/<frame>`, or the name of the image.

    Without suffix; may contain slashes.
    """
    media, name = exported.record.media, exported.name
    if isinstance(media, FileMedia) and media.path.suffix.lower() in IMAGE_SUFFIXES:
        suffix = Path(name).suffix
        return [name.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else name]
    return [f"{name}/{stem}" for stem in exported.stems]
