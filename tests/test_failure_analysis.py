"""Failures planted in a FiftyOne dataset are found, written and shown; two evaluations are compared."""

import logging

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F

import fiftyone_refvos as rv
from fiftyone_refvos import compare, find_failures, show_failures
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

SIZE, T = (100, 160), 10
NOTHING = np.zeros((1, *SIZE), dtype=bool)


def box(left, top, side=16):
    mask = NOTHING.copy()
    mask[0, top : top + side, left : left + side] = True
    return mask


DOG, CAT, BIRD, ASTRAY, UNNAMED = (box(left, 10) for left in (4, 30, 56, 82, 108))
ROUGH, SMOOTH = box(0, 30, 60), box(0, 30, 54)  # boundaries further apart than the 2 pixels allowed

# text: true masks, predicted masks, kind, supports of the stretches
PLANTED = {
    "good": ([DOG] * T, [DOG] * T, "none", []),
    "no such thing": ([NOTHING] * T, [NOTHING] * 5 + [ASTRAY] * 5, "false positive", [[6, 10]]),
    "missed": ([DOG] * T, [NOTHING] * T, "missed object", [[1, 10]]),
    "wrong": ([DOG] * T, [CAT] * T, "wrong object", [[1, 10]]),
    "switch": ([DOG] * T, [DOG] * 7 + [CAT] * 3, "identity switch", [[8, 10]]),
    "bad switch": ([CAT] * T, [CAT] * 2 + [DOG] * 3 + [CAT] + [DOG] * 4, "identity switch", [[3, 5], [7, 10]]),
    "to the unnamed": ([CAT] * T, [CAT] * 8 + [UNNAMED] * 2, "identity switch", [[9, 10]]),
    "late": ([DOG] * T, [NOTHING] * 3 + [DOG] * 7, "late start", [[1, 3]]),
    "lost": ([DOG] * T, [DOG] * 6 + [NOTHING] * 4, "late loss", [[7, 10]]),
    "drifting": ([DOG] * T, [DOG] * 6 + [ASTRAY] * 4, "drift", [[7, 10]]),
    "interrupted": ([DOG] * T, [DOG] * 6 + [NOTHING] * 2 + [DOG] * 2, "temporary loss", [[7, 8]]),
    "both": ([np.concatenate([DOG, BIRD])] * T, [BIRD] * T, "missed part", [[1, 10]]),
    "too much": ([DOG] * T, [DOG | CAT | BIRD] * T, "over-segmentation", [[1, 10]]),
    "too little": ([DOG] * T, [box(8, 14, 8)] * T, "under-segmentation", [[1, 10]]),
    "beside": ([DOG] * T, [box(12, 10)] * T, "low overlap", [[1, 10]]),
    "rough": ([SMOOTH] * T, [ROUGH] * T, "boundary only", [[1, 10]]),
}


def sized_video(dataset, path, texts):
    """A video whose metadata tell the size, which no mask does where all are empty."""
    sample = video_sample(dataset, path, num_frames=T, texts=texts)
    metadata = fo.VideoMetadata(total_frame_count=T, frame_height=SIZE[0], frame_width=SIZE[1])
    dataset.set_values("metadata", {sample.id: metadata}, key_field="id")
    return dataset[sample.id]


def plant(dataset, path="/videos/a.mp4", planted=PLANTED, truth="ground_truth"):
    """A video with all failures, and with an object that no expression names."""
    sample = sized_video(dataset, path, list(planted))
    expressions = read_expressions(sample)
    for field, position in ((truth, 0), ("model", 1)):
        found = [masklet(planted[each.text][position], expression=each) for each in expressions]
        write_masklets(sample, field, found)
    sample = dataset[sample.id]
    for number in sample.frames:
        detection = to_detection(encode(UNNAMED)[0], SIZE, label="pole", object_id="77", index=77)
        sample.frames[number][truth].detections.append(detection)
    sample.save()
    return sample


def kinds_of(sample, key="model"):
    return {each.label: getattr(each, f"{key}_failure", None) for each in sample.expressions.detections}


def stretches(sample, key="model"):
    """Kind, expression and support of all that is written, sorted."""
    detections = sample[f"{key}_failures"].detections
    return sorted((each.label, each.expression, each.support) for each in detections)


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


@pytest.mark.parametrize(
    ("known", "kind"),
    [
        ({}, None),
        ({"no_target": False}, None),
        ({"object_ids": ["5"]}, None),
        ({"no_target": True}, "false positive"),
        ({"object_ids": []}, "false positive"),
        ({"kind": "refexp"}, "false positive"),
    ],
)
def test_typed_expressions_without_true_masks_are_judged_as_they_are_evaluated(dataset, known, kind):
    sample = sized_video(dataset, "/videos/a.mp4", ["typed"])
    (typed,) = read_expressions(sample)
    for number in range(1, T + 1):
        sample.frames[number] = fo.Frame(ground_truth=fo.Detections())
    sample.save()
    write_masklets(sample, "model", [masklet([DOG] * T, expression=typed)])
    for name, value in known.items():
        sample.expressions.detections[0][name] = value
    sample.save()
    dataset.add_dynamic_sample_fields()
    find_failures(dataset, "model")
    sample.reload()
    assert kinds_of(sample) == {"typed": kind}
    if kind is None:
        with pytest.raises(ValueError, match="nothing to evaluate"):
            rv.evaluate(dataset, "model", eval_key="run")
        assert rv.make_pseudo_labels(dataset, "model").labels == []
    else:
        results = rv.evaluate(dataset, "model", eval_key="run")
        assert (results.expressions[0]["has_target"], results.metrics()["N-acc"]) == (False, 0)


