"""The raw texts of Ref-DAVIS17: four files with a line `<video> <object id> "<expression>"` for every object."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.layouts.index_png import first_folder

# In the order of the annotators, with their encodings.
_FILES = (
    ("Davis17_annot1.txt", "utf-8-sig"),
    ("Davis17_annot1_full_video.txt", "utf-8-sig"),
    ("Davis17_annot2.txt", "latin-1"),
    ("Davis17_annot2_full_video.txt", "latin-1"),
)
_MISSPELT = {"clasic-car": "classic-car", "dog-scale": "dogs-scale", "motor-bike": "motorbike"}
_LINE = re.compile(r'(\S+)\s+(\d+)\s+"(.*)"\s*')


def read_texts(folder: Path, names: Sequence[str], images: Sequence[Path]) -> dict[str, Any]:
    """The texts of some videos, as `meta_expressions.json` has them.

    Args:
        folder: with the four files
        names: of the videos
        images: folders that may have the folder with the frames of a video

    Raises:
        DatasetError: if a file is missing, cannot be decoded, or has other lines
    """
    expressions: dict[str, dict[str, Any]] = {name: {} for name in names}
    for annotator, (file, encoding) in enumerate(_FILES):
        for number, line in enumerate(_lines(folder / file, encoding), start=1):
            match = _LINE.fullmatch(line)
            if match is None:
                raise DatasetError(f'{folder / file}, line {number} is {line!r}, not: video id "expression"')
            video, object_id, text = match.groups()
            video = video if video in expressions else _MISSPELT.get(video, video)
            if video in expressions:
                id_ = len(_FILES) * (int(object_id) - 1) + annotator
                expressions[video][str(id_)] = {"exp": text, "obj_id": object_id}
    return {
        name: {
            "expressions": {id_: listed[id_] for id_ in sorted(listed, key=int)},
            "frames": sorted(path.name for path in first_folder(images, name).glob("[!.]*.jpg")),
        }
        for name, listed in expressions.items()
    }


def _lines(path: Path, encoding: str) -> list[str]:
    try:
        text = path.read_text(encoding=encoding)
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read ({error}): download the texts again") from error
    return [line for line in text.split("\n") if line.strip()]
