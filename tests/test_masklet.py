"""Masklets: how streamed results become run-length masks, and how these come back."""

import re
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from fiftyone_refvos.masklet import Expression, FrameResult, Masklet, decode, encode, run_lengths

DOG, CAT = Expression("0", "the dog"), Expression("7", "two cats")


def result(frame, expression=DOG, *, masks=None, scores=None, found=True):
    masks = np.ones((1, 2, 3), dtype=bool) if masks is None else np.asarray(masks, dtype=bool)
    scores = np.full(len(masks), 0.5) if scores is None else np.asarray(scores)
    return FrameResult(frame, expression.id, masks, scores, found)


def pixel(row, column, size=(2, 3)):
    mask = np.zeros(size, dtype=bool)
    mask[row, column] = True
    return mask


# --- encode and decode ---


@given(arrays(bool, array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=12)))
def test_decode_is_the_inverse_of_encode(masks):
    decoded = decode(encode(masks), masks.shape[1:])
    assert decoded.dtype == bool
    np.testing.assert_array_equal(decoded, masks)


def test_no_objects():
    none = np.zeros((0, 4, 5), dtype=bool)
    assert encode(none) == []
    decoded = decode([], (4, 5))
    assert decoded.shape == (0, 4, 5)
    assert decoded.dtype == bool


def test_decoded_masks_are_c_ordered():
    assert decode(encode(np.ones((2, 4, 5), dtype=bool)), (4, 5)).flags.c_contiguous


def test_encode_needs_three_dimensions():
    with pytest.raises(ValueError, match=re.escape("expected masks of shape (N, H, W), got (4, 5)")):
        encode(np.ones((4, 5), dtype=bool))


def test_decode_refuses_other_sizes():
    with pytest.raises(ValueError, match=re.escape("the mask is (4, 5), the frame is (5, 4)")):
        decode(encode(np.ones((1, 4, 5), dtype=bool)), (5, 4))


# --- collect ---


def test_collect_sorts_frames_and_keeps_the_order_of_expressions():
    order = [(2, CAT), (0, DOG), (1, CAT), (2, DOG), (0, CAT), (1, DOG)]
    results = [result(t, e, masks=[pixel(0, t)], scores=[t / 10]) for t, e in order]
    masklets = Masklet.collect(results, [DOG, CAT], key_frames={"7": 2})

    assert [masklet.expression for masklet in masklets] == [DOG, CAT]
    assert [masklet.key_frame for masklet in masklets] == [None, 2]
    for masklet in masklets:
        assert masklet.frames == (0, 1, 2)
        assert masklet.size == (2, 3)
        np.testing.assert_array_equal(masklet.scores, np.array([[0], [0.1], [0.2]], dtype=np.float32))
        for t, frame in enumerate(masklet.dense()):
            np.testing.assert_array_equal(frame, [pixel(0, t)])


@given(st.permutations(range(6)))
def test_the_order_of_results_does_not_matter(order):
    results = [result(t, masks=[pixel(t % 2, t % 3)], scores=[t / 10], found=t != 3) for t in range(6)]
    assert Masklet.collect([results[t] for t in order], [DOG]) == Masklet.collect(results, [DOG])


def test_collect_takes_a_generator_and_gaps_between_frames():
    (masklet,) = Masklet.collect((result(t) for t in (9, 3)), [DOG])
    assert masklet.frames == (3, 9)
    np.testing.assert_array_equal(masklet.mask(9), np.ones((1, 2, 3), dtype=bool))


def test_frames_with_fewer_objects_are_filled_up():
    results = [
        result(0, masks=[pixel(0, 0), pixel(1, 1)], scores=[0.25, 0.75]),
        result(1, masks=np.zeros((0, 2, 3)), found=False),
    ]
    (masklet,) = Masklet.collect(results, [DOG])
    assert masklet.num_objects == 2
    np.testing.assert_array_equal(masklet.scores, np.array([[0.25, 0.75], [0, 0]], dtype=np.float32))
    np.testing.assert_array_equal(masklet.found, [True, False])
    np.testing.assert_array_equal(masklet.mask(1), np.zeros((2, 2, 3), dtype=bool))


def test_no_expressions():
    assert Masklet.collect([], []) == []


