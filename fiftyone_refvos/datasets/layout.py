"""What the layout of a dataset has to tell; adding a dataset is one class of this kind in `layouts`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.records import FolderMedia, MediaRecord


class Layout(ABC):
    """A dataset on disk, in its official layout.

    Args:
        root: its folder
    """

    name: ClassVar[str]
    """What the command line and forms call it."""

    title: ClassVar[str]
    """What papers call it."""

    media_type: ClassVar[str] = "video"
    """"video" or "image"."""

    partial_truth: ClassVar[bool] = False
    """Whether objects of one video may be annotated in different frames."""

    also_fits: ClassVar[tuple[str, ...]] = ()
    """Names of layouts that folders of this one may seem to have, too."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """The splits that are there, in the usual order; () if this is no folder of that dataset."""

    @abstractmethod
    def records(self, split: str) -> Sequence[MediaRecord]:
        """The videos or images of a split, in the order of the dataset; no masks are read and no images decoded.

        What is wrong with one of them is in its `problem`.

        Raises:
            DatasetError: if files of the whole split are missing or hold something else
        """

    def chosen_splits(self, wanted: str | Sequence[str] | None) -> tuple[str, ...]:
        """The splits to read: all that are there, or those that were asked for.

        Raises:
            DatasetError: if one of them, or every one, is missing
        """
        there = self.splits()
        if not there:
            raise DatasetError(f"{self.root} has no split of {self.title}: give the folder that its README shows")
        chosen = there if wanted is None else (wanted,) if isinstance(wanted, str) else tuple(wanted)
        if missing := [split for split in chosen if split not in there]:
            raise DatasetError(f"{self.root} has no split {missing[0]!r} of {self.title}, only {', '.join(there)}")
        return chosen


def record_or_problem(name: str, split: str, make: Callable[[], MediaRecord]) -> MediaRecord:
    """What `make` returns; where the files of this one video are wrong, a record that says what is."""
    try:
        return make()
    except DatasetError as error:
        return MediaRecord(name, split, FolderMedia(Path(), (), 1.0), (), problem=str(error))
