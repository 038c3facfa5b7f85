"""Of views and clips only what they show is judged, and only failures of that are shown."""

import pytest
from fiftyone import ViewField as F

import fiftyone_refvos as rv
from fiftyone_refvos import find_failures, show_failures
from tests.planted_failures import (
    CAT,
    PLANTED,
    T,
    kinds_of,
    plant,
    stretches,
)


def test_of_a_view_only_the_shown_expressions_are_judged(dataset):
    sample, other = plant(dataset), plant(dataset, "/videos/b.mp4")
    view = dataset.select(sample.id).filter_labels("expressions", F("label").is_in(["late", "wrong"]))
    shown = find_failures(view, "model")
    assert shown.values("expressions.detections.label") == [["wrong", "late"]]
    sample.reload()
    other.reload()
    assert {text: kind for text, kind in kinds_of(sample).items() if kind} == {
        "late": "late start",
        "wrong": "wrong object",
    }
    assert other.model_failures is None
    find_failures(dataset.filter_labels("expressions", F("label") == "lost"), "model")
    sample.reload()
    assert [text for _, text, _ in stretches(sample)] == ["lost", "late", "wrong"]


def test_clips_of_one_video_are_one_video(dataset):
    planted = {text: PLANTED[text] for text in ("good", "lost", "late", "switch")}
    sample = plant(dataset, planted=planted | {"the cat": ([CAT] * T, [CAT] * T)})
    find_failures(dataset.to_clips([[(1, 4), (3, 8)]]), "model")  # frames 9 and 10 are not judged
    sample.reload()
    assert stretches(sample) == [
        ("identity switch", "switch", [8, 8]),
        ("late loss", "lost", [7, 8]),
        ("late start", "late", [1, 3]),
    ]
    severity = {each.expression: each.severity for each in sample.model_failures.detections}
    assert severity["lost"] == pytest.approx(2 / 8)  # not 2 / 10, and frames 3 and 4 count once
    results = rv.evaluate(dataset.to_clips([[(1, 4), (3, 8)]]), "model", eval_key="run")
    assert {row["num_frames"] for row in results.expressions} == {8}


def test_of_clips_only_the_shown_expressions_are_judged_and_returned(dataset):
    sample = plant(dataset, planted={text: PLANTED[text] for text in ("good", "lost", "late", "switch")})
    plant(dataset, "/videos/b.mp4", {"missed": PLANTED["missed"]})
    clips = dataset.select(sample.id).filter_labels("expressions", F("label").is_in(["lost", "good"]))
    view = find_failures(clips.to_clips("expressions"), "model")
    sample.reload()
    assert kinds_of(sample) == {"good": "none", "lost": "late loss", "late": None, "switch": None}
    find_failures(dataset, "model")
    again = show_failures(clips.to_clips("expressions"), "model")
    for shown in (view, again):
        assert shown.values("id") == [sample.id]
        assert shown.values("expressions.detections.label") == [["lost"]]
        assert shown.values("model_failures.detections.expression") == [["lost"]]
        assert shown.count("frames.model.detections") > 0
    late = find_failures(dataset.match_frames(F("frame_number") > 3), "model", kind="late start")
    assert len(late) == 0  # the frames before are not shown


def test_a_view_shows_no_failures_of_other_expressions(dataset):
    plant(dataset, planted={text: PLANTED[text] for text in ("good", "lost", "late")})
    find_failures(dataset, "model")
    view = show_failures(dataset.filter_labels("expressions", F("label") == "late"), "model")
    assert view.values("model_failures.detections.expression") == [["late"]]
    assert show_failures(dataset, "model", kind="none").values("model_failures.detections.label") == [[]]
