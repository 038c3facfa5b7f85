"""Failures planted in a FiftyOne dataset are found and written; what cannot be judged is named."""

import logging

import fiftyone as fo
import pytest

import fiftyone_refvos as rv
from fiftyone_refvos import find_failures, show_failures
from fiftyone_refvos.demo import DemoConfig
from fiftyone_refvos.failures import FailureKind
from fiftyone_refvos.fields import (
    FieldError,
    add_expressions,
    read_expressions,
    to_detection,
    write_expression_attributes,
    write_masklets,
)
from fiftyone_refvos.masklet import encode
from fiftyone_refvos.segment import Progress
from tests.fields_data import masklet, video_sample
from tests.planted_failures import (
    CAT,
    DOG,
    PLANTED,
    SIZE,
    T,
    kinds_of,
    plant,
    stretches,
)


def test_every_planted_failure_is_found(dataset):
    assert {kind for _, _, kind, _ in PLANTED.values()} == {kind.value for kind in FailureKind}
    sample = plant(dataset)
    find_failures(dataset, "model")
    sample.reload()
    assert kinds_of(sample) == {text: kind for text, (_, _, kind, _) in PLANTED.items()}
    expected = [(kind, text, run) for text, (_, _, kind, runs) in PLANTED.items() for run in runs]
    assert stretches(sample) == sorted(expected)
    by_text = {each.expression: each for each in sample.model_failures.detections}
    ids = {each.text: each.id for each in read_expressions(sample)}
    assert all(by_text[text].expression_id == ids[text] for text in by_text)
    assert (by_text["switch"].switch_frame, by_text["bad switch"].switch_frame) == (8, 3)
    assert by_text["to the unnamed"].other_object_id == "77"
    assert by_text["lost"].severity == pytest.approx(0.4)
    assert by_text["lost"].switch_frame is by_text["lost"].other_object_id is None


def test_all_identity_switches_worst_first_is_one_line(dataset):
    mild = plant(dataset, "/videos/a.mp4", {text: PLANTED[text] for text in ("good", "to the unnamed", "missed")})
    none = plant(dataset, "/videos/b.mp4", {text: PLANTED[text] for text in ("good", "missed")})
    bad = plant(dataset, "/videos/c.mp4", {text: PLANTED[text] for text in ("switch", "bad switch", "late", "wrong")})
    view = find_failures(dataset, "model", kind="identity switch")
    assert view.values("id") == [bad.id, mild.id]
    assert view.values("expressions.detections.label") == [["switch", "bad switch"], ["to the unnamed"]]
    assert set(view.distinct("model_failures.detections.label")) == {"identity switch"}
    two = show_failures(dataset, "model", kind=["missed object", FailureKind.LATE_START])
    assert two.values("id") == [mild.id, none.id, bad.id]
    assert len(show_failures(dataset, "model")) == 3
    assert show_failures(dataset, "model", kind="none").values("expressions.detections.label") == [["good"], ["good"]]
    clips = view.to_clips("model_failures").sort_by("model_failures.severity", reverse=True)
    assert clips.values("support") == [[3, 5], [7, 10], [8, 10], [9, 10]]


def test_again_it_writes_the_same_and_declares_nothing_new(dataset):
    sample = plant(dataset)
    find_failures(dataset, "model", eval_key="run")
    sample.reload()
    before, schema = stretches(sample, "run"), dataset.get_field_schema(flat=True)
    find_failures(dataset, "model", eval_key="run")
    sample.reload()
    assert stretches(sample, "run") == before
    assert dataset.get_field_schema(flat=True).keys() == schema.keys()


def test_expressions_without_ground_truth_or_masklets_are_not_judged(dataset):
    sample = video_sample(dataset, num_frames=T, texts=["dog", "cat"])
    dog, cat = read_expressions(sample)
    for number in range(1, T + 1):
        detection = to_detection(encode(DOG)[0], SIZE, label="dog", object_id="5", expression_id=dog.id)
        sample.frames[number] = fo.Frame(ground_truth=fo.Detections(detections=[detection]))
    sample.save()
    dataset.add_dynamic_frame_fields()
    write_masklets(sample, "model", [masklet([DOG] * T, expression=each) for each in (dog, cat)])
    add_expressions(sample, "not segmented")
    find_failures(dataset, "model")
    sample.reload()
    assert kinds_of(sample) == {"dog": "none", "cat": None, "not segmented": None}
    write_expression_attributes(sample, {"no_target": {cat.id: True}})
    find_failures(dataset, "model")
    sample.reload()
    assert kinds_of(sample) == {"dog": "none", "cat": "false positive", "not segmented": None}


