"""J and F of one frame."""

from __future__ import annotations

from dataclasses import dataclass

from fiftyone_refvos.metrics.bitmask import BitMask, FrameMasks, difference, intersection_area, naming, size_of
from fiftyone_refvos.metrics.boundary import BOUND_TH, boundary_radius, f_value, matched_pixels
from fiftyone_refvos.metrics.packing import Size


@dataclass(frozen=True, slots=True)
class FrameScore:
    """What a predicted mask has in common with the true one, in pixels; void pixels are in none of the numbers.

    Attributes:
        truth_area: pixels of the true mask
        prediction_area: pixels of the predicted mask
        intersection: pixels of both
        truth_boundary: boundary pixels of the true mask
        prediction_boundary: boundary pixels of the predicted mask
        matched_truth: boundary pixels of the true mask near the predicted boundary
        matched_prediction: boundary pixels of the predicted mask near the true boundary
    """

    truth_area: int
    prediction_area: int
    intersection: int
    truth_boundary: int
    prediction_boundary: int
    matched_truth: int
    matched_prediction: int

    @property
    def union(self) -> int:
        """Pixels of either mask."""
        return self.truth_area + self.prediction_area - self.intersection

    @property
    def J(self) -> float:  # noqa: N802 - the name of the measure
        """Region similarity in [0, 1]: intersection over union, 1 if both masks are empty."""
        return jaccard_value(self.intersection, self.union)

    @property
    def F(self) -> float:  # noqa: N802 - the name of the measure
        """Boundary similarity in [0, 1]: harmonic mean of boundary precision and recall."""
        return f_value(self.matched_prediction, self.prediction_boundary, self.matched_truth, self.truth_boundary)


def score_frame(
    truth: FrameMasks,
    prediction: FrameMasks,
    void: FrameMasks = None,
    *,
    size: Size | None = None,
    bound_th: float = BOUND_TH,
) -> FrameScore:
    """J and F of one frame, equal to the last bit to `db_eval_iou` and `f_measure` of davis2017-evaluation.

    Fastest if all masks are RLEs, or all are arrays. A mask that is compared often is best turned into a
    `BitMask` once, which keeps its area and its boundary.

    Args:
        truth: the true mask `(H, W)`, or several that count as their union, see `FrameMasks`
        prediction: the predicted mask, likewise
        void: pixels that count in neither; where it cuts a mask, a new boundary arises, as in the reference
        size: (H, W) of the frame; needed only if no mask tells it
        bound_th: tolerance of F, as a share of the diagonal, or in whole pixels from 1 on

    Raises:
        TypeError: for something that is no mask, or an array of real numbers
        ValueError: for masks of different sizes, a broken RLE, or an unknown size
    """
    truth_bits, prediction_bits = _pair(truth, prediction, void, size)
    return compare(truth_bits, prediction_bits, boundary_radius(truth_bits.size, bound_th))


def jaccard(truth: FrameMasks, prediction: FrameMasks, void: FrameMasks = None, *, size: Size | None = None) -> float:
    """J alone, in [0, 1]; arguments and errors as in `score_frame`."""
    truth_bits, prediction_bits = _pair(truth, prediction, void, size)
    both = intersection_area(truth_bits, prediction_bits)
    return jaccard_value(both, truth_bits.area + prediction_bits.area - both)


def jaccard_value(intersection: int, union: int) -> float:
    """Intersection over union; 1 if both masks are empty."""
    return intersection / union if union else 1.0


def compare(truth: BitMask, prediction: BitMask, radius: int) -> FrameScore:
    """The numbers of two masks of one frame, with boundaries that match up to `radius` pixels."""
    both = intersection_area(truth, prediction)
    prediction = prediction.turned(truth.by_columns)
    truth_edge, prediction_edge = truth.boundary, prediction.boundary
    if both == truth.area == prediction.area:
        matched = truth_edge.area, prediction_edge.area
    else:
        matched = matched_pixels(truth_edge, prediction_edge, radius)
    return FrameScore(
        truth.area, prediction.area, both, truth_edge.area, prediction_edge.area, matched[0], matched[1]
    )


def _pair(truth: FrameMasks, prediction: FrameMasks, void: FrameMasks, size: Size | None) -> tuple[BitMask, BitMask]:
    size = size or size_of(truth, prediction, void)
    with naming("the true mask"):
        truth_bits = BitMask.of(truth, size)
    with naming("the predicted mask"):
        prediction_bits = BitMask.of(prediction, size)
    if void is None:
        return truth_bits, prediction_bits
    with naming("the void mask"):
        void_bits = BitMask.of(void, size)
    return difference(truth_bits, void_bits), difference(prediction_bits, void_bits)
