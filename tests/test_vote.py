"""Voting over fields of a dataset: what is written, what is refused, and what is shown first."""

from __future__ import annotations

import fiftyone as fo
import numpy as np
import pytest

import fiftyone_refvos as rv
from fiftyone_refvos import run_records
from fiftyone_refvos.fields import (
    FieldError,
    clear_field,
    finished_expressions,
    read_frame_list,
    read_masklets,
    write_masklets,
)
from fiftyone_refvos.masklet import Expression
from tests.fields_data import SIZE, masklet
from tests.voting import MASKS, MEMBERS, NOTHING, NUM_FRAMES, TEXTS, add_video, square, written


@pytest.fixture
def videos(dataset):
    """Two videos; in the second all agree."""
    add_video(dataset, "/videos/a.mp4")
    same = (square(2, 2), NOTHING)
    add_video(dataset, "/videos/b.mp4", dict.fromkeys(MEMBERS, same))
    return dataset


def expressions_of(sample: fo.Sample) -> list[fo.TemporalDetection]:
    sample.reload()
    return sample.expressions.detections


def test_the_outcome_is_written_as_a_model_writes_masklets(videos):
    report = rv.vote(videos, MEMBERS)
    assert (report.label_field, report.num_samples, report.num_expressions, report.failures) == ("voted", 2, 4, [])
    first, second = videos
    assert np.array_equal(written(first, "voted", 0), square(2, 2)[:, 0])  # two of three
    assert np.array_equal(written(first, "voted", 1), (square(8, 8) & square(8, 9))[:, 0])
    assert [each.voted_no_target for each in expressions_of(first)] == [False, False]
    assert [each.voted_no_target for each in expressions_of(second)] == [False, True]
    assert [each.voted_text for each in expressions_of(first)] == [*TEXTS]
    detection = first.frames[1].voted.detections[0]
    assert (detection.label, detection.expression_id, detection.object_id) == ("the dog", "0", "1")
    # of 16 pixels three of four columns have all votes, one has two of three
    assert detection.confidence == pytest.approx(0.75 + 0.25 * 2 / 3)
    assert second.frames[1].voted.detections[0].confidence == 1.0


def test_agreement_is_written_per_frame_and_expression(videos):
    rv.vote(videos, MEMBERS)
    first, second = videos
    dog = (16 + 12 + 12) / (16 + 20 + 20)  # both and either of the pairs one-two, one-three, two-three
    cat = 12 / (20 + 16 + 16)
    assert [each.voted_agreement for each in expressions_of(first)] == pytest.approx([dog, cat])
    assert [each.voted_agreement for each in expressions_of(second)] == [1.0, 1.0]
    assert read_frame_list(first, "voted", "agreements") == {
        "0": pytest.approx((dog,) * NUM_FRAMES),
        "1": pytest.approx((cat,) * NUM_FRAMES),
    }
    assert [each.agreement for each in first.frames[2].voted.detections] == pytest.approx([dog, cat])


def test_frames_without_a_mask_have_their_agreement_too(dataset):
    masks = {"one": [square(2, 2)], "two": [NOTHING], "three": [NOTHING]}
    sample = add_video(dataset, "/videos/a.mp4", masks)
    rv.vote(dataset, MEMBERS)
    assert dataset.count("frames.voted.detections") == 0
    assert expressions_of(sample)[0].voted_agreement == 0.0
    assert read_frame_list(sample, "voted", "agreements")["0"] == (0.0,) * NUM_FRAMES


def test_the_run_is_recorded_with_its_members(videos):
    run_records.register(videos, "two", {"name": "sa2va-4b", "num_frames": 20})
    rv.vote(videos, MEMBERS, rule="report", label_field="strict")
    record = videos.get_run_info("segment_strict").config.model
    assert (record["name"], record["rule"], record["members"]) == ("vote", "report", [*MEMBERS])
    assert record["made_by"] == {"one": None, "two": {"name": "sa2va-4b", "num_frames": 20}, "three": None}
    assert videos.load_run_results("segment_strict").num_expressions == 4
    # the literal rule wants all three
    assert np.array_equal(written(videos.first(), "strict", 0), (square(2, 2) & square(2, 3))[:, 0])


