"""From arrays and run lengths to words of 64 pixels, cropped to those that hold pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fiftyone_refvos.masklet import run_lengths

Words: TypeAlias = NDArray[np.uint64]
Size: TypeAlias = tuple[int, int]
# First line and first word of the frame that are kept, and the kept words `(lines, words)`; see `BitMask`.
Crop: TypeAlias = tuple[int, int, Words]

_BITS = 64
_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def no_pixels() -> Crop:
    """What is kept of an empty mask."""
    return 0, 0, np.zeros((0, 0), dtype=np.uint64)


def pack_lines(lines: NDArray[Any]) -> Crop:
    """Packs `(lines, pixels)` bool or integers, where what is not 0 is inside."""
    packed = np.packbits(lines, axis=1, bitorder="little")
    num_lines, num_bytes = packed.shape
    if num_bytes % 8:
        padded = np.zeros((num_lines, -(-num_bytes // 8) * 8), dtype=np.uint8)
        padded[:, :num_bytes] = packed
        packed = padded
    words = packed.view("<u8")
    used = words.reshape(-1) != 0
    first = int(used.argmax())
    if not used[first]:
        return no_pixels()
    per_line = words.shape[1]
    top, bottom = first // per_line, num_lines - int(used[::-1].argmax()) // per_line
    (columns,) = np.bitwise_or.reduce(words[top:bottom], axis=0).nonzero()
    left, right = int(columns[0]), int(columns[-1]) + 1
    return top, left, words[top:bottom, left:right]


def runs_of(rle: Mapping[str, Any]) -> tuple[Size, NDArray[np.int64], NDArray[np.int64]]:
    """The size (H, W) of a COCO RLE and its runs of ones `[start, stop)`, counted column after column.

    Args:
        rle: `size` and `counts`: compressed as bytes or str, or the lengths of the runs themselves

    Raises:
        ValueError: if keys are missing, or the runs do not fill the frame
    """
    if "size" not in rle or "counts" not in rle:
        raise ValueError(f"a COCO RLE has the keys 'size' and 'counts', got {sorted(map(str, rle))}")
    height, width = (int(length) for length in rle["size"])
    counts = rle["counts"]
    counts = counts.encode("ascii") if isinstance(counts, str) else counts
    if isinstance(counts, bytes):
        lengths = run_lengths({"size": [height, width], "counts": counts}) if counts else np.zeros(0, np.int64)
    else:
        lengths = np.asarray(counts, dtype=np.int64)
    stops = np.cumsum(lengths)
    pixels = int(stops[-1]) if len(stops) else 0
    if pixels != height * width or not pixels or lengths.min() < 0:
        raise ValueError(f"broken COCO RLE: its runs hold {pixels} pixels, {height} x {width} are expected")
    num_runs = len(lengths) // 2
    return (height, width), stops[0::2][:num_runs], stops[1::2][:num_runs]


def fill_runs(size: Size, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> Crop:
    """The bits of runs of ones `[start, stop)`, ascending, counted column after column; lines are columns."""
    height = size[0]
    if not (stops > starts).all():
        starts, stops = starts[stops > starts], stops[stops > starts]
    if not len(starts):
        return no_pixels()
    first_column, last_column = starts // height, (stops - 1) // height
    first_row, last_row = starts - first_column * height, stops - 1 - last_column * height
    left, columns = int(first_column[0]), int(last_column[-1] - first_column[0]) + 1
    runs_on = not np.array_equal(first_column, last_column)  # from the foot of a column to the head of the next
    top, bottom = (0, height) if runs_on else (int(first_row.min()), int(last_row.max()) + 1)
    top_word, words = top // _BITS, -(-bottom // _BITS) - top // _BITS
    # Where the pixels change between outside and inside, in the cropped words laid end to end.
    changes = np.empty(2 * len(starts), dtype=np.int64)
    changes[0::2] = ((first_column - left) * words - top_word) * _BITS + first_row
    changes[1::2] = ((last_column - left) * words - top_word) * _BITS + last_row + 1
    # A change inverts the rest of its word, and all words after it.
    word = changes >> 6
    first = np.flatnonzero(np.diff(word, prepend=-1))
    bits = np.zeros(columns * words + 1, dtype=np.uint64)
    bits[word[first]] = np.bitwise_xor.reduceat(_ALL << (changes & 63).astype(np.uint64), first)
    inside = np.bitwise_xor.accumulate(bits >> 63)
    bits[1:] ^= -inside[:-1]
    grid = bits[:-1].reshape(columns, words)
    if runs_on and height % _BITS:
        grid[:, -1] &= (1 << height % _BITS) - 1
    return left, top_word, grid
