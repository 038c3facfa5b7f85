"""How good a selector is on a view: its scores against the true IoU of a model's masks, expression by expression."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import fiftyone as fo
    from matplotlib.figure import Figure

    from fiftyone_refvos.metrics.correlation import CalibrationBin

SPREAD = 0.2  # of the true IoU, from the 10th to the 90th percentile, below which there is hardly an order to find


@dataclass(frozen=True)
class ExpressionQuality:
    """One expression of a video.

    Attributes:
        sample_id, video, expression_id, text: which
        frames: numbers of the frames that have both, from 1
        scores: of the selector in these frames
        ious: true IoU of the masks in these frames
        spearman: rank correlation of the two; NaN where one side does not vary
        spread: of the true IoU, its 90th minus its 10th percentile
        chosen: true IoU in the frame with the highest score
        best: the highest true IoU
    """

    sample_id: str
    video: str
    expression_id: str
    text: str
    frames: tuple[int, ...]
    scores: tuple[float, ...]
    ious: tuple[float, ...]
    spearman: float
    spread: float
    chosen: float
    best: float

    @classmethod
    def of(
        cls, names: tuple[str, str, str, str], frames: Sequence[int], scores: Sequence[float], ious: Sequence[float]
    ) -> ExpressionQuality:
        """Compares scores with true IoU; `names` are sample, video, expression and its text."""
        from fiftyone_refvos.metrics.correlation import spearman, spread

        chosen = max(range(len(scores)), key=lambda n: (scores[n], -n))
        known = tuple(frames), tuple(scores), tuple(ious)
        return cls(*names, *known, spearman(scores, ious), spread(ious), ious[chosen], max(ious))

    def figure(self) -> Figure:
        """Score and true IoU over the frames, each on an axis of its own: scores have no bounds."""
        figure = _figure()
        left = figure.subplots()
        left.plot(self.frames, self.scores, color="C0")
        left.set(xlabel="frame", ylabel="score", title=f"{self.text!r}: rank correlation {self.spearman:.2f}")
        left.yaxis.label.set_color("C0")
        right = left.twinx()
        right.plot(self.frames, self.ious, color="C1")
        right.set(ylabel="true IoU", ylim=(-0.02, 1.02))
        right.yaxis.label.set_color("C1")
        return figure


@dataclass(frozen=True)
class SelectorQuality:
    """A selector on a view.

    Attributes:
        field: what the key frames are named after
        masklets_field: whose true IoU they are compared with
        expressions: all that have both
    """

    field: str
    masklets_field: str
    expressions: tuple[ExpressionQuality, ...]

    @property
    def spearman(self) -> float:
        """Mean rank correlation of the expressions whose true IoU spreads by at least 0.2; NaN without any."""
        return fmean(self.correlations) if self.ranked else math.nan

    @property
    def correlations(self) -> tuple[float, ...]:
        """Rank correlation of each of `ranked`; one whose scores are all alike counts as 0."""
        return tuple(0.0 if math.isnan(each.spearman) else each.spearman for each in self.ranked)

    @property
    def ranked(self) -> tuple[ExpressionQuality, ...]:
        """The expressions with an order to find."""
        return tuple(each for each in self.expressions if each.spread >= SPREAD)

    @property
    def num_videos(self) -> int:
        """Videos with an expression that has an order to find."""
        return len({each.sample_id for each in self.ranked})

    @cached_property
    def calibration(self) -> list[CalibrationBin]:
        """Mean true IoU over mean score, in ten bins of equally many frames of all expressions."""
        from fiftyone_refvos.metrics.correlation import calibration

        return calibration(
            [score for each in self.expressions for score in each.scores],
            [iou for each in self.expressions for iou in each.ious],
        )

    def figure(self) -> Figure:
        """The calibration curve, with the number of frames of each bin."""
        figure = _figure()
        axes = figure.subplots()
        curve = self.calibration
        axes.plot([each.score for each in curve], [each.truth for each in curve], marker="o", label=self.field)
        low, high = min(each.score for each in curve), max(each.score for each in curve)
        axes.plot([low, high], [low, high], color="grey", linestyle="--", label="score = IoU")
        axes.set(xlabel="mean score", ylabel=f"mean true IoU of {self.masklets_field!r}", ylim=(-0.02, 1.02))
        axes.legend()
        return figure

    def save_plots(self, folder: Path | str) -> list[Path]:
        """Writes `calibration.png`, and `<video>_<expression id>.png` of every expression; replaces older ones."""
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        figures = {"calibration": self.figure()}
        figures |= {
            f"{each.video}_{each.expression_id}".replace("/", "_"): each.figure() for each in self.expressions
        }
        paths = []
        for name, figure in figures.items():
            paths.append(root / f"{name}.png")
            figure.savefig(paths[-1], dpi=100)
        return paths

    def __str__(self) -> str:
        chosen, best, mean = (
            fmean(values) if (values := [value(each) for each in self.expressions]) else math.nan
            for value in (lambda each: each.chosen, lambda each: each.best, lambda each: fmean(each.ious))
        )
        return (
            f"{self.field!r} against the true IoU of {self.masklets_field!r}, {len(self.expressions)} expressions\n"
            f"  rank correlation {self.spearman:.3f}, over {len(self.ranked)} expressions of {self.num_videos} "
            f"videos whose IoU spreads by {SPREAD} or more\n"
            f"  mean IoU: {mean:.3f} of all frames, {chosen:.3f} of the chosen ones, {best:.3f} of the best"
        )


def key_frame_quality(
    samples: fo.Dataset | fo.DatasetView,
    field: str,
    masklets_field: str,
    *,
    expressions_field: str = "expressions",
) -> SelectorQuality:
    """Compares the scores of a selector with the pseudo-labels of a model's masklets.

    Args:
        samples: a video dataset, or a view
        field: what the key frames are named after, as `select_key_frames` was told
        masklets_field: the field of masklets that `make_pseudo_labels` has compared with the truth
        expressions_field: the sample field with the expressions

    Raises:
        FieldError: if no expression of the samples has both, or one has them for another number of frames
    """
    from fiftyone_refvos import fields
    from fiftyone_refvos.fields.scores import media_name

    found = []
    where = {"expressions_field": expressions_field}
    for sample_id in samples.values("id"):
        sample = samples[sample_id]
        scores = fields.read_frame_list(sample, field, "key_frame_scores", **where)
        ious = fields.read_frame_list(sample, masklets_field, "ious", **where)
        for expression in fields.read_expressions(sample, expressions_field):
            names = (sample_id, media_name(sample), expression.id, expression.text)
            what = f"expression {expression.id!r} of {names[1]}"
            pairs = _pairs(scores.get(expression.id, ()), ious.get(expression.id, ()), what)
            if pairs:
                found.append(ExpressionQuality.of(names, tuple(pairs), *zip(*pairs.values(), strict=True)))
    if not found:
        raise fields.FieldError(
            f"no expression has both scores in '{field}_key_frame_scores' and true IoU in '{masklets_field}_ious': "
            "call select_key_frames and make_pseudo_labels before"
        )
    return SelectorQuality(field, masklets_field, tuple(found))


def _pairs(scores: Sequence[float | None], ious: Sequence[float | None], what: str) -> dict[int, tuple[float, float]]:
    """Score and IoU by number of the frame, where there are both; nothing where one of the lists is missing."""
    from fiftyone_refvos.fields import FieldError

    if not scores or not ious:
        return {}
    if len(scores) != len(ious):
        raise FieldError(
            f"{what} has scores of {len(scores)} frames and true IoU of {len(ious)}: select key frames and make "
            "pseudo-labels again"
        )
    both = enumerate(zip(scores, ious, strict=True), start=1)
    return {number: (score, iou) for number, (score, iou) in both if score is not None and iou is not None}


def _figure() -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(7, 4), layout="constrained")
