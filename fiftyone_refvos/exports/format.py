"""What a format has to do; adding one is one class of this kind in `formats`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from fiftyone_refvos.exports.media import MediaMode
from fiftyone_refvos.exports.records import Exported


class Format(ABC):
    """Writes videos or images, one after the other, into a folder that is empty at first.

    Nobody sees the folder before `finish` has returned: it is then renamed, and removed if anything failed.

    Args:
        root: the folder
        media: what is to become of the images and videos
    """

    name: ClassVar[str]
    """What the command line and forms call it."""

    title: ClassVar[str]
    """What people call it."""

    description: ClassVar[str]
    """One line on what it is for, and which masks it cannot hold."""

    media_types: ClassVar[tuple[str, ...]] = ("video",)
    """The media that it takes: "video", "image" or both."""

    archive: ClassVar[str | None] = None
    """The name of the one file that it writes into the folder, for archives; None for a folder of files."""

    splits_apart: ClassVar[bool] = True
    """Whether two splits may have a video of the same name."""

    readable_splits: ClassVar[tuple[str, ...] | None] = None
    """The names of splits that readers look for; None where they take any."""

    def __init__(self, root: Path, media: MediaMode) -> None:
        self.root = root
        self.media = media
        self.open_files = ExitStack()  # closed also if the export fails

    @abstractmethod
    def add(self, exported: Exported) -> None:
        """Writes one video or image.

        Raises:
            ExportError: if the format cannot hold it; the message names the video and how to mend it
        """

    def finish(self) -> None:
        """Writes what is known at the end only, and closes all files."""
        self.open_files.close()
