"""Binary masks held as bits, 64 pixels a word: what all measures are computed on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from fiftyone_refvos.masklet import RLE, BoolArray
from fiftyone_refvos.metrics.packing import Size, Words, fill_runs, no_pixels, pack_lines, runs_of

# One mask: `(H, W)` bool or integer (> 0 is inside), a COCO RLE (compressed or not), bits; None is empty.
MaskLike: TypeAlias = Union[NDArray[Any], RLE, Mapping[str, Any], "BitMask", None]
# The masks of one thing in one frame: one, or several whose union counts, e.g. `(N, H, W)`.
FrameMasks: TypeAlias = MaskLike | Sequence[MaskLike]
# The masks of one thing in all frames, e.g. `(T, N, H, W)`.
TrackMasks: TypeAlias = Sequence[FrameMasks] | NDArray[Any]

_BITS = 64


@dataclass(frozen=True, eq=False)
class BitMask:
    """A binary mask of a frame as bits, cropped to words that hold its pixels; immutable.

    A line is a row of the frame or, where the mask came in column order as COCO RLE does, a column: every
    measure here is the same for a frame and its transpose, so that neither kind is ever turned around.

    Attributes:
        size: (H, W) of the frame
        by_columns: whether lines are columns
        first_line: the line of the frame at which `words` begins, from 0
        first_word: the word of a line at which `words` begins, from 0
        words: `(lines, words) uint64`; bit b of word w is pixel 64 * (first_word + w) + b of its line; bits
            beyond the frame are 0; the shape is (0, 0) for an empty mask
    """

    size: Size
    by_columns: bool
    first_line: int
    first_word: int
    words: Words

    @classmethod
    def of(cls, mask: FrameMasks, size: Size | None = None) -> BitMask:
        """The bits of a mask, or of the union of several.

        Args:
            mask: see `FrameMasks`
            size: (H, W) of the frame; needed where `mask` does not tell it

        Raises:
            TypeError: for something that is no mask, or an array of real numbers
            ValueError: for a mask of another size, a broken RLE, or an unknown size
        """
        if isinstance(mask, (list, tuple)) or (isinstance(mask, np.ndarray) and mask.ndim == 3):
            size = size or size_of(mask)
            several = [cls.of(each, size) for each in mask]
            bits = reduce(union, several) if several else _single(None, size)
        else:
            bits = _single(mask, size)
        if size is not None and bits.size != tuple(size):
            raise ValueError(f"the mask is {_shape(bits.size)}, the frame is {_shape(size)} (height x width)")
        return bits

    @property
    def shape(self) -> Size:
        """(lines, pixels of a line) of the whole frame."""
        return self.size[::-1] if self.by_columns else self.size

    @cached_property
    def area(self) -> int:
        """The number of pixels."""
        return count(self.words)

    @cached_property
    def box(self) -> tuple[int, int, int, int] | None:
        """The first and the last column and row with a pixel, as (left, top, right, bottom), all inside."""
        lines = np.flatnonzero(self.words.any(axis=1))
        if not len(lines):
            return None
        line = np.bitwise_or.reduce(self.words, axis=0).astype("<u8")
        bits = np.flatnonzero(np.unpackbits(line.view(np.uint8), bitorder="little")) + _BITS * self.first_word
        lines += self.first_line
        across, down = (lines, bits) if self.by_columns else (bits, lines)
        return int(across[0]), int(down[0]), int(across[-1]), int(down[-1])

    @cached_property
    def boundary(self) -> BitMask:
        """The boundary map: the pixels that differ from their right, lower or lower right neighbour.

        As in `_seg2bmap` of davis2017-evaluation, the border of the image is no boundary: the last row and
        column are compared only along themselves, the last pixel not at all. Repeating the last row and
        column beyond the frame says just that.
        """
        return _boundary(self)

    def to_array(self) -> BoolArray:
        """The mask as `(H, W) bool`."""
        lines, length = self.shape
        frame = np.zeros((lines, -(-length // _BITS)), dtype="<u8")
        place(self, frame, 0, 0)
        pixels = np.unpackbits(frame.view(np.uint8), axis=1, bitorder="little", count=length).view(bool)
        return pixels.T if self.by_columns else pixels

    def turned(self, by_columns: bool) -> BitMask:
        """The same mask with lines of the given kind; costs as much as packing an array."""
        if self.by_columns == by_columns:
            return self
        if not self.words.size:
            return empty(self.size, by_columns)
        pixels = self.to_array()
        lines = np.ascontiguousarray(pixels.T if by_columns else pixels)
        return BitMask(self.size, by_columns, *pack_lines(lines))


def size_of(*masks: FrameMasks) -> Size | None:
    """The (H, W) of the first mask that tells it; None if none does."""
    for mask in masks:
        size: Size | None = None
        if isinstance(mask, (list, tuple)):
            size = size_of(*mask)
        elif isinstance(mask, np.ndarray) and mask.ndim >= 2:
            size = mask.shape[-2], mask.shape[-1]
        elif isinstance(mask, BitMask):
            size = mask.size
        elif isinstance(mask, Mapping) and "size" in mask:
            size = int(mask["size"][0]), int(mask["size"][1])
        if size is not None:
            return size
    return None


def empty(size: Size, by_columns: bool) -> BitMask:
    """A mask without a pixel."""
    return BitMask(size, by_columns, *no_pixels())


def count(words: Words) -> int:
    """The number of bits that are set."""
    return int(np.add.reduce(np.bitwise_count(words), axis=None, dtype=np.int64))


def place(mask: BitMask, target: Words, first_line: int, first_word: int) -> None:
    """Copies a mask into the empty window `target` `(lines, words)` of its frame; what lies outside is left away."""
    top, left = mask.first_line - first_line, mask.first_word - first_word
    lines, words = mask.words.shape
    target[max(top, 0) : max(top + lines, 0), max(left, 0) : max(left + words, 0)] = mask.words[
        max(-top, 0) : max(target.shape[0] - top, 0), max(-left, 0) : max(target.shape[1] - left, 0)
    ]


def intersection_area(a: BitMask, b: BitMask) -> int:
    """The number of pixels that two masks of one frame share."""
    a_words, b_words = _common(a, b.turned(a.by_columns))
    return count(a_words & b_words)


def union(a: BitMask, b: BitMask) -> BitMask:
    """The pixels in either mask; both must be of one frame.

    Raises:
        ValueError: if the sizes differ
    """
    _check_same_size(a, b)
    if not b.words.size:
        return a
    if not a.words.size:
        return b
    b = b.turned(a.by_columns)
    top, left = min(a.first_line, b.first_line), min(a.first_word, b.first_word)
    bottom = max(mask.first_line + mask.words.shape[0] for mask in (a, b))
    right = max(mask.first_word + mask.words.shape[1] for mask in (a, b))
    words = np.zeros((bottom - top, right - left), dtype=np.uint64)
    place(a, words, top, left)
    lines, columns = b.words.shape
    words[b.first_line - top :, b.first_word - left :][:lines, :columns] |= b.words
    return BitMask(a.size, a.by_columns, top, left, words)


def intersection(a: BitMask, b: BitMask) -> BitMask:
    """The pixels in both masks; both must be of one frame."""
    _check_same_size(a, b)
    b = b.turned(a.by_columns)
    a_words, b_words = _common(a, b)
    first_line, first_word = max(a.first_line, b.first_line), max(a.first_word, b.first_word)
    return BitMask(a.size, a.by_columns, first_line, first_word, a_words & b_words)


def difference(a: BitMask, b: BitMask) -> BitMask:
    """The pixels of `a` that are not in `b`; both must be of one frame."""
    _check_same_size(a, b)
    if not a.words.size or not b.words.size:
        return a
    rest = BitMask(a.size, a.by_columns, a.first_line, a.first_word, a.words.copy())
    rest_words, b_words = _common(rest, b.turned(a.by_columns))
    rest_words &= ~b_words
    return rest


class naming:  # noqa: N801 - used as a function; a generator would take three times as long
    """Puts the place in front of the message of an error about a mask; it stays a TypeError or a ValueError."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, (TypeError, ValueError)):
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{self.where}: {error}") from error


