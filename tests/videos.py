"""Small real video files, and datasets of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fiftyone_refvos.overlay import write_video


def write_clip(path: Path, num_frames: int = 6, size: tuple[int, int] = (48, 64), seed: int = 0) -> Path:
    """An mp4 with a bright square that moves over a background of coarse blocks."""
    rng = np.random.default_rng(seed)
    height, width = size
    blocks = rng.integers(20, 140, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    background = blocks.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    color = rng.integers(150, 256, 3)
    frames = []
    for t in range(num_frames):
        frame = background.copy()
        left = (t * 5) % max(1, width - 20)
        frame[10:30, left : left + 20] = color
        frames.append(frame)
    write_video(path, frames, 10)
    return path


def write_clips(folder: Path, count: int, **options) -> Sequence[Path]:
    """Several clips, each with other colours."""
    return [write_clip(folder / f"clip{number}.mp4", seed=number, **options) for number in range(count)]
