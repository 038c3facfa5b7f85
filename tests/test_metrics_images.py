"""Numbers of images: what each program does with no-target expressions, and with nothing at all."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from fiftyone_refvos.masklet import BoolArray, encode
from fiftyone_refvos.metrics import IMAGE_PROTOCOLS, ImageScore, score_image

SIZE = (20, 30)


def box(left: int, right: int) -> BoolArray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[5:15, left:right] = True
    return mask


def scores() -> list[ImageScore]:
    """Two targets, one of them rejected by the model, and two expressions without a target, one rejected."""
    return [
        score_image(box(0, 10), box(0, 5), image="a", no_target=False),  # 50 of 100
        score_image(box(0, 10), box(0, 10), image="a", no_target=True),  # 100 of 100, rejected
        score_image(None, box(0, 2), image="b", no_target=False),  # 20 too many
        score_image(None, box(0, 4), image="c", no_target=True),
    ]


def test_counts_boxes_and_the_default_rejection():
    score = score_image(encode(box(3, 9)[None])[0], [box(5, 9), box(8, 12)], image=7)
    assert (score.intersection, score.union, score.no_target) == (40, 90, False)
    assert (score.truth_box, score.prediction_box) == ((3, 5, 8, 14), (5, 5, 11, 14))
    empty = score_image(None, None, image=7, size=SIZE)
    assert (empty.intersection, empty.union, empty.no_target, empty.prediction_box) == (0, 0, True, None)


def test_gres_rejecting_a_target_costs_its_intersection():
    values = IMAGE_PROTOCOLS["gres"].summarize(scores())
    assert values["gIoU"] == 100 * (0.5 + 0 + 0 + 1) / 4
    assert values["cIoU"] == 100 * 50 / (100 + 100 + 20)
    assert (values["N-acc"], values["T-acc"]) == (0.5, 0.5)
    assert [values[f"Pr@{x}"] for x in (0.5, 0.6, 0.9)] == [50.0, 0.0, 0.0]  # at least, not more than


def test_gres_by_mask_asks_the_mask():
    values = IMAGE_PROTOCOLS["gres-by-mask"].summarize(scores())
    assert values["gIoU"] == 100 * (0.5 + 1 + 0 + 0) / 4
    assert (values["N-acc"], values["T-acc"]) == (0.0, 1.0)


def test_res_looks_at_targets_only():
    values = IMAGE_PROTOCOLS["res"].summarize(scores())
    assert values["mIoU"] == values["gIoU"] == 75.0
    assert values["oIoU"] == values["cIoU"] == 75.0
    assert values["Pr@0.5"] == 100.0
    assert values["Pr@0.6"] == 50.0


def test_mllmseg_averages_over_images_and_keeps_rejected_masks():
    more = [*scores(), score_image(box(0, 10), None, image="d")]
    res = IMAGE_PROTOCOLS["mllmseg-res"].summarize(more)
    assert res["gIoU"] == pytest.approx(0.75 / 2, abs=1e-4)  # of images a and d
    assert res["cIoU"] == pytest.approx(0.5)
    assert res["REC@0.5"] == pytest.approx(1 / 3)  # box IoU 4 / 9, 1 and 0
    gres = IMAGE_PROTOCOLS["mllmseg-gres"].summarize(scores())
    assert gres["gIoU"] == pytest.approx((0.5 + 1 + 0 + 1) / 4, abs=1e-4)
    assert gres["cIoU"] == pytest.approx(150 / 220)
    assert (gres["N-acc"], gres["T-acc"]) == (0.5, 0.5)


@pytest.mark.parametrize("name", list(IMAGE_PROTOCOLS))
def test_nothing_is_nan_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = IMAGE_PROTOCOLS[name].summarize([])
    assert math.isnan(values["gIoU"])
    assert math.isnan(values["cIoU"])


def test_masks_of_different_sizes():
    with pytest.raises(ValueError, match="image 'a', predicted mask: the mask is 2 x 3, the frame is 20 x 30"):
        score_image(box(0, 3), np.zeros((2, 3), bool), image="a")
