"""Submissions to the evaluation servers: `[Annotations/]<video>/<expression>/<frame>.png`, in a folder or a zip."""

from __future__ import annotations

import io
import zipfile
from abc import ABC, abstractmethod
from collections import defaultdict
from pathlib import Path, PurePosixPath

from PIL import Image

from fiftyone_refvos.datasets.files import DatasetError, inside
from fiftyone_refvos.datasets.masks import above_zero, to_rle
from fiftyone_refvos.datasets.records import Size
from fiftyone_refvos.masklet import RLE
from fiftyone_refvos.predictions.source import Prediction, Wanted

TOP = "Annotations"
MAC = "__MACOSX"  # what macOS puts into archives beside the files; like hidden files, it is no prediction


class Submission(ABC):
    """The PNGs of a submission; any value above 0 is the object, as the servers read them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[str, set[str]] | None = None

    @abstractmethod
    def _names(self) -> list[str]:
        """The paths of all PNGs, relative to the root."""

    @abstractmethod
    def _data(self, name: str, limit: int) -> bytes:
        """The contents of a file, of at most `limit` bytes."""

    def videos(self) -> set[str]:
        """The names of the folders above those of the expressions."""
        return {str(PurePosixPath(folder).parent).removeprefix(f"{TOP}/") for folder in self._folders()}

    def read(self, wanted: Wanted) -> Prediction | None:
        """The masks of an expression, one object."""
        folders = self._folders()
        candidates = [folder for name in wanted.folders for folder in (name, f"{TOP}/{name}") if folder in folders]
        if not candidates:
            return None
        folder = candidates[0]
        if missing := [frame for frame in wanted.frames if frame not in folders[folder]]:
            raise DatasetError(
                f"{self.path} has no {folder}/{missing[0]}.png for {wanted} ({len(missing)} of {len(wanted.frames)} "
                "frames are missing): every frame of the dataset's list needs a mask, also an empty one"
            )
        return Prediction(tuple((self._mask(f"{folder}/{name}.png", wanted.size),) for name in wanted.frames), (1.0,))

    def _folders(self) -> dict[str, set[str]]:
        """The names of the masks, without suffix, of every folder that has some."""
        if self._files is None:
            found: dict[str, set[str]] = defaultdict(set)
            for path in map(PurePosixPath, self._names()):
                if any(part.startswith((".", MAC)) for part in path.parts):
                    continue
                found[str(path.parent)].add(path.stem)
            self._files = dict(found)
        return self._files

    def _mask(self, name: str, size: Size) -> RLE | None:
        where = f"{self.path}: {name}"
        # A mask of noise, not compressed at all, in four channels of 16 bits, and what a PNG has besides.
        data = self._data(name, limit=8 * size[0] * size[1] + 2**20)
        try:
            with Image.open(io.BytesIO(data)) as image:
                if (image.height, image.width) != tuple(size):
                    raise DatasetError(
                        f"{where} is {image.height}x{image.width}, but the frames are {size[0]}x{size[1]} (height x "
                        "width): write the masks at the size of the frames"
                    )
                return to_rle(above_zero(image))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(f"{where} cannot be read as an image ({error}): write it again") from error


class SubmissionFolder(Submission):
    """A submission as a folder."""

    def _names(self) -> list[str]:
        return [path.relative_to(self.path).as_posix() for path in self.path.rglob("*.png")]

    def _data(self, name: str, limit: int) -> bytes:
        path = inside(self.path, name)
        if path.stat().st_size > limit:
            raise DatasetError(f"{path} has {path.stat().st_size} bytes, which is too much for one mask")
        return path.read_bytes()


class SubmissionArchive(Submission):
    """A submission as a zip file; nothing of it is unpacked to disk."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise DatasetError(f"{path} is not a zip file that can be read ({error}): download it again") from error

    def _names(self) -> list[str]:
        names = [info.filename for info in self._archive.infolist() if info.filename.endswith(".png")]
        for name in names:
            inside(self.path, name)  # refuses names that would leave the folder where somebody unpacks them
        return names

    def _data(self, name: str, limit: int) -> bytes:
        try:
            with self._archive.open(name) as file:
                data = file.read(limit + 1)  # whatever size the archive promises
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError) as error:
            raise DatasetError(f"{self.path}: {name} cannot be unpacked ({error}): make the archive again") from error
        if len(data) > limit:
            raise DatasetError(f"{self.path}: {name} unpacks to more than {limit} bytes, too much for one mask")
        return data