def test_a_second_call_does_only_what_is_missing(videos):
    rv.vote(videos, MEMBERS)
    report = rv.vote(videos, MEMBERS)
    assert (report.num_samples, report.num_skipped, report.num_expressions) == (0, 2, 0)
    sample = add_video(videos, "/videos/c.mp4")
    clear_field(videos.limit(1), "voted")
    assert videos.count("expressions.detections.voted_agreement") == 2  # it goes with the masks
    report = rv.vote(videos, MEMBERS)
    assert (report.num_samples, report.num_skipped, report.num_expressions) == (2, 1, 4)
    assert expressions_of(sample)[1].voted_agreement == pytest.approx(12 / 52)


def test_other_members_rules_and_makers_are_not_mixed(videos):
    rv.vote(videos, MEMBERS)
    with pytest.raises(rv.FieldExistsError, match="rule was 'majority' and is 'report'"):
        rv.vote(videos, MEMBERS, rule="report")
    with pytest.raises(rv.FieldExistsError, match="members was"):
        rv.vote(videos, MEMBERS[:2])
    run_records.register(videos, "two", {"name": "another"})
    with pytest.raises(rv.FieldExistsError, match="made_by was"):
        rv.vote(videos, MEMBERS)
    with pytest.raises(rv.FieldExistsError, match="not made by a segmentation run"):
        rv.vote(videos, MEMBERS[:2], label_field="three")
    assert rv.vote(videos, MEMBERS[:2], overwrite=True).num_expressions == 4
    # both of two
    assert np.array_equal(written(videos.first(), "voted", 1), (square(8, 8) & square(8, 9))[:, 0])


def test_weights_decide(videos):
    rv.vote(videos, MEMBERS, label_field="numbers", weights={"one": 1, "two": 1, "three": 2.5})
    first = videos.first()
    assert np.array_equal(written(first, "numbers", 0), square(2, 3)[:, 0])
    assert not written(first, "numbers", 1).any()
    rv.vote(videos, MEMBERS, label_field="ties", weights={"one": 1, "two": 1, "three": 2})
    assert np.array_equal(written(first, "ties", 0), (square(2, 2) & square(2, 3))[:, 0])


def test_the_members_own_scores_can_weigh(dataset):
    sample = add_video(dataset, "/videos/a.mp4", one=0.2, two=0.3, three=0.9)
    rv.vote(dataset, MEMBERS, weights="predicted_iou")
    assert np.array_equal(written(sample, "voted", 0), square(2, 3)[:, 0])  # 0.9 of 1.4
    # who sees nothing has no score, and votes with the mean of the others
    assert np.array_equal(written(sample, "voted", 1), (square(8, 8) & square(8, 9))[:, 0])
    silent = add_video(dataset, "/videos/b.mp4", dict.fromkeys(MEMBERS, (NOTHING, NOTHING)))
    assert rv.vote(dataset, MEMBERS, weights="predicted_iou").num_expressions == 2
    assert expressions_of(silent)[0].voted_no_target


def test_evaluations_can_weigh(dataset):
    sample = add_video(dataset, "/videos/a.mp4", {**MASKS, "truth": (square(2, 3), square(8, 9))})
    for field in MEMBERS:
        rv.evaluate(dataset, field, gt_field="truth", eval_key=f"{field}_eval")
    weights: dict[str, float | str] = {"one": "one_eval", "two": 0, "three": "three_eval"}
    rv.vote(dataset, MEMBERS, weights=weights)
    expected = {
        field: dataset.load_evaluation_results(f"{field}_eval").metrics()["J&F"] for field in ("one", "three")
    }
    record = dataset.get_run_info("segment_voted").config.model
    assert record["weights"] == pytest.approx({**expected, "two": 0.0})
    better = max(expected, key=lambda field: expected[field])
    assert np.array_equal(written(sample, "voted", 0), MASKS[better][0][:, 0])
    with pytest.raises(ValueError, match="evaluation 'one_eval' is of 'one', and cannot weigh 'three'"):
        rv.vote(dataset, MEMBERS, weights={**weights, "three": "one_eval"}, overwrite=True)
    with pytest.raises(ValueError, match="no evaluation 'nonsense' of masklets, which weighs 'three'"):
        rv.vote(dataset, MEMBERS, weights={**weights, "three": "nonsense"}, overwrite=True)
    rv.evaluate(dataset, "three", gt_field="truth", eval_key="davis", protocol="reasonvos")
    with pytest.raises(ValueError, match="different protocols"):
        rv.vote(dataset, MEMBERS, weights={**weights, "three": "davis"}, overwrite=True)


