"""The boundary measure F on bits: how many pixels of one boundary lie near the other.

The definition is that of davis2017-evaluation (`f_measure`), and the results are equal to the last bit; only the
way is another: bits instead of bytes, windows instead of frames, and the disk around a pixel only where a rectangle
inside that disk does not suffice.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, isqrt, sqrt

import numpy as np
from numpy.typing import NDArray

from fiftyone_refvos.masklet import BoolArray
from fiftyone_refvos.metrics.bitmask import BitMask, count, place
from fiftyone_refvos.metrics.packing import Size, Words

BOUND_TH = 0.008  # of the frame's diagonal: the tolerance of every protocol here

_BITS = 64
_MAX_RECTANGLE_RADIUS = 63  # a shift by half the width of the rectangle must stay within a word
_MAX_PROBE_RADIUS = 31  # the span of a disk, 2 * radius + 1, must fit a word


def boundary_radius(size: Size, bound_th: float = BOUND_TH) -> int:
    """The distance in pixels up to which boundaries match: `ceil(bound_th * diagonal)`, or `bound_th` from 1 on.

    Raises:
        ValueError: for a negative `bound_th`, or one above 1 that is no whole number of pixels
    """
    if not bound_th >= 0 or (bound_th >= 1 and bound_th != int(bound_th)):
        raise ValueError(f"bound_th must be a share of the diagonal below 1 or whole pixels, got {bound_th}")
    return int(bound_th) if bound_th >= 1 else ceil(bound_th * sqrt(size[0] ** 2 + size[1] ** 2))


def matched_pixels(a: BitMask, b: BitMask, radius: int) -> tuple[int, int]:
    """How many pixels of boundary `a` have one of `b` within the distance, and how many of `b` one of `a`.

    Args:
        a: a boundary map
        b: another of the same frame, with lines of the same kind
        radius: in pixels; dx² + dy² <= radius² counts
    """
    radius = min(radius, sum(a.size))  # no two pixels are further apart
    window = _window(a, b, radius)
    if window is None:
        return 0, 0
    top, left, lines, words = window
    pad = 2 * radius // _BITS + 1  # zeros after every line, into which shifts may run
    # planes 0 and 1 are the two boundaries; as many zero lines above and below as a disk reaches
    planes = np.zeros((2, lines + 2 * radius, words + pad), dtype=np.uint64)
    edges = planes[:, radius : radius + lines]
    place(a, edges[0, :, :words], top, left)
    place(b, edges[1, :, :words], top, left)
    if radius > _MAX_RECTANGLE_RADIUS:
        return _counts(edges & _spread_disk(planes, radius)[::-1])
    near = edges & _spread_rectangle(planes, radius)[::-1]
    matched = _counts(near)
    if matched == (a.area, b.area):
        return matched
    further = _counts_near(edges ^ near, planes, radius)
    return matched[0] + further[0], matched[1] + further[1]


def f_value(matched_prediction: int, prediction: int, matched_truth: int, truth: int) -> float:
    """F from the numbers of matched and of all boundary pixels, in the order of the reference's operations."""
    if prediction and truth:
        precision, recall = matched_prediction / prediction, matched_truth / truth
    else:
        precision, recall = float(not prediction), float(not truth)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _window(a: BitMask, b: BitMask, radius: int) -> tuple[int, int, int, int] | None:
    """First line and word, and numbers of both, of the part of the frame where matches can be; None if nowhere.

    It is what the boxes of both, each grown by the radius, have in common.
    """
    if not a.words.size or not b.words.size:
        return None
    words_reach = -(-radius // _BITS)
    top = max(a.first_line, b.first_line) - radius
    left = max(a.first_word, b.first_word) - words_reach
    bottom = min(a.first_line + a.words.shape[0], b.first_line + b.words.shape[0]) + radius
    right = min(a.first_word + a.words.shape[1], b.first_word + b.words.shape[1]) + words_reach
    # no further than where there are pixels at all
    top, left = max(top, min(a.first_line, b.first_line)), max(left, min(a.first_word, b.first_word))
    bottom = min(bottom, max(a.first_line + a.words.shape[0], b.first_line + b.words.shape[0]))
    right = min(right, max(a.first_word + a.words.shape[1], b.first_word + b.words.shape[1]))
    return (top, left, bottom - top, right - left) if bottom > top and right > left else None


def _spread_rectangle(planes: Words, radius: int) -> Words:
    """Dilates by a large rectangle inside the disk, in steps that double; `radius` lines above and below go."""
    half = isqrt(radius * radius // 2)
    half_lines = isqrt(radius * radius - half * half)
    inner = radius - half_lines
    planes, reach, side = planes[:, inner : planes.shape[1] - inner], 1, 2 * half_lines + 1
    while reach < side:
        step = min(reach, side - reach)
        planes = planes[:, :-step] | planes[:, step:]
        reach += step
    reach, side = 1, 2 * half + 1
    while reach < side:
        step = min(reach, side - reach, _BITS - 1)
        grown = _later(planes, step)
        grown |= planes
        planes = grown
        reach += step
    return _earlier(planes, half) if half else planes


def _later(words: Words, bits: int) -> Words:
    """Moves all pixels on by 0 < bits < 64 along their lines; what leaves a line runs into its zeros."""
    moved: Words = np.left_shift(words, bits)
    carried = moved.reshape(-1)[1:]
    carried |= words.reshape(-1)[:-1] >> (_BITS - bits)
    return moved


def _earlier(words: Words, bits: int) -> Words:
    """Moves all pixels back by 0 < bits < 64 along their lines."""
    moved: Words = np.right_shift(words, bits)
    carried = moved.reshape(-1)[:-1]
    carried |= words.reshape(-1)[1:] << (_BITS - bits)
    return moved


def _counts(planes: Words) -> tuple[int, int]:
    return count(planes[0]), count(planes[1])


def _counts_near(pixels: Words, planes: Words, radius: int) -> tuple[int, int]:
    """How many of the pixels `(2, lines, words)` have one of the other plane within the radius.

    The planes have `radius` lines more above and below; the last word of all lines is 0.
    """
    at = np.flatnonzero(pixels)
    words = pixels.reshape(-1)[at]
    # Probing costs by the pixel, spreading by the word; they break even about here.
    if radius > _MAX_PROBE_RADIUS or 4 * count(words) > pixels.size:
        return _counts(pixels & _spread_disk(planes, radius)[::-1])
    bits = np.unpackbits(words.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    index, bit = np.nonzero(bits)
    plane, line, word = np.unravel_index(at[index], pixels.shape)
    near = _probe_disks(1 - plane, line, word * _BITS + bit, planes, radius)
    return int(near[plane == 0].sum()), int(near[plane == 1].sum())


def _probe_disks(
    plane: NDArray[np.intp], line: NDArray[np.intp], pixel: NDArray[np.intp], planes: Words, radius: int
) -> BoolArray:
    """Whether there is a pixel in the disk around each of the given places of `planes`."""
    _, lines, words = planes.shape
    # Bits [start, start + 2 * radius] of a line are the span of the disk. The word before a line is the 0 at the
    # end of another, also for the very first line: it has the index -1.
    start = pixel - radius
    first = ((plane * lines + line) * words + (start >> 6))[:, None] + np.arange(2 * radius + 1) * words
    shift = (start & 63).astype(np.uint64)[:, None]
    flat = planes.reshape(-1)
    spans = (flat[first] >> shift) | (flat[first + 1] << 1 << (np.uint64(63) - shift))
    return np.asarray((spans & _disk_spans(radius)).any(axis=1))


def _spread_disk(planes: Words, radius: int) -> Words:
    """Dilates `(2, lines, words)` by a disk; `radius` lines above and below go."""
    lines = planes.shape[1] - 2 * radius
    result = np.zeros((2, lines, planes.shape[2]), dtype=np.uint64)
    wide = planes
    for half, offsets in enumerate(_disk_offsets(radius)):
        if half:
            wide = wide | _later(wide, 1) | _earlier(wide, 1)
        for offset in offsets:
            result |= wide[:, radius + offset : radius + offset + lines]
    return result


def _half_width(radius: int, offset: int) -> int:
    return isqrt(radius * radius - offset * offset)


@lru_cache(maxsize=32)
def _disk_spans(radius: int) -> NDArray[np.uint64]:
    """For every line of a disk the bits of its span, where bit `radius` is the centre."""
    halves = [_half_width(radius, offset) for offset in range(-radius, radius + 1)]
    return np.array([((1 << 2 * half + 1) - 1) << (radius - half) for half in halves], dtype=np.uint64)


@lru_cache(maxsize=32)
def _disk_offsets(radius: int) -> tuple[tuple[int, ...], ...]:
    """For every half width, from 0 to the radius, the line offsets at which the disk is that wide."""
    offsets = range(-radius, radius + 1)
    return tuple(tuple(o for o in offsets if _half_width(radius, o) == half) for half in range(radius + 1))