def _boundary(mask: BitMask) -> BitMask:
    lines, words = mask.words.shape
    if not lines:
        return mask
    num_lines, length = mask.shape
    # one line and, where a pixel lies at the edge of its word, one word more: the neighbours before
    top = int(mask.first_line > 0)
    left = int(np.bitwise_or.reduce(mask.words[:, 0])) & 1 if mask.first_word else 0
    # one line and one word of zeros after, so that shifting the flat words carries zeros into every line
    s = np.zeros((top + lines + 1, left + words + 1), dtype=np.uint64)
    s[top:-1, left:-1] = mask.words
    if mask.first_line + lines == num_lines:
        s[-1] = s[-2]
    ahead: Words = np.right_shift(s, 1)
    carried = ahead.reshape(-1)[:-1]
    carried |= s.reshape(-1)[1:] << 63
    ahead ^= s  # differs from the pixel ahead
    ahead[:, -1] = 0
    if (mask.first_word + words) * _BITS >= length:
        ahead[:, -2] &= ~np.uint64(1 << (length - 1) % _BITS)
    # differing from the next line, or that line's pixel from the one ahead: the lower right neighbour too
    b: Words = np.bitwise_xor(s[:-1], s[1:])
    b |= ahead[:-1]
    b |= ahead[1:]
    return BitMask(mask.size, mask.by_columns, mask.first_line - top, mask.first_word - left, b[:, :-1])