def test_the_most_disputed_expressions_come_first(videos):
    rv.vote(videos, MEMBERS)
    view = rv.most_disputed(videos, "voted")
    assert view.values("expressions.label") == ["the cat", "the dog", "the dog", "the cat"]
    assert view.values("filepath")[:2] == ["/videos/a.mp4"] * 2
    assert view.values("expressions.voted_agreement") == pytest.approx([12 / 52, 40 / 56, 1, 1])
    # a cell shows the masks of its expression alone
    for field in ("voted", *MEMBERS):
        assert {*view.limit(1).distinct(f"frames.{field}.detections.label")} <= {"the cat"}
    assert len(view.limit(1).first().frames) == NUM_FRAMES
    assert rv.most_disputed(videos, "voted", limit=1).values("expressions.label") == ["the cat"]
    videos.save_view("disputed", view)
    assert videos.load_saved_view("disputed").values("expressions.label") == view.values("expressions.label")
    with pytest.raises(FieldError, match="no vote made 'one'"):
        rv.most_disputed(videos, "one")
    with pytest.raises(FieldError, match="there are clips"):
        rv.most_disputed(view, "voted")


def test_expressions_that_nobody_looked_for_are_passed_over(dataset):
    sample = add_video(dataset, "/videos/a.mp4", {name: masks[:1] for name, masks in MASKS.items()})
    report = rv.vote(dataset, MEMBERS)
    assert (report.num_expressions, report.failures) == (1, [])
    assert [each.expression.id for each in read_masklets(sample, "voted")] == ["0"]
    assert len(rv.most_disputed(dataset, "voted")) == 1
    report = rv.vote(dataset, MEMBERS)
    assert (report.num_samples, report.num_skipped, report.num_expressions, report.failures) == (0, 1, 0, [])


def test_a_video_in_which_nobody_looked_for_anything_fails(dataset):
    add_video(dataset, "/videos/a.mp4")
    lonely = add_video(dataset, "/videos/b.mp4", dict.fromkeys(MEMBERS, ()))
    for _ in range(2):
        (failure,) = rv.vote(dataset, MEMBERS).failures
        assert failure.sample_id == lonely.id
        assert failure.error.endswith("none of one, two, three has masklets of its expressions: segment it first")


def add_member(sample: fo.Sample, field: str, masks: np.ndarray, text: str = TEXTS[1]) -> None:
    write_masklets(sample, field, [masklet(masks, expression=Expression("1", text))])


def lacks_an_expression(sample: fo.Sample) -> str:
    for name in ("one", "two"):
        add_member(sample, name, square(8, 8))
    return "'three' has no masklet of expression '1' \\('the cat'\\), 'one' has"


def has_an_old_text(sample: fo.Sample) -> str:
    for name in MEMBERS:
        add_member(sample, name, square(8, 8))
    sample.expressions.detections[1].label = "the small cat"
    sample.save()
    return "expression '1' is 'the small cat' now, but 'one' was made for 'the cat'"


def lacks_a_frame(sample: fo.Sample) -> str:
    for name in MEMBERS:
        add_member(sample, name, square(8, 8))
    sample.frames[3]["two"] = None
    sample.save()
    return r"expression '0': 'one' covers 3 frames, 'two' 2; only one of them covers frame 2 \(from 0\)"


def has_another_size(sample: fo.Sample) -> str:
    for name in MEMBERS:
        add_member(sample, name, square(8, 8))
    detection = sample.frames[2].three.detections[0]
    detection.mask = detection.mask[::2, ::2]
    sample.save()
    return "frame 2 of 'three' has a mask of 2x2 pixels in a box of 4x4"


@pytest.mark.parametrize("spoil", [lacks_an_expression, has_an_old_text, lacks_a_frame, has_another_size])
def test_members_that_do_not_fit_fail_their_video_alone(videos, spoil):
    sample = add_video(videos, "/videos/c.mp4", {name: masks[:1] for name, masks in MASKS.items()})
    message = spoil(sample)
    report = rv.vote(videos, MEMBERS)
    assert (report.num_samples, report.num_expressions) == (2, 4)
    (failure,) = report.failures
    assert failure.sample_id == sample.id
    with pytest.raises(FieldError, match=rf"sample {sample.id} \(/videos/c.mp4\).*{message}"):
        raise FieldError(failure.error)
    assert videos.select(sample.id).count("frames.voted.detections") == 0
    assert videos.load_run_results("segment_voted").failures[0]["error"] == failure.error