LEFT_OUT = {
    # text: true masks, predicted masks, void pixels, kind without them, kind with them
    "false positive": ([NOTHING], [ASTRAY], ASTRAY, "false positive", "none"),
    "too much": ([DOG], [DOG | CAT | BIRD], CAT | BIRD, "over-segmentation", "none"),
    "too little": ([DOG], [box(8, 14, 8)], DOG & ~box(8, 14, 8), "under-segmentation", "none"),
    "part in void": ([DOG], [NOTHING], DOG, "missed object", "none"),
    "other in void": ([DOG], [CAT], CAT, "wrong object", "missed object"),
    "rough": ([SMOOTH], [ROUGH], box(0, 30, 64) & ~SMOOTH, "boundary only", "none"),
    "cut": ([SMOOTH], [ROUGH], box(0, 30, 30), "boundary only", "none"),  # gives both masks a common boundary
    "void elsewhere": ([SMOOTH], [ROUGH], ASTRAY, "boundary only", "boundary only"),
}


@pytest.mark.parametrize(("truth", "predicted", "void", "without", "kind"), LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_errors_inside_void_pixels_do_not_count(dataset, truth, predicted, void, without, kind):
    planted = {"it": (truth * T, predicted * T), "the cat": ([CAT] * T, [CAT] * T)}
    sample = plant(dataset, planted=planted)
    find_failures(dataset, "model")
    sample.reload()
    assert kinds_of(sample)["it"] == without
    for frame in sample.frames.values():
        frame["void"] = fo.Detections(detections=[to_detection(encode(void)[0], SIZE, label="void")])
    sample.save()
    find_failures(dataset, "model")
    sample.reload()
    assert kinds_of(sample)["it"] == kind


def test_void_pixels_count_only_in_their_frames(dataset):
    sample = plant(dataset, planted={"never": ([NOTHING] * T, [ASTRAY] * T)})
    for number in (1, 2, 3):
        void = to_detection(encode(ASTRAY)[0], SIZE, label="void")
        sample.frames[number]["void"] = fo.Detections(detections=[void])
    sample.save()
    find_failures(dataset, "model")
    sample.reload()
    assert stretches(sample) == [("false positive", "never", [4, 10])]
    assert sample.model_failures.detections[0].severity == pytest.approx(0.7)


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
    assert not dataset.has_field("nothing_failures")
    dataset.add_sample_field("model_failures", fo.StringField)
    with pytest.raises(FieldError, match="'model_failures' does not hold TemporalDetections"):
        find_failures(dataset, "model")
    with pytest.raises(FieldError, match="there is no field 'other_failures'"):
        show_failures(dataset, "other")


# --- comparison ---


def scored(dataset, path, a, b):
    sample = video_sample(dataset, path, texts=[f"text {i}" for i in range(len(a[1]))])
    ids = [each.id for each in read_expressions(sample)]
    scores = {key: {id_: v for id_, v in zip(ids, values, strict=True) if v is not None} for key, values in (a, b)}
    write_expression_attributes(sample, scores)
    return sample


@pytest.fixture
def compared(dataset):
    first = scored(dataset, "/videos/a.mp4", ("old_JF", [0.5, 0.9, 0.4, None]), ("new_JF", [0.5, 0.8, 0.9, 0.1]))
    second = scored(dataset, "/videos/b.mp4", ("old_JF", [0.9, 0.2]), ("new_JF", [0.1, 0.1]))
    dataset.add_dynamic_sample_fields()
    return dataset, first, second


def test_wins_and_losses_of_two_evaluations(compared):
    dataset, _, second = compared
    comparison = compare(dataset, "old", "new")
    assert [round(each.delta, 6) for each in comparison.deltas] == [-0.8, -0.1, -0.1, 0, 0.5]
    assert (len(comparison.wins), len(comparison.losses), comparison.num_ties) == (1, 3, 1)
    assert comparison.num_unpaired == 1
    assert comparison.mean_delta == pytest.approx(-0.1)
    worst = comparison.losses[0]
    assert (worst.sample_id, worst.expression_id, worst.text) == (second.id, "0", "text 0")
    assert "1 wins, 3 losses, 1 ties, mean -0.1000" in str(comparison)
    assert f"-0.8000  0.9000 -> 0.1000  sample {second.id}, expression 0: text 0" in str(comparison)
    assert len(compare(dataset, "old", "new", tolerance=0.2).losses) == 1


def test_the_largest_regressions_as_a_view(compared):
    dataset, first, second = compared
    comparison = compare(dataset, "old", "new")
    view = comparison.regressions()
    assert view.values("id") == [second.id, first.id]
    assert view.values("expressions.detections.label") == [["text 0", "text 1"], ["text 1"]]
    assert comparison.regressions(1).values("expressions.detections.label") == [["text 0"]]
    assert comparison.improvements().values("expressions.detections.label") == [["text 2"]]
    assert len(compare(dataset, "old", "old").regressions()) == 0


def test_of_a_view_only_the_shown_expressions_are_compared(compared):
    dataset, _, second = compared
    view = dataset.filter_labels("expressions", F("label") == "text 1")
    assert [each.text for each in compare(view, "old", "new").deltas] == ["text 1"] * 2
    assert [each.sample_id for each in compare(dataset.select(second.id), "new", "old").wins] == [second.id] * 2


def test_evaluations_that_do_not_exist_are_named(compared):
    dataset, *_ = compared
    with pytest.raises(FieldError, match=r"expressions\.detections\.newest_JF, there are: new, old"):
        compare(dataset, "old", "newest")
    with pytest.raises(FieldError, match="pass the dataset"):
        compare(dataset.to_clips("expressions"), "old", "new")
