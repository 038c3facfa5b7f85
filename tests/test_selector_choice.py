"""Choosing one frame by its score: ties, scores that are none, and the middle frame."""

from __future__ import annotations

import numpy as np
import pytest

from fiftyone_refvos.models.selector.protocol import MiddleFrameSelector, SelectionError, best_frame
from tests.small import CAT, DOG, noise_video
from tests.small_selector import NoFrames


def test_the_highest_score_wins_and_of_equal_ones_the_earliest() -> None:
    assert best_frame(np.array([-3.0, -1.0, -2.0]), DOG, video="v") == 1
    assert best_frame(np.array([0.1, 0.7, 0.7, 0.2, 0.7]), DOG, video="v") == 1
    assert best_frame(np.array([-np.inf, np.inf]), DOG, video="v") == 1


def test_nan_scores_name_the_expression_and_the_first_frame() -> None:
    with pytest.raises(SelectionError) as error:
        best_frame(np.array([0.1, np.nan, 0.2, np.nan]), CAT, video="clip.mp4")
    assert "2 of 4 scores of expression '1' ('the large white cat that jumps') of clip.mp4" in str(error.value)
    assert "first that of frame 1" in str(error.value)
    assert "dtype='float32'" in str(error.value)


def test_no_scores_are_an_error() -> None:
    with pytest.raises(SelectionError, match="of clip.mp4 has no scores"):
        best_frame(np.array([]), DOG, video="clip.mp4")


@pytest.mark.parametrize(("num_frames", "middle"), [(1, 0), (2, 0), (3, 1), (4, 1), (7, 3)])
def test_middle_frame_is_chosen_and_of_two_the_earlier(num_frames: int, middle: int) -> None:
    selector, video = MiddleFrameSelector(), noise_video(num_frames)
    assert selector.select(video, [DOG, CAT]) == {DOG.id: middle, CAT.id: middle}
    assert selector.score(video, DOG).shape == (num_frames,)
    assert video.reads == []


def test_middle_of_an_empty_video_is_an_error() -> None:
    with pytest.raises(ValueError, match="an empty video has no frames"):
        MiddleFrameSelector().select(NoFrames(), [DOG])