def test_masks_of_another_size_without_a_stored_one(dataset):
    """Where nothing tells the size of the frames, masks do, and those of two programs may differ."""
    sample = add_video(dataset, "/videos/a.mp4", {"one": [square(2, 2)]})
    sample.metadata = fo.VideoMetadata(total_frame_count=NUM_FRAMES)
    sample.save()
    write_masklets(
        sample, "two", [masklet(np.ones((NUM_FRAMES, 1, SIZE[0], 60), bool), expression=Expression("0", TEXTS[0]))]
    )
    report = rv.vote(dataset, ["one", "two"])
    assert "'one' are 20 x 30, those of 'two' 20 x 60 (height x width)" in report.failures[0].error


def test_overwriting_keeps_the_masks_of_a_video_that_fails_but_as_unfinished(videos):
    rv.vote(videos, MEMBERS)
    sample = videos.first()
    before = masks_in_database(sample)
    lost = sample.frames[3].two
    sample.frames[3]["two"] = None
    sample.save()
    report = rv.vote(videos, MEMBERS, overwrite=True)
    assert (report.num_samples, len(report.failures)) == (1, 1)
    assert len(before) == 2 * NUM_FRAMES
    assert all(np.array_equal(*pair) for pair in zip(before, masks_in_database(sample), strict=True))
    assert finished_expressions(sample, "voted") == set()
    assert [each.voted_agreement for each in expressions_of(sample)] == [None, None]
    sample.frames[3]["two"] = lost
    sample.save()
    report = rv.vote(videos, MEMBERS)
    assert (report.num_samples, report.num_skipped, report.num_expressions, report.failures) == (1, 1, 2, [])


def masks_in_database(sample: fo.Sample) -> list[np.ndarray]:
    """All that the field `voted` holds of a sample, whatever its expressions say."""
    sample.reload()
    return [each.mask for frame in sample.frames.values() for each in frame.voted.detections]


@pytest.mark.parametrize(
    ("fields", "options", "error", "message"),
    [
        (["one"], {}, ValueError, "two or more different fields"),
        ("one", {}, ValueError, "two or more different fields"),
        (["one", "one"], {}, ValueError, "two or more different fields"),
        (["one", "four"], {}, FieldError, "no field 'frames.four' with masklets, but in: one, two, three"),
        (MEMBERS, {"label_field": "two"}, ValueError, "'two' votes, and cannot hold the outcome"),
        (MEMBERS, {"label_field": "my field"}, FieldError, "cannot be a label field"),
        (MEMBERS, {"rule": "mean"}, ValueError, "no rule 'mean'"),
        (MEMBERS, {"rule": "report", "weights": "predicted_iou"}, ValueError, "knows no weights"),
        (MEMBERS, {"weights": "confidence"}, ValueError, "'predicted_iou', or numbers or evaluations"),
        (MEMBERS, {"weights": {"one": 1}}, ValueError, "one weight per member"),
        (MEMBERS, {"weights": {"one": 1, "two": -1, "three": 1}}, ValueError, "not below 0"),
        (MEMBERS, {"expressions_field": "nothing"}, FieldError, "no field 'nothing'"),
    ],
)
def test_what_cannot_be_voted_on_is_refused_before_anything_is_written(videos, fields, options, error, message):
    with pytest.raises(error, match=message):
        rv.vote(videos, fields, **options)
    assert not videos.has_frame_field("voted")
    assert videos.list_runs() == []


def test_images_and_clips_are_refused(videos, dataset):
    with pytest.raises(FieldError, match="whole videos are voted on"):
        rv.vote(videos.to_clips("expressions"), MEMBERS)
    images = fo.Dataset()
    images.add_sample(fo.Sample("/images/a.png"))
    with pytest.raises(FieldError, match="image samples"):
        rv.vote(images, MEMBERS)
    images.delete()


def test_progress_rises_to_one_and_its_error_ends_the_run(videos):
    told = []
    rv.vote(videos, MEMBERS, progress=lambda each: told.append((each.video, each.num_videos, each.fraction)))
    assert told == [(1, 2, 0.5), (2, 2, 1.0)]

    def stop(progress: object) -> None:
        raise KeyError("stop")

    with pytest.raises(KeyError, match="stop"):
        rv.vote(videos, MEMBERS, overwrite=True, progress=stop)
    assert rv.vote(videos, MEMBERS).num_samples == 1  # the other one was written before