def test_an_object_that_two_expressions_name_is_no_other_object(dataset):
    sample = video_sample(dataset, num_frames=T, texts=["dog", "animals"])
    dog, animals = read_expressions(sample)
    named = [(DOG, "1", dog), (DOG, "1", animals), (CAT, "2", animals)]
    for number in range(1, T + 1):
        detections = [
            to_detection(encode(mask)[0], SIZE, label=each.text, object_id=id_, expression_id=each.id)
            for mask, id_, each in named
        ]
        sample.frames[number] = fo.Frame(ground_truth=fo.Detections(detections=detections))
    sample.save()
    dataset.add_dynamic_frame_fields()
    write_masklets(sample, "model", [masklet([CAT] * T, expression=dog), masklet([CAT] * T, expression=animals)])
    view = find_failures(dataset, "model")
    sample.reload()
    assert kinds_of(sample) == {"dog": "wrong object", "animals": "missed part"}
    assert [each.other_object_id for each in view.first().model_failures.detections] == ["2", None]


def test_an_evaluation_tells_the_fields(dataset):
    sample = plant(dataset, truth="truth")
    rv.evaluate(dataset, "model", gt_field="truth", eval_key="first")
    find_failures(dataset, "first")
    sample.reload()
    assert kinds_of(sample, "first") == {text: kind for text, (_, _, kind, _) in PLANTED.items()}
    costs = {each.label: 1 - each.first_J for each in sample.expressions.detections}
    severity = {each.expression: each.severity for each in sample.first_failures.detections}
    assert all(severity[text] == pytest.approx(costs[text]) for text in severity if text != "rough")
    dataset.delete_evaluation("first")
    assert not [path for path in dataset.get_field_schema(flat=True) if "first" in path]


def test_a_perfect_model_has_no_failures(dataset):
    demo = rv.demo.load(
        num_videos=2, config=DemoConfig(height=48, width=86, num_frames=8), name=f"{dataset.name}-demo"
    )
    try:
        demo.clone_frame_field("ground_truth", "perfect")
        assert len(find_failures(demo, "perfect")) == 0
        kinds = demo.count_values("expressions.detections.perfect_failure")
        assert kinds == {"none": demo.count("expressions.detections")}
    finally:
        demo.delete()


def test_bad_masks_are_named_or_skipped(dataset, caplog):
    bad = video_sample(dataset, "/videos/short.mp4", num_frames=T, texts=["dog"])
    dog = read_expressions(bad)[0]
    write_masklets(bad, "ground_truth", [masklet([DOG] * T, expression=dog)])
    write_masklets(bad, "model", [masklet([DOG] * 8, expression=dog)], complete=False)
    good = plant(dataset, planted={"late": PLANTED["late"]})
    with pytest.raises(FieldError, match=r"short\.mp4.*frame 9 is annotated in 'ground_truth', but not pred"):
        find_failures(dataset, "model")
    told: list[Progress] = []
    with caplog.at_level(logging.WARNING, logger="fiftyone_refvos"):
        view = find_failures(dataset, "model", skip_failures=True, progress=told.append)
    assert view.values("id") == [good.id]
    bad.reload()
    assert kinds_of(bad) == {"dog": None}
    assert "short.mp4" in caplog.text
    assert [each.fraction for each in told] == [0, 0.5, 1]


def test_misuse_is_explained(dataset):
    with pytest.raises(FieldError, match="holds no samples"):
        find_failures(dataset, "model")
    plant(dataset, planted={"late": PLANTED["late"]})
    with pytest.raises(ValueError, match="no kind of failure 'swich', only: none, false positive"):
        find_failures(dataset, "model", kind="swich")
    with pytest.raises(FieldError, match=r"'frames\.nothing' with masklets, but in: .*model"):
        find_failures(dataset, "nothing")
    with pytest.raises(FieldError, match=r"named without 'frames\.': 'model', not 'frames\.model'"):
        find_failures(dataset, "frames.model")
    assert not dataset.has_field("nothing_failures")
    dataset.add_sample_field("model_failures", fo.StringField)
    with pytest.raises(FieldError, match="'model_failures' does not hold TemporalDetections"):
        find_failures(dataset, "model")
    with pytest.raises(FieldError, match="there is no field 'other_failures'"):
        show_failures(dataset, "other")
