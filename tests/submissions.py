"""Submissions for the videos of `simple_mevis`, as another program would write them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import fiftyone as fo
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fiftyone_refvos.fields import read_masklets
from tests.mevis_folder import box_mask

FRAMES = [f"{t:05d}" for t in range(4)]
Png = Mapping[str, NDArray[np.uint8]]


def prediction(t: int) -> NDArray[np.bool_]:
    """The mask in frame `t`, from 0: `(H, W) bool`."""
    return box_mask(5 + t, 4, 8, 9)


def pngs(videos: tuple[str, ...] = ("one", "two"), top: str = "", value: int = 255) -> Png:
    """What a program would submit for the first two expressions of every video."""
    return {
        f"{top}{video}/{id_}/{name}.png": prediction(t).astype(np.uint8) * np.uint8(value)
        for video in videos
        for id_ in ("0", "1")
        for t, name in enumerate(FRAMES)
    }


def as_folder(root: Path, files: Png) -> Path:
    """Writes a submission as a folder."""
    for name, pixels in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name)
    return root


def as_zip(path: Path, files: Png) -> Path:
    """Writes a submission as an archive."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, pixels in files.items():
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG")
            archive.writestr(name, buffer.getvalue())
    return path


def check(dataset: fo.Dataset, field: str = "theirs") -> None:
    """Whether a field holds what `pngs` submits, and nothing else."""
    for sample in dataset:
        masklets = {each.expression.id: each for each in read_masklets(sample, field, exact=True)}
        assert masklets.keys() == {"0", "1"}
        for masklet in masklets.values():
            assert [np.array_equal(masklet.union(t), prediction(t)) for t in range(4)] == [True] * 4
