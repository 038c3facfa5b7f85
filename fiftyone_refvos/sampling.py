"""Which frames a model looks at: the published sampling rules, on frame numbers alone."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np

ContextMode = Literal["center", "linspace"]

CONTEXT_FRAMES = 4  # published GLUS was trained with so many


def context_frames(num_frames: int, mode: ContextMode = "center", count: int = CONTEXT_FRAMES) -> list[int]:
    """The context frames of GLUS: indices from 0, ascending but for videos of fewer than `count` frames.

    Args:
        num_frames: T, the length of the video
        mode: "center" is the inference script, about the centres of equal clips; "linspace" the demo
            notebook, from the first to the last frame
        count: how many, 0 for none

    In videos of fewer than `count` frames the script's rule gives -1, with which it reads the last frame: here
    that is the index of the last frame. Indices then repeat.

    Raises:
        ValueError: if there is no frame, the count is negative, or the mode is unknown
    """
    _check_positive(num_frames=num_frames)
    if count < 0:
        raise ValueError(f"count must not be negative, got {count}")
    if mode == "linspace":
        return _linspace(num_frames - 1, count)
    if mode != "center":
        raise ValueError(f"unknown context mode {mode!r}: expected 'center' or 'linspace'")
    if count == 0:
        return []
    bounds = _linspace(num_frames, count + 1)
    centre = -(-num_frames // count) // 2  # of the longest clip: it may lie outside of a shorter one
    frames = [min(start + centre, end - 1) for start, end in pairwise(bounds)]
    return [frame % num_frames for frame in frames]


def memory_positions(position: int, stride: int, slots: int = 7) -> list[int]:
    """The positions whose memories GLUS attends to at a position of its pass: the one before, and older ones.

    Args:
        position: from 0, counted along the pass (which may run backwards through the video)
        stride: distance of the older memories, which lie on multiples of it
        slots: the greatest number of memories

    Returns:
        at most `slots` positions from 0, oldest first, the last one `position - 1`; empty at position 0

    Raises:
        ValueError: if the position is negative, or stride or slots are not positive
    """
    _check_positive(stride=stride, slots=slots)
    if position < 0:
        raise ValueError(f"position must not be negative, got {position}")
    newest = (position - 2) // stride * stride
    past = [newest - step * stride for step in reversed(range(slots - 1))]
    return [kept for kept in [*past, position - 1] if kept >= 0]


def residue_classes(num_frames: int, most: int) -> list[list[int]]:
    """The contexts of the key frame selector: every `step`-th frame from each start, at most `most` in each.

    Args:
        num_frames: T, the length of the video
        most: frames in a class

    Returns:
        `step` classes of ascending indices from 0, where step = ceil(T / most); each frame is in one

    Raises:
        ValueError: if there is no frame, or `most` is not positive
    """
    _check_positive(num_frames=num_frames, most=most)
    step = -(-num_frames // most)
    return [list(range(start, num_frames, step)) for start in range(step)]


def uniform_frames(num_frames: int, count: int) -> list[int]:
    """At most `count` frames spread from the first to the last: indices from 0, ascending, each once.

    Raises:
        ValueError: if there is no frame, or `count` is not positive
    """
    _check_positive(num_frames=num_frames, count=count)
    return sorted(set(_linspace(num_frames - 1, count)))


def sliding_window(position: int, size: int) -> list[int]:
    """The last `size` positions up to and with `position`, fewer at the start: from 0, ascending.

    Raises:
        ValueError: if the position is negative, or the size is not positive
    """
    _check_positive(size=size)
    if position < 0:
        raise ValueError(f"position must not be negative, got {position}")
    return list(range(max(0, position + 1 - size), position + 1))


def _linspace(stop: int, count: int) -> list[int]:
    # As the published code, `np.linspace(...).astype(int)`, not by exact fractions: for some lengths its
    # floats fall just short of a whole number (stop 392, count 25).
    return [int(value) for value in np.linspace(0, stop, count)]


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