def _common(a: BitMask, b: BitMask) -> tuple[Words, Words]:
    """The parts of the words of two masks, of equal kind, that lie over each other, as views."""
    views = []
    for mask, other in ((a, b), (b, a)):
        top, left = other.first_line - mask.first_line, other.first_word - mask.first_word
        bottom, right = top + other.words.shape[0], left + other.words.shape[1]
        views.append(mask.words[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)])
    return views[0], views[1]


def _check_same_size(a: BitMask, b: BitMask) -> None:
    if a.size != b.size:
        raise ValueError(f"masks of one frame have different sizes: {_shape(a.size)} and {_shape(b.size)}")


def _single(mask: object, size: Size | None) -> BitMask:
    if mask is None:
        if size is None:
            raise ValueError("the size of the frame is needed where no mask tells it: give size=(H, W)")
        return empty((int(size[0]), int(size[1])), by_columns=True)
    if isinstance(mask, BitMask):
        return mask
    if isinstance(mask, np.ndarray):
        return _from_array(mask)
    if isinstance(mask, Mapping):
        return _from_rle(mask)
    raise TypeError(f"expected a mask as array, COCO RLE or None, got {type(mask).__name__}")


def _from_array(mask: NDArray[Any]) -> BitMask:
    if mask.ndim != 2 or not mask.size:
        raise ValueError(f"a mask must have the shape (H, W), at least (1, 1), got {mask.shape}")
    if mask.dtype.kind not in "bui":
        raise TypeError(f"a mask must be of bool or integers, got {mask.dtype}: threshold it first")
    pixels = mask > 0 if mask.dtype.kind == "i" else mask
    height, width = mask.shape
    by_columns = mask.flags.f_contiguous and not mask.flags.c_contiguous
    return BitMask((height, width), by_columns, *pack_lines(pixels.T if by_columns else pixels))


def _from_rle(rle: Mapping[str, Any]) -> BitMask:
    size, starts, stops = runs_of(rle)
    return BitMask(size, True, *fill_runs(size, starts, stops))


def _shape(size: Size) -> str:
    return f"{size[0]} x {size[1]}"