@pytest.mark.parametrize(
    ("results", "expressions", "message"),
    [
        ([result(0, CAT)], [DOG], "result for the unknown expression id '7', known: ['0']"),
        ([result(0), result(0)], [DOG], "frame 0 of expression '0' was given twice"),
        ([], [DOG], "there is no result for expression '0'"),
        ([result(0)], [DOG, DOG], "expression ids must be unique, got ['0', '0']"),
        (
            [result(4), result(5), result(4, CAT)],
            [DOG, CAT],
            "no result of expression '7' for 1 of 2, first 5",
        ),
        ([result(4), result(5)], [DOG, CAT], "no result of expression '7' for 2 of 2, first 4"),
        (
            [result(0), result(1, masks=[pixel(0, 0, (3, 2))])],
            [DOG],
            "frame 1 has masks of size (3, 2), earlier",
        ),
        ([result(0, scores=[0.5, 0.5])], [DOG], "frame 0 has 1 masks, but scores of shape (2,)"),
        ([result(0, masks=pixel(0, 0))], [DOG], "expected masks of shape (N, H, W), got (2, 3)"),
    ],
)
def test_collect_refuses(results, expressions, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Masklet.collect(results, expressions)


# --- what a masklet tells ---


def test_score_is_the_mean_over_masks_with_pixels():
    results = [
        result(0, masks=[pixel(0, 0), np.zeros((2, 3))], scores=[0.5, 0.9]),
        result(1, masks=[np.zeros((2, 3)), pixel(0, 1)], scores=[0.9, 0.25]),
    ]
    (masklet,) = Masklet.collect(results, [DOG])
    assert masklet.score == 0.375
    assert not masklet.no_target


@pytest.mark.parametrize("masks", [np.zeros((2, 2, 3)), np.zeros((0, 2, 3))])
def test_no_target(masks):
    (masklet,) = Masklet.collect([result(t, masks=masks, found=False) for t in (0, 1)], [DOG])
    assert masklet.no_target
    assert masklet.score == 0
    assert masklet.num_objects == len(masks)
    np.testing.assert_array_equal(masklet.union(1), np.zeros((2, 3), dtype=bool))
    np.testing.assert_array_equal(masklet.mask(0), np.zeros(masks.shape, dtype=bool))


def test_masks_that_are_kept_make_no_target():
    masks = [pixel(0, 0)]
    (rejected,) = Masklet.collect([result(t, masks=masks, found=False) for t in (0, 1)], [DOG])
    (found,) = Masklet.collect([result(t, masks=masks, found=t == 1) for t in (0, 1)], [DOG])
    assert (rejected.no_target, found.no_target) == (True, False)
    assert rejected.union(0).any()


def test_union_of_objects():
    (masklet,) = Masklet.collect([result(5, masks=[pixel(0, 0), pixel(1, 2)])], [DOG])
    np.testing.assert_array_equal(masklet.union(5), pixel(0, 0) | pixel(1, 2))


def test_frames_that_are_not_covered():
    (masklet,) = Masklet.collect([result(5)], [DOG])
    with pytest.raises(KeyError, match="frame 0 is not covered by the masklet of expression '0'"):
        masklet.mask(0)


def test_equality_compares_contents():
    def make(**changes):
        return Masklet.collect([result(0, **changes), result(1)], [DOG])[0]

    assert make() == make()
    assert make() != make(scores=[0.25])
    assert make() != make(found=False)
    assert make() != make(masks=[pixel(0, 0)])
    assert make() != "a masklet"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": (1, 0)}, "must have ascending frames, got (1, 0)"),
        ({"frames": (0, 0)}, "must have ascending frames, got (0, 0)"),
        (
            {"found": np.ones(3, dtype=bool)},
            "covers 2 frames, but has 2 lists of masks, scores of shape (2, 1)",
        ),
        ({"masks": ((), ())}, "must have as many masks as scores in each of its 2 frames"),
        ({"scores": np.zeros(2, dtype=np.float32)}, "scores of shape (2,)"),
    ],
)
def test_a_masklet_that_does_not_fit_together(changes, message):
    whole = Masklet.collect([result(0), result(1)], [DOG])[0]
    parts = {name: getattr(whole, name) for name in ("expression", "size", "frames", "masks", "scores", "found")}
    with pytest.raises(ValueError, match=re.escape(message)):
        Masklet(**{**parts, **changes})


def test_memory_holds_run_lengths_only():
    """Collecting and reading 200 frames of 480x854 stays far below one dense copy of them, 82 MB."""
    frame = np.zeros((1, 480, 854), dtype=bool)
    frame[0, 100:300, 200:500] = True
    tracemalloc.start()
    (masklet,) = Masklet.collect((result(t, masks=frame) for t in range(200)), [DOG])
    assert sum(int(masks.sum()) for masks in masklet.dense()) == 200 * 200 * 300
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6
    assert held < 1e6
    assert sum(sys.getsizeof(rle["counts"]) for rles in masklet.masks for rle in rles) < 1e6


def test_videos_of_more_than_255_frames_have_a_score() -> None:
    masks = np.ones((1, 2, 3), dtype=bool)
    results = (FrameResult(t, "0", masks, np.array([0.5], dtype=np.float32), True) for t in range(300))
    (masklet,) = Masklet.collect(results, [Expression("0", "x")])
    assert (masklet.no_target, masklet.score) == (False, 0.5)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (480, 854), (20000, 30000)])
def test_run_lengths_of_any_number_of_bytes_are_read(size):
    height, width = size
    rng = np.random.default_rng(height)
    cuts = np.unique(rng.integers(0, height * width, 300))  # long runs beside short ones, up and down
    counts = np.diff(cuts, prepend=0, append=height * width)
    rle = coco_mask.frPyObjects({"size": [height, width], "counts": counts.tolist()}, height, width)
    assert run_lengths(rle).tolist() == counts.tolist()
