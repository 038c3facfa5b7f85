"""What is judged against an empty truth and void pixels is judged as it is evaluated."""

import fiftyone as fo
import pytest

import fiftyone_refvos as rv
from fiftyone_refvos import find_failures
from fiftyone_refvos.fields import (
    read_expressions,
    to_detection,
    write_masklets,
)
from fiftyone_refvos.masklet import encode
from tests.fields_data import masklet
from tests.planted_failures import (
    ASTRAY,
    BIRD,
    CAT,
    DOG,
    NOTHING,
    ROUGH,
    SIZE,
    SMOOTH,
    T,
    box,
    kinds_of,
    plant,
    sized_video,
    stretches,
)


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
