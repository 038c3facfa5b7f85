"""Selectors without weights of their own: recorded scores, a segmenter's confidence, and a question to a model."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from fiftyone_refvos.metrics.correlation import calibration, spearman, spread
from fiftyone_refvos.models.selector.percentage import PercentageSelector, marked_frame, read_mark
from fiftyone_refvos.models.selector.protocol import SelectionError, best_frame
from fiftyone_refvos.models.selector.simple import ConfidenceSelector, RecordedSelector
from fiftyone_refvos.video import FrameSource
from tests.small import CAT, DOG, glus_tiny, noise_video


class Parrot:
    """A video model that says what it was told, one answer after the other."""

    identity: ClassVar[dict[str, Any]] = {"name": "parrot"}

    def __init__(self, *answers: str) -> None:
        self.answers = answers
        self.asked: list[tuple[str, int]] = []

    def ask(self, frames: FrameSource, question: str, *, seed: int) -> str:
        self.asked.append((question, seed))
        return self.answers[seed % len(self.answers)]


def test_the_oracle_chooses_the_highest_known_value_and_the_earliest_of_equals() -> None:
    oracle = RecordedSelector({"0": (0.2, None, 0.9, 0.9), "1": (float("nan"), 0.1, 0.0, 0.0)}, name="IoU")
    video = noise_video(4)
    assert oracle.select(video, [DOG, CAT]) == {"0": 2, "1": 1}
    assert oracle.score(video, DOG).tolist() == [np.float32(0.2), -np.inf, np.float32(0.9), np.float32(0.9)]


def test_recorded_scores_of_another_length_unknown_and_without_values_are_refused() -> None:
    video = noise_video(3)
    with pytest.raises(SelectionError, match=r"expression '0' of a video in memory has IoU of 2 frames.*has 3"):
        RecordedSelector({"0": (0.2, 0.3)}, name="IoU").scores(video, [DOG])
    with pytest.raises(SelectionError, match="there is no IoU of expression '0'"):
        RecordedSelector({}, name="IoU").scores(video, [DOG])
    with pytest.raises(SelectionError, match=r"no IoU in any frame|no frame .* has a IoU"):
        RecordedSelector({"0": (None, None, None)}, name="IoU").scores(video, [DOG])


def test_the_confidence_of_a_segmenter_is_what_its_steps_say() -> None:
    segmenter, video = glus_tiny(), noise_video(3)
    steps = {(step.expression.id, step.frame): step for step in segmenter.steps(video, [DOG, CAT])}
    seg = ConfidenceSelector(segmenter, "seg").scores(video, [DOG, CAT])
    present = ConfidenceSelector(segmenter, "object").scores(video, [DOG, CAT])
    iou = ConfidenceSelector(segmenter).scores(video, [DOG, CAT])
    results = {(r.expression_id, r.frame): r for r in segmenter.segment(video, [DOG, CAT])}
    for (id_, frame), step in steps.items():
        probability = step.logits.softmax(-1)[segmenter.prompts.seg_id]
        assert seg[id_][frame] == pytest.approx(float(probability), abs=1e-6)
        expected = 0.0 if step.masks is None else float(step.masks.object_score[0].sigmoid())
        assert present[id_][frame] == pytest.approx(expected, abs=1e-6)
        shown = results[id_, frame]
        assert iou[id_][frame] == (pytest.approx(shown.scores[0], abs=1e-6) if shown.masks.any() else 0.0)


def test_measures_that_a_segmenter_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="measure is 'luck'; choose one of"):
        ConfidenceSelector(glus_tiny(), "luck")  # type: ignore[arg-type]
    other: Any = object()
    with pytest.raises(ValueError, match="object gives no 'seg'; choose 'iou'"):
        ConfidenceSelector(other, "seg")


def test_the_mean_of_the_answers_is_the_key_frame() -> None:
    model = Parrot("at 20%", "I would check the last 20% of it", "no idea")
    selector = PercentageSelector(model, answers=3)
    assert selector.select(noise_video(10), [DOG]) == {"0": 5}
    question, seed = model.asked[1]
    assert question.startswith("If I want to find 'the dog', which percentage mark of the video should I check?\n")
    assert [seed for _, seed in model.asked] == [0, 1, 2]
    assert seed == 1
    assert len(PercentageSelector(Parrot("")).scores(noise_video(1), [DOG])["0"]) == 1


@pytest.mark.parametrize(
    ("answer", "mark"),
    [
        ("50%", 0.5),
        ("100%", 1.0),
        ("0%", 0.0),
        ("The last 30 % of the video.", 0.7),
        ("between 10% and 90%", 0.1),
        ("110%", None),
        ("half", None),
    ],
)
def test_marks_are_read_as_published(answer: str, mark: float | None) -> None:
    assert read_mark(answer) == (None if mark is None else pytest.approx(mark))


def test_marks_lead_to_frames_of_the_video() -> None:
    assert [marked_frame([mark], 10) for mark in (0.0, 0.55, 1.0)] == [0, 5, 9]
    assert marked_frame([], 9) == 4
    assert marked_frame([1.0], 1) == 0


def test_of_one_to_three_frames_any_selector_gives_one_score_each() -> None:
    for count in (1, 2, 3):
        video = noise_video(count)
        for selector in (ConfidenceSelector(glus_tiny()), PercentageSelector(Parrot("90%"))):
            scores = selector.scores(video, [DOG])["0"]
            assert scores.shape == (count,)
            assert 0 <= best_frame(scores, DOG, video="v") < count


def test_rank_correlation() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 2, 2, 3], [1, 3, 2, 4]) == pytest.approx(0.9486833)  # equal values share their rank
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert np.isnan(spearman([1], [1]))
    with pytest.raises(ValueError, match="3 scores cannot be compared with 2 values"):
        spearman([1, 2, 3], [1, 2])
    assert spread([0.0, 0.5, 1.0]) == pytest.approx(0.8)


def test_the_calibration_curve_has_bins_of_equally_many_frames() -> None:
    curve = calibration([0.1, 0.2, 0.8, 0.9], [0.0, 0.2, 0.7, 0.9], bins=2)
    assert [each.count for each in curve] == [2, 2]
    assert [each.score for each in curve] == pytest.approx([0.15, 0.85])
    assert [each.truth for each in curve] == pytest.approx([0.1, 0.8])
    (only,) = calibration([0.5, 0.5, 0.5], [0.0, 0.5, 1.0])
    assert (only.count, only.truth) == (3, 0.5)
    assert calibration([], []) == []
