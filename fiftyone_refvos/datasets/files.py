"""Reading the files of a dataset, whose contents nobody has checked: paths that stay inside, JSON, frame lists."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any


class DatasetError(ValueError):
    """Something is wrong with a dataset; the message names the file, what is wrong, and how to mend it."""


def inside(root: Path, *names: str) -> Path:
    """The path `root/<names>`, where every name was read from a file and may hold slashes.

    Links are followed: whoever put one into the folder may have the images on another disk.

    Raises:
        DatasetError: for names that are empty, absolute, or lead upwards
    """
    path = root
    for name in names:
        parts = PurePosixPath(name.replace("\\", "/")).parts
        if not parts or "\0" in name or ".." in parts or parts[0].startswith("/") or re.match(r"[A-Za-z]:", parts[0]):
            raise DatasetError(
                f"the name {name!r} leads out of {root}: names of a dataset have to be relative and without '..'"
            )
        path = path.joinpath(*parts)
    return path


def inside_for_writing(root: Path, *names: str) -> Path:
    """As `inside`, for a file that will be written: links may not lead out of `root` either.

    Raises:
        DatasetError: for such names
    """
    path = inside(root, *names)
    if not path.resolve().is_relative_to(root.resolve()):
        raise DatasetError(f"{path} is, or lies behind, a link that leads out of {root}: remove the link")
    return path


def read_json(path: Path, kind: type | tuple[type, ...] = dict) -> Any:
    """The contents of a JSON file.

    Args:
        path: the file
        kind: what it has to hold: `dict`, `list` or both

    Raises:
        DatasetError: if it is missing, not UTF-8, not JSON, or holds something else
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DatasetError(f"{path} is missing: is {path.parent} the folder of the dataset?") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, no JSON, numbers of thousands of digits
        raise DatasetError(f"{path} is not valid JSON ({error}): download it again") from error
    if not isinstance(content, kind):
        names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        raise DatasetError(f"{path} holds a {type(content).__name__}, but should hold a {names}")
    return content


def member(container: Any, key: str | int, kind: type | tuple[type, ...], where: object) -> Any:
    """`container[key]`, checked.

    Args:
        container: a dict of parsed JSON
        key: of the entry
        kind: what the entry has to be
        where: what errors name

    Raises:
        DatasetError: if there is no such entry, or it is something else
    """
    if not isinstance(container, dict) or key not in container:
        raise DatasetError(f"{where} has no {key!r}")
    value = container[key]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
        raise DatasetError(f"{where}: {key!r} is {reprlib.repr(value)}, which is a {type(value).__name__}")
    return value


def as_ids(value: Any, where: object) -> tuple[str, ...]:
    """Ids as text, whether they come as a number, a text, or a list of such.

    Raises:
        DatasetError: for anything else
    """
    values = value if isinstance(value, list) else [value]
    if any(isinstance(each, bool) or not isinstance(each, int | str) for each in values):
        raise DatasetError(f"{where} has the ids {reprlib.repr(value)}, which are not numbers or texts")
    return tuple(str(each) for each in values)


def as_number(value: Any, where: object) -> int:
    """A whole number, whether it comes as one or as text.

    Raises:
        DatasetError: for anything else, and for numbers that no database holds
    """
    try:
        number = int(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None or abs(number) >= 2**63:
        raise DatasetError(f"{where} is {reprlib.repr(value)}, which is no whole number")
    return number


def frame_files(
    folder: Path, stems: Iterable[str], suffixes: tuple[str, ...] = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
) -> tuple[str, ...]:
    """The file names of frames that are listed without suffix.

    Args:
        folder: where they are
        stems: the listed names; one with a suffix is taken as it is
        suffixes: in the order in which they are tried

    Raises:
        DatasetError: if the folder or one of the files is missing
    """
    if not folder.is_dir():
        raise DatasetError(f"the folder {folder} is missing: unpack the images of the dataset there")
    there = {path.name for path in folder.iterdir()}
    return tuple(_frame_file(folder, str(stem), there, suffixes) for stem in stems)


def _frame_file(folder: Path, stem: str, there: set[str], suffixes: tuple[str, ...]) -> str:
    candidates = [stem, *(stem + suffix for suffix in suffixes)]
    found = next((name for name in candidates if name in there), None)
    if found is None or not (folder / found).is_file():
        inside(folder, stem)
        raise DatasetError(f"the frame {stem} is missing in {folder} ({len(there)} files): unpack the images again")
    return found


def natural_key(text: str) -> tuple[Any, ...]:
    """Sorts numbers in texts by their value: "2" before "10"."""
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", text) if part
    )


def entries_of(videos: Any, key: str) -> Iterator[dict[str, Any]]:
    """The objects in `videos[<video>][key]`, which is an object of such; passes over anything else.

    By them layouts are told apart before anybody knows whether a file is what it seems to be.
    """
    for video in videos.values() if isinstance(videos, dict) else ():
        listed = video.get(key) if isinstance(video, dict) else None
        if isinstance(listed, dict):
            yield from (each for each in listed.values() if isinstance(each, dict))


def folders_with(root: Path, marker: str, candidates: Iterable[str]) -> Iterator[str]:
    """Those candidates that are folders of `root` with a file of that name."""
    return (name for name in candidates if (root / name / marker).is_file())
