"""Referring segmentation of images: cIoU, gIoU, mIoU, oIoU, Pr@X, N-acc and T-acc, program by program."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from fiftyone_refvos.metrics.bitmask import BitMask, FrameMasks, intersection_area, naming, size_of
from fiftyone_refvos.metrics.packing import Size
from fiftyone_refvos.metrics.protocol import mean

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)

Box = tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class ImageScore:
    """One expression of one image.

    Attributes:
        image: what tells images apart; the expressions of one image follow each other
        intersection: pixels of both masks
        union: pixels of either mask
        truth_area: pixels of the true mask; 0 for an expression without a target
        prediction_area: pixels of the predicted mask
        no_target: whether the model says that there is no target, apart from its mask
        truth_box: (left, top, right, bottom) of the true pixels, all inside; None without pixels
        prediction_box: the same of the predicted pixels
    """

    image: Hashable
    intersection: int
    union: int
    truth_area: int
    prediction_area: int
    no_target: bool
    truth_box: Box | None
    prediction_box: Box | None


def score_image(
    truth: FrameMasks,
    prediction: FrameMasks,
    *,
    image: Hashable,
    no_target: bool | None = None,
    size: Size | None = None,
) -> ImageScore:
    """The numbers of one expression.

    Args:
        truth: the true mask, or several that count as their union, see `FrameMasks`
        prediction: the predicted mask, likewise
        image: what tells images apart
        no_target: what the model says; by default whether its mask is empty
        size: (H, W) of the image, needed only if no mask tells it

    Raises:
        TypeError: for something that is no mask
        ValueError: for masks of different sizes, a broken RLE, or an unknown size
    """
    size = size or size_of(truth, prediction)
    with naming(f"image {image!r}, true mask"):
        true = BitMask.of(truth, size)
    with naming(f"image {image!r}, predicted mask"):
        predicted = BitMask.of(prediction, size)
    both = intersection_area(true, predicted)
    return ImageScore(
        image=image,
        intersection=both,
        union=true.area + predicted.area - both,
        truth_area=true.area,
        prediction_area=predicted.area,
        no_target=not predicted.area if no_target is None else no_target,
        truth_box=true.box,
        prediction_box=predicted.box,
    )


@dataclass(frozen=True, kw_only=True)
class ImageProtocol(ABC):
    """A published evaluation of images.

    Attributes:
        name: of the protocol, as in `IMAGE_PROTOCOLS`
        description: the program that it follows and what is particular about it
        percent: whether IoU and Pr@X are percentages, as the program prints them; N-acc and T-acc never are
    """

    name: str
    description: str
    percent: bool

    @abstractmethod
    def summarize(self, scores: Sequence[ImageScore]) -> dict[str, float]:
        """The published values; NaN where there is nothing to average."""


@dataclass(frozen=True, kw_only=True)
class GRES(ImageProtocol):
    """The evaluator of ReLA for gRefCOCO.

    gIoU is the mean of the IoU over all expressions, cIoU the sum of intersections over the sum of unions. Without
    a target a rejecting model gets IoU 1, another 0 and adds its pixels to the unions. A target that is rejected
    gets IoU and intersection 0, and the union of the mask that was not used. Pr@X is the share, among expressions
    with a target, of an IoU of at least X. N-acc and T-acc are both 0 if every expression has a target.

    Attributes:
        by_mask: take an empty mask for the model's rejection, instead of `no_target`
    """

    percent: bool = True
    by_mask: bool = False

    def summarize(self, scores: Sequence[ImageScore]) -> dict[str, float]:
        if self.by_mask:
            scores = [replace(score, no_target=not score.prediction_area) for score in scores]
        targets = [score for score in scores if score.truth_area]
        without = [score for score in scores if not score.truth_area]
        kept = [0 if score.no_target else score.intersection for score in targets]
        ious = [both / score.union for both, score in zip(kept, targets, strict=True)]
        unions = sum(score.union for score in targets)
        unions += sum(score.union for score in without if not score.no_target)
        return {
            "gIoU": 100 * mean([*ious, *(float(score.no_target) for score in without)]),
            "cIoU": 100 * sum(kept) / unions if unions else float("nan"),
            **{f"Pr@{x}": 100 * mean(iou >= x for iou in ious) for x in THRESHOLDS},
            "N-acc": mean(score.no_target for score in without) if without else 0.0,
            "T-acc": mean(not score.no_target for score in targets) if without else 0.0,
        }


@dataclass(frozen=True, kw_only=True)
class RES(ImageProtocol):
    """RefCOCO, RefCOCO+, RefCOCOg: the expressions with a target, whatever the model says of them.

    mIoU, called gIoU too, is the mean IoU; oIoU, called cIoU too, the sum of intersections over the sum of unions;
    Pr@X the share of an IoU of at least X.
    """

    percent: bool = True

    def summarize(self, scores: Sequence[ImageScore]) -> dict[str, float]:
        targets = [replace(score, no_target=False) for score in scores if score.truth_area]
        values = GRES(name=self.name, description=self.description).summarize(targets)
        precisions = {f"Pr@{x}": values[f"Pr@{x}"] for x in THRESHOLDS}
        names = {"mIoU": values["gIoU"], "oIoU": values["cIoU"]}
        return names | {"gIoU": values["gIoU"], "cIoU": values["cIoU"]} | precisions


@dataclass(frozen=True, kw_only=True)
class MLLMSegRES(ImageProtocol):
    """MLLMSeg's test_mllmseg_res.py: its gIoU is a mean over images of the mean IoU of the image's expressions.

    Its small constants and its sums in float32 are kept. `REC@0.5` is the share of expressions with a box IoU above
    0.5, boxes without the + 1 of pixel indices.
    """

    percent: bool = False

    def summarize(self, scores: Sequence[ImageScore]) -> dict[str, float]:
        f32 = np.float32
        targets = [score for score in scores if score.truth_area]
        intersections = unions = ious = f32(0)
        images = 0
        for _, group in groupby(targets, key=lambda score: score.image):
            of_image = [*group]
            image_ious = f32(0)
            for score in of_image:
                image_ious += f32(score.intersection) / (f32(score.union) + f32(1e-5))
            ious += image_ious / f32(len(of_image))
            intersections += f32(sum(score.intersection for score in of_image))
            unions += f32(sum(score.union for score in of_image))
            images += 1
        return {
            "cIoU": float(intersections / (unions + f32(1e-10))) if targets else float("nan"),
            "gIoU": float(ious / f32(images + 1e-5)) if targets else float("nan"),
            "REC@0.5": mean(_box_iou(score.prediction_box, score.truth_box) > 0.5 for score in targets),
        }


@dataclass(frozen=True, kw_only=True)
class MLLMSegGRES(ImageProtocol):
    """MLLMSeg's test_mllmseg_gres.py: unlike `GRES`, a rejected target keeps the IoU of the mask not used.

    Its small constants and its sums in float32 are kept.
    """

    percent: bool = False

    def summarize(self, scores: Sequence[ImageScore]) -> dict[str, float]:
        f32 = np.float32
        intersections = unions = ious = f32(0)
        for score in scores:
            if score.truth_area:
                ious += f32(score.intersection) / (f32(score.union) + f32(1e-8))
                intersections += f32(score.intersection)
            elif score.no_target:
                ious += f32(1)
            if score.truth_area or not score.no_target:
                unions += f32(score.union)
        return {
            "cIoU": float(intersections / (unions + f32(1e-10))) if unions else float("nan"),
            "gIoU": float(ious / f32(len(scores) + 1e-5)) if scores else float("nan"),
            "N-acc": mean(score.no_target for score in scores if not score.truth_area),
            "T-acc": mean(not score.no_target for score in scores if score.truth_area),
        }


def _box_iou(a: Box | None, b: Box | None) -> float:
    """IoU of two boxes whose width is right - left; 0 if they share no area. A mask without pixels has none."""
    if a is None or b is None:
        return 0.0
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


GRES_BY_FLAG = GRES(
    name="gres",
    description="gRefCOCO, as the evaluator of ReLA; the model says by itself that there is no target.",
)
GRES_BY_MASK = GRES(
    name="gres-by-mask",
    description="gRefCOCO, as the evaluator of ReLA; an empty mask says that there is no target.",
    by_mask=True,
)
REFCOCO = RES(
    name="res",
    description="RefCOCO, RefCOCO+, RefCOCOg, as most papers: mIoU, oIoU and Pr@X over expressions.",
)
MLLMSEG_RES = MLLMSegRES(
    name="mllmseg-res",
    description="RefCOCO as MLLMSeg's program: cIoU over expressions, gIoU over images, boxes of the masks.",
)
MLLMSEG_GRES = MLLMSegGRES(
    name="mllmseg-gres",
    description="gRefCOCO as MLLMSeg's program: a rejected target keeps its IoU; not comparable with `gres`.",
)
IMAGE_PROTOCOLS: dict[str, ImageProtocol] = {
    protocol.name: protocol for protocol in (GRES_BY_FLAG, GRES_BY_MASK, REFCOCO, MLLMSEG_RES, MLLMSEG_GRES)
}
