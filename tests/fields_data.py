"""Videos, image folders, masks and masklets for the tests of `fiftyone_refvos.fields`."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import fiftyone as fo
import numpy as np
from PIL import Image

from fiftyone_refvos.fields import add_expressions, read_masklets, write_masklets
from fiftyone_refvos.masklet import BoolArray, Expression, FrameResult, Masklet

SIZE = (20, 30)  # (H, W) of most masks
KINDS = ("empty", "full", "pixel", "box", "noise", "border", "corners")


def write_video(path: Path, *, num_frames: int, size: tuple[int, int]) -> Path:
    """Writes an H.264 video of even `size` (H, W) whose frame k has the grey value 10 k."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(10))
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        for k in range(num_frames):
            frame = np.full((*size, 3), 10 * k, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_images(folder: Path, *, num_frames: int, size: tuple[int, int]) -> list[str]:
    """Writes PNGs 00000.png, … of `size` (H, W), the k-th of grey value 10 k, and returns their names."""
    folder.mkdir()
    names = [f"{k:05}.png" for k in range(num_frames)]
    for k, name in enumerate(names):
        Image.fromarray(np.full((*size, 3), 10 * k, dtype=np.uint8)).save(folder / name)
    return names


def random_mask(rng: np.random.Generator, size: tuple[int, int], kind: str) -> BoolArray:
    """A mask `(H, W) bool` of one of KINDS."""
    height, width = size
    mask = np.zeros(size, dtype=bool)
    rows, columns = np.sort(rng.integers(0, height, 2)), np.sort(rng.integers(0, width, 2))
    inside = mask[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1]
    match kind:
        case "full":
            mask[:] = True
        case "pixel":
            mask[rows[0], columns[0]] = True
        case "box":
            inside[:] = True
        case "noise":
            inside[:] = rng.random(inside.shape) < 0.4
        case "border":
            side = rng.integers(4)
            [mask[0], mask[-1], mask[:, 0], mask[:, -1]][side][:] = True
        case "corners":
            mask[[0, -1, 0, -1], [0, -1, -1, 0]] = rng.random(4) < 0.5
    return mask


def masklet(
    masks: Sequence[BoolArray] | BoolArray,
    *,
    expression: Expression = Expression("0", "the dog"),  # noqa: B008 - frozen
    scores: float = 0.5,
    first: int = 0,
    key_frame: int | None = None,
) -> Masklet:
    """The masklet of `(N, H, W)` masks per frame, from frame `first` on; the score of an empty mask is 0."""
    results = [
        FrameResult(first + t, expression.id, frame, np.where(frame.any((1, 2)), scores, 0), bool(frame.any()))
        for t, frame in enumerate(masks)
    ]
    key_frames = {} if key_frame is None else {expression.id: key_frame}
    return Masklet.collect(results, [expression], key_frames=key_frames)[0]


def boxes(
    corners: Sequence[tuple[int, int]], size: tuple[int, int], *, side: int = 3, num_objects: int = 1
) -> BoolArray:
    """`(T, N, H, W)`: in frame t a square with its upper left corner at `corners[t]` (row, column).

    Each further object lies `side` rows lower.
    """
    masks = np.zeros((len(corners), num_objects, *size), dtype=bool)
    for t, (row, column) in enumerate(corners):
        for n in range(num_objects):
            masks[t, n, row + n * side : row + (n + 1) * side, column : column + side] = True
    return masks


def video_sample(
    dataset: fo.Dataset,
    path: Path | str = "/videos/a.mp4",
    *,
    num_frames: int = 4,
    texts: Sequence[str] = ("the dog",),
    **fields: Any,
) -> fo.Sample:
    """A sample of a video file that does not exist: writing and reading masklets never open it."""
    sample = fo.Sample(filepath=str(path), metadata=fo.VideoMetadata(total_frame_count=num_frames), **fields)
    dataset.add_sample(sample)
    add_expressions(sample, texts)
    return sample


def write_and_read(sample: fo.Sample, *masklets: Masklet) -> list[Masklet]:
    write_masklets(sample, "model", masklets)
    return read_masklets(sample, "model")
