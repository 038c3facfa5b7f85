"""Names of files: for readers that look for videos or images in one folder alone, and of single frames."""

from __future__ import annotations

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


def picture_names(exported: Exported) -> list[str]:
    """What each frame is called among the images of a dataset: `<video>/<frame>`, or the name of the image.

    Without suffix; may contain slashes.
    """
    media, name = exported.record.media, exported.name
    if isinstance(media, FileMedia) and media.path.suffix.lower() in IMAGE_SUFFIXES:
        suffix = Path(name).suffix
        return [name.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else name]
    return [f"{name}/{stem}" for stem in exported.stems]
