"""J and F of single frames: equal to the official numbers, and to the definition on whatever masks there are."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from benchmarks.metrics import boundary, straightforward
from fiftyone_refvos.masklet import BoolArray, encode
from fiftyone_refvos.metrics import BitMask, boundary_radius, jaccard, score_frame
from fiftyone_refvos.metrics.bitmask import difference, intersection, intersection_area, union
from tests.shared import shared_path

SMALL = [(1, 1), (1, 2), (2, 1), (1, 7), (9, 1), (2, 2), (5, 9), (16, 64), (64, 16), (33, 65), (63, 63), (65, 129)]
LARGE = [(480, 854), (720, 1280), (1080, 1920), (1280, 720), (300, 64)]
KINDS = ["empty", "full", "blob", "edge", "row", "column", "diagonal", "dots", "noise", "corners", "stripes", "hole"]


def draw(kind: str, size: tuple[int, int], seed: int) -> BoolArray:
    """A mask `(H, W)` of some kind; what is random about it comes from the seed."""
    rng = np.random.default_rng(seed)
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros(size, dtype=bool)
    if kind in ("full", "hole"):
        mask[:] = True
    if kind in ("blob", "edge", "hole"):
        y, x = rng.random(2) * size
        if kind == "edge":  # cut off by one border or two
            y, x = rng.choice([0, height - 1, y]), rng.choice([0, width - 1])
        reach = (0.02 + 0.5 * rng.random()) * max(size)
        angle = np.arctan2(rows - y, columns - x)
        mask ^= np.hypot(rows - y, columns - x) < reach * (1 + 0.3 * np.cos(5 * angle))
    elif kind == "row":
        mask[rng.integers(height)] = True
    elif kind == "column":
        mask[:, rng.integers(width)] = True
    elif kind == "diagonal":
        mask |= np.abs(rows - columns - rng.integers(-width, height)) < rng.integers(1, 4)
    elif kind == "dots":
        mask[rng.integers(height, size=3), rng.integers(width, size=3)] = True
    elif kind == "noise":
        mask |= rng.random(size) < rng.choice([0.001, 0.05, 0.5, 0.95])
    elif kind == "corners":
        mask[[0, 0, -1, -1], [0, -1, 0, -1]] = rng.random(4) < 0.5
    elif kind == "stripes":
        mask |= (columns // rng.integers(1, 5)) % 2 == 0
    return mask


@st.composite
def pairs(draw_from: Any, sizes: list[tuple[int, int]]) -> tuple[BoolArray, BoolArray, BoolArray | None]:
    """True mask, predicted mask, which often is the true one a little off, and void."""
    size = draw_from(st.sampled_from(sizes))
    kinds, seeds = st.sampled_from(KINDS), st.integers(0, 2**32 - 1)
    truth = draw(draw_from(kinds), size, draw_from(seeds))
    if draw_from(st.booleans()):
        shift = draw_from(st.tuples(st.integers(-15, 15), st.integers(-15, 15)))
        prediction = np.roll(truth, shift, axis=(0, 1))
    else:
        prediction = draw(draw_from(kinds), size, draw_from(seeds))
    void = draw(draw_from(kinds), size, draw_from(seeds)) if draw_from(st.booleans()) else None
    return truth, prediction, void


def rle_of(mask: NDArray[Any] | None) -> Any:
    return None if mask is None else encode(mask.astype(bool)[None])[0]


def check_all_ways(masks: tuple[BoolArray, BoolArray, BoolArray | None], bound_th: float) -> None:
    truth, prediction, void = masks
    expected = straightforward(truth, prediction, void, bound_th)
    rles = [rle_of(mask) for mask in masks]
    for way in (
        masks,
        rles,
        [None if mask is None else np.asfortranarray(mask) for mask in masks],
        [rles[0], prediction.astype(np.uint8) * 255, void],
    ):
        score = score_frame(*way, size=truth.shape, bound_th=bound_th)
        assert expected == (score.J, score.F)
    assert jaccard(*rles, size=truth.shape) == expected[0]


BOUNDS = st.sampled_from([0.008, 0.008, 0.02, 0.1, 1, 2, 3, 12, 31, 32, 40, 64, 70])


@settings(max_examples=1500, deadline=None)
@given(pairs(SMALL), BOUNDS)
def test_small_masks_score_as_defined(masks, bound_th):
    check_all_ways(masks, bound_th)


@settings(max_examples=30, deadline=None)
@given(pairs(LARGE))
def test_large_masks_score_as_defined(masks):
    check_all_ways(masks, 0.008)


@settings(max_examples=150, deadline=None)
@given(pairs(SMALL), BOUNDS)
def test_counts_are_those_of_comparing_every_two_boundary_pixels(masks, bound_th):
    truth, prediction, void = masks
    score = score_frame(*masks, bound_th=bound_th)
    kept = np.ones(truth.shape, dtype=bool) if void is None else ~void
    assert (score.truth_area, score.prediction_area) == ((truth & kept).sum(), (prediction & kept).sum())
    assert score.intersection == (truth & prediction & kept).sum()
    assert score.union == ((truth | prediction) & kept).sum()
    edges = [np.argwhere(boundary(mask & kept)) for mask in (truth, prediction)]
    assert [score.truth_boundary, score.prediction_boundary] == [len(edge) for edge in edges]
    squares = ((edges[0][:, None] - edges[1][None]) ** 2).sum(axis=2)
    near = squares <= boundary_radius(truth.shape, bound_th) ** 2
    assert score.matched_truth == near.any(axis=1).sum()
    assert score.matched_prediction == near.any(axis=0).sum()


@settings(max_examples=100, deadline=None)
@given(pairs(SMALL))
def test_bits_are_the_mask_however_it_comes(masks):
    for mask in masks[:2]:
        for form in (mask, rle_of(mask), np.asfortranarray(mask), mask.astype(np.int16) * 7):
            bits = BitMask.of(form)
            assert (bits.to_array() == mask).all()
            assert (bits.turned(not bits.by_columns).to_array() == mask).all()
            assert bits.area == mask.sum()
            assert (bits.boundary.to_array() == boundary(mask)).all()
            rows, columns = np.nonzero(mask)
            box = (columns.min(), rows.min(), columns.max(), rows.max()) if mask.any() else None
            assert bits.box == box
    a, b = masks[:2]
    for first, second in ((a, b), (rle_of(a), rle_of(b)), (rle_of(a), b), (a, rle_of(b))):
        x, y = BitMask.of(first), BitMask.of(second)
        assert (union(x, y).to_array() == (a | b)).all()
        assert (intersection(x, y).to_array() == (a & b)).all()
        assert (difference(x, y).to_array() == (a & ~b)).all()
        assert intersection_area(x, y) == (a & b).sum()


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 70), st.integers(1, 6), st.lists(st.integers(0, 40), max_size=20))
@example(64, 3, [0, 64, 64, 64])
@example(3, 2, [2, 0, 1, 0, 3])
def test_run_lengths_that_are_not_compressed(height, width, lengths):
    kept: list[int] = []
    for length in lengths:
        kept.append(min(length, height * width - sum(kept)))
    kept.append(height * width - sum(kept))
    pixels = np.repeat(np.arange(len(kept)) % 2 == 1, kept).reshape(width, height).T
    bits = BitMask.of({"size": [height, width], "counts": kept})
    assert (bits.to_array() == pixels).all()


def test_golden_pairs_and_the_baseline_of_the_benchmark():
    cases = json.loads(shared_path("golden", "vos_metrics", "case_a", "pairs.json").read_text())["pairs"]
    for case in cases:
        masks = [case[name] for name in ("gt", "pred", "void")]
        score = score_frame(*masks, size=tuple(case["size"]), bound_th=case["bound_th"])
        assert (case["J"], case["F"]) == (score.J, score.F), case["name"]
        edges = (score.truth_boundary, score.prediction_boundary)
        assert edges == (case["n_gt_boundary"], case["n_pred_boundary"])
    for case in cases[::4]:  # the straightforward formulation, against which we measure, is the official one
        truth, prediction, void = (
            case[name] and BitMask.of(case[name]).to_array() for name in ("gt", "pred", "void")
        )
        assert straightforward(truth, prediction, void, case["bound_th"]) == (case["J"], case["F"]), case["name"]


def test_known_consequences_of_the_definition():
    full, empty = np.ones((40, 60), bool), np.zeros((40, 60), bool)
    some = draw("blob", (40, 60), 1)
    score = score_frame(full, empty)
    assert (score.J, score.F) == (0.0, 1.0)  # neither has a boundary
    score = score_frame(empty, some)
    assert (score.J, score.F) == (0.0, 0.0)
    score = score_frame(None, None, size=(40, 60))
    assert (score.J, score.F) == (1.0, 1.0)
    assert [boundary_radius(size) for size in ((96, 160), (360, 640), (480, 854), (720, 1280), (1080, 1920))] == [
        2, 6, 8, 12, 18,
    ]  # fmt: skip


def test_a_tolerance_beyond_the_frame():
    score = score_frame(draw("dots", (40, 60), 5), draw("dots", (40, 60), 6), bound_th=10**9)
    assert score.F == 1.0


def test_several_masks_count_as_their_union():
    a, b = draw("blob", (40, 60), 2), draw("blob", (40, 60), 3)
    expected = score_frame(a | b, a)
    ways: list[Any] = [[a, b], (rle_of(a), rle_of(b), None), np.stack([a, b])]
    for several in ways:
        assert score_frame(several, a) == expected
    assert score_frame([], a) == score_frame(None, a)
    assert score_frame(np.zeros((0, 40, 60), bool), a) == score_frame(None, a)


@pytest.mark.parametrize(
    ("truth", "prediction", "error", "message"),
    [
        (
            np.zeros((4, 5), bool),
            np.zeros((5, 4), bool),
            ValueError,
            "predicted mask: the mask is 5 x 4, the frame is 4 x 5",
        ),
        (np.zeros((4, 5)), np.zeros((4, 5), bool), TypeError, "true mask: .*float64: threshold it first"),
        (np.zeros((4, 5), bool), np.zeros(5, bool), ValueError, r"predicted mask: .* shape \(H, W\).*\(5,\)"),
        (np.zeros((0, 5), bool), None, ValueError, r"at least \(1, 1\), got \(0, 5\)"),
        ("mask.png", None, TypeError, "expected a mask as array, COCO RLE or None, got str"),
        (None, None, ValueError, r"give size=\(H, W\)"),
        ({"counts": b"04"}, None, ValueError, "keys 'size' and 'counts', got .'counts'"),
        ({"size": [2, 2], "counts": "05"}, None, ValueError, "hold 5 pixels, 2 x 2 are expected"),
        ({"size": [2, 2], "counts": [5, -1]}, None, ValueError, "broken COCO RLE"),
        ({"size": [2, 2], "counts": b""}, None, ValueError, "hold 0 pixels"),
        ({"size": [2, 2], "counts": b"\x7f"}, None, ValueError, "broken COCO RLE"),
        ({"size": [2, 2], "counts": b"`"}, None, ValueError, "broken COCO RLE"),
        ({"size": [2, 2], "counts": "é"}, None, ValueError, "true mask"),
        ({"size": [2, 2], "counts": None}, None, (TypeError, ValueError), "true mask"),
    ],
)
def test_bad_masks(truth, prediction, error, message):
    with pytest.raises(error, match=message):
        score_frame(truth, prediction)


def test_a_size_that_is_given_must_be_that_of_the_masks():
    with pytest.raises(ValueError, match="the true mask: the mask is 4 x 5, the frame is 6 x 5"):
        score_frame(np.zeros((4, 5), bool), None, size=(6, 5))


@pytest.mark.parametrize("bound_th", [-1, 1.5, float("nan")])
def test_a_bad_tolerance(bound_th):
    with pytest.raises(ValueError, match="bound_th must be"):
        boundary_radius((4, 5), bound_th)


def test_bits_can_be_sent_to_other_processes():
    bits = BitMask.of(draw("blob", (40, 60), 4))
    bits.boundary.area  # noqa: B018 - kept with the bits
    assert (pickle.loads(pickle.dumps(bits)).to_array() == bits.to_array()).all()


def test_neither_fiftyone_nor_torch_is_imported():
    code = "import sys, fiftyone_refvos.metrics; print({'fiftyone', 'torch', 'cv2'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"
