"""Crops: from run lengths to tight boxes and back, without a database."""

import fiftyone as fo
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from fiftyone_refvos.fields import to_detection
from fiftyone_refvos.fields.crops import crop, paste
from fiftyone_refvos.fields.runs import from_runs, to_runs
from fiftyone_refvos.masklet import decode, encode
from tests.fields_data import KINDS, random_mask

SIZES = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([(1080, 1920), (480, 854), (1, 1920), (1080, 1), (1079, 1919)]),
)
MASKS = st.builds(
    lambda seed, size, kind: random_mask(np.random.default_rng(seed), size, kind),
    st.integers(0, 2**32 - 1),
    SIZES,
    st.sampled_from(KINDS),
)


def rle_of(mask):
    return encode(mask[None])[0]


@settings(deadline=None, max_examples=200)
@given(MASKS)
def test_a_crop_is_the_tight_box(mask):
    cropped = crop(rle_of(mask))
    if not mask.any():
        assert cropped is None
        return
    assert cropped is not None
    rows, columns = np.nonzero(mask)
    assert (cropped.x, cropped.y) == (columns.min(), rows.min())
    inside = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    np.testing.assert_array_equal(cropped.mask, inside)
    assert cropped.mask.dtype == bool
    assert cropped.mask.flags.c_contiguous  # the App reads the bytes in this order


@settings(deadline=None, max_examples=200)
@given(MASKS, st.integers(0, 1), st.integers(0, 1))
def test_paste_is_the_inverse_of_crop(mask, bottom, right):
    """Byte for byte what the COCO API encodes, on a canvas that is padded or not."""
    rle = rle_of(mask)
    cropped = crop(rle)
    if cropped is not None:
        canvas = (mask.shape[0] + bottom, mask.shape[1] + right)
        assert paste(cropped.mask, cropped.relative_box(canvas), canvas, mask.shape) == rle


def test_runs_of_no_length():
    """Other encoders write them; they make no box larger."""
    counts = [5, 0, 3, 0, 2, 3, 4, 0, 3]
    rle = coco_mask.frPyObjects({"size": [4, 5], "counts": counts}, 4, 5)
    cropped = crop(rle)
    assert cropped is not None
    pixels = np.zeros(20, dtype=bool)
    pixels[10:13] = True
    mask = pixels.reshape(5, 4).T
    np.testing.assert_array_equal(decode([rle], (4, 5))[0], mask)
    assert (cropped.x, cropped.y, cropped.mask.shape) == (2, 0, (4, 2))
    assert paste(cropped.mask, cropped.relative_box((4, 5)), (4, 5), (4, 5)) == rle_of(mask)


def test_a_detection_of_a_mask():
    mask = np.zeros((4, 10), dtype=bool)
    mask[1:3, 2:7] = True
    detection = to_detection(rle_of(mask), (4, 10), label="dog", confidence=0.5, expression_id="3")
    assert detection is not None
    assert detection.bounding_box == [0.2, 0.25, 0.5, 0.5]
    np.testing.assert_array_equal(detection.mask, np.ones((2, 5), dtype=bool))
    assert (detection.label, detection.confidence, detection.expression_id) == ("dog", 0.5, "3")
    assert to_detection(rle_of(np.zeros((4, 10), dtype=bool)), (4, 10)) is None


def test_padding_is_cut_off():
    """A box of the padded picture that reaches into the padding."""
    rle = paste(np.ones((6, 8), dtype=bool), [0, 0, 1, 1], (6, 8), (5, 7))
    np.testing.assert_array_equal(decode([rle], (5, 7))[0], np.ones((5, 7), dtype=bool))


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([0.25, 0.5, 0.5, 0.5], (slice(2, 4), slice(1, 3))),  # a mask of half the resolution
        ([-0.25, -0.25, 0.5, 0.5], (slice(0, 1), slice(0, 1))),  # a box that was dragged out of the picture
        ([0.75, 0.75, 0.5, 0.5], (slice(3, 4), slice(3, 4))),
        ([0.0, 0.0, 0.01, 0.01], (slice(0, 1), slice(0, 1))),  # less than half a pixel
    ],
)
def test_masks_that_do_not_fit_their_box_are_stretched(box, expected):
    mask = np.zeros((4, 4), dtype=bool)
    mask[expected] = True
    rle = paste(np.ones((1, 1), dtype=bool), box, (4, 4), (4, 4))
    np.testing.assert_array_equal(decode([rle], (4, 4))[0], mask)


def test_fiftyone_itself_is_not_exact():
    """Why there is a decoder of our own: should this fail, FiftyOne may have mended `to_segmentation`."""
    mask = np.zeros((480, 854), dtype=bool)
    shifted = 0
    for x in range(0, 800, 7):
        mask[:] = False
        mask[100:140, x : x + 40] = True
        detection = to_detection(rle_of(mask), (480, 854))
        assert detection is not None
        theirs = fo.Detection.to_segmentation(detection, frame_size=(854, 480), target=1).mask.astype(bool)
        shifted += not np.array_equal(theirs, mask)
        assert paste(detection.mask, detection.bounding_box, mask.shape, mask.shape) == rle_of(mask)
    assert shifted > 0


@given(st.sets(st.integers(1, 60)))
def test_runs_of_frame_numbers(numbers):
    runs = to_runs(numbers)
    assert from_runs(runs) == numbers
    assert len(runs) % 2 == 0
    assert runs == sorted(runs)


def test_runs_are_as_long_as_they_can_be():
    assert to_runs([7, 1, 3, 2]) == [1, 3, 7, 7]
    assert to_runs([]) == []
