"""The protocols that count objects, in `rv.evaluate`: equal to the metrics on the same masks, and refusals."""

from __future__ import annotations

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.fields import FieldError, read_expressions, to_detection, write_expression_attributes
from fiftyone_refvos.masklet import encode
from fiftyone_refvos.metrics import PROTOCOLS, VideoMasks
from tests.fields_data import boxes, masklet, video_sample

SIZE, T = (40, 60), 6


def track(row: int, shift: int = 0):
    """`(T, 1, H, W)`: a square that moves to the right."""
    return boxes([(row, 5 + 2 * t + shift) for t in range(T)], SIZE, side=9)


# Objects 1 and 2 are named by expressions, 3 is not.
TRUE = {"1": track(2), "2": track(14), "3": track(28)}
# text: what it means, predicted masks; "the cat again" overlaps the prediction of the dog
PREDICTED = {
    "the dog": (["1"], track(3, 1)),
    "the cat": (["2"], track(10)),
    "the cat again": (["2"], track(14, 2)),
    "both": (["1", "2"], track(2)),
    "nothing": ([], np.zeros((T, 1, *SIZE), dtype=bool)),
}
VOID = boxes([(30, 20)] * T, SIZE, side=4)


def add_video(dataset: fo.Dataset, path: str = "/videos/a.mp4", *, unnamed: bool = True) -> fo.Sample:
    metadata = fo.VideoMetadata(total_frame_count=T, frame_height=SIZE[0], frame_width=SIZE[1])
    sample = video_sample(dataset, path, num_frames=T, texts=[*PREDICTED])
    dataset.set_values("metadata", {sample.id: metadata}, key_field="id")
    expressions = read_expressions(sample)
    found = [masklet(PREDICTED[each.text][1], expression=each) for each in expressions]
    fields.write_masklets(sample, "model", found)
    sample = dataset[sample.id]
    for label in sample.expressions.detections:
        label["object_ids"], label["kind"] = PREDICTED[label.label][0], "refexp"
        label["no_target"] = not label["object_ids"]
    named = [(id_, label.expression_id) for label in sample.expressions.detections for id_ in label["object_ids"]]
    for t in range(T):
        detections = [
            to_detection(encode(TRUE[id_][t])[0], SIZE, label="x", object_id=id_, expression_id=expression_id)
            for id_, expression_id in [*named, *([("3", None)] if unnamed else [])]
        ]
        frame = sample.frames[t + 1]
        frame["truth"] = fo.Detections(detections=detections)
        frame["void"] = fo.Detections(detections=[to_detection(encode(VOID[t])[0], SIZE, label="void")])
    sample.save()
    dataset.add_dynamic_frame_fields()
    dataset.add_dynamic_sample_fields()
    return sample


def evaluate(samples, protocol: str, **options):
    return rv.evaluate(samples, "model", **{"gt_field": "truth", "eval_key": "run", "protocol": protocol, **options})


def direct(name: str, predictions: dict[str, np.ndarray], *, unnamed: bool = True, video: str = "v") -> dict:
    """What the metrics say of label maps and files made by hand."""
    masks = VideoMasks(
        name=video,
        size=SIZE,
        frames=[str(t) for t in range(1, T + 1)],
        objects={id_: masks for id_, masks in TRUE.items() if unnamed or id_ != "3"},
        predictions=predictions,
        void=VOID,
    )
    return PROTOCOLS[name].evaluate([masks]).dataset


@pytest.mark.parametrize("name", ["davis17-semi-supervised", "vos-benchmark", "vos-benchmark-all-frames"])
def test_the_first_expression_of_an_object_predicts_it_and_the_lowest_number_keeps_a_pixel(dataset, name) -> None:
    add_video(dataset)
    dog, cat = PREDICTED["the dog"][1], PREDICTED["the cat"][1]
    assert (dog & cat).any()
    expected = direct(name, {"1": dog, "2": cat & ~dog})
    results = evaluate(dataset, name)
    assert results.summary["dataset"] == expected  # `==` on the doubles
    assert len(results.summary["units"]) == 3  # object 3 counts, too: nobody predicted it
    assert results.summary["dataset"] != direct(name, {"1": dog, "2": cat})


@pytest.mark.parametrize("name", ["sa-v", "sa-v-all-frames"])
def test_files_of_sa_v_may_overlap(dataset, name) -> None:
    add_video(dataset, unnamed=False)
    predictions = {"1": PREDICTED["the dog"][1], "2": PREDICTED["the cat"][1]}
    assert evaluate(dataset, name).summary["dataset"] == direct(name, predictions, unnamed=False)


def test_every_expression_of_one_object_is_a_proposal(dataset) -> None:
    add_video(dataset)
    dog, cat, again = (PREDICTED[text][1] for text in ("the dog", "the cat", "the cat again"))
    proposals = {"1": dog, "2": cat & ~dog, "3": again & ~dog & ~cat}
    name = "davis17-unsupervised"
    assert evaluate(dataset, name).summary["dataset"] == direct(name, proposals)


def test_expressions_keep_their_own_numbers(dataset) -> None:
    add_video(dataset)
    of_objects = evaluate(dataset, "davis17-semi-supervised")
    of_expressions = evaluate(dataset, "mevis", eval_key="other")
    assert of_objects.expressions == of_expressions.expressions
    paths = [f"expressions.detections.{key}_JF" for key in ("run", "other")]
    first, second = dataset.values(paths)
    assert first == second


def test_object_ids_may_be_told_by_masks_alone(dataset) -> None:
    add_video(dataset)
    expected = evaluate(dataset, "davis17-semi-supervised").summary["dataset"]
    dataset.delete_sample_field("expressions.detections.object_ids")
    assert evaluate(dataset, "davis17-semi-supervised").summary["dataset"] == expected


def test_several_videos_and_processes(dataset) -> None:
    add_video(dataset)
    add_video(dataset, "/videos/b.mp4")
    name = "davis17-semi-supervised"
    serial, parallel = evaluate(dataset, name), evaluate(dataset, name, num_workers=2, eval_key="other")
    assert serial.summary == parallel.summary
    assert len(serial.summary["units"]) == 6


def test_what_is_impossible_says_so(dataset) -> None:
    sample = add_video(dataset)
    with pytest.raises(FieldError, match=rf"{sample.id}.*no prediction for '3'"):  # SA-V wants a file of each object
        evaluate(dataset, "sa-v")
    hidden = dataset.filter_labels("expressions", F("label") != "the dog")
    with pytest.raises(FieldError, match="no expression of object '1' is shown and annotated"):
        evaluate(hidden, "davis17-unsupervised")
    assert evaluate(dataset.filter_labels("expressions", F("label") != "the cat"), "davis17-unsupervised")
    with pytest.raises(FieldError, match="first and last frame are not counted, none of 2 remains"):
        evaluate(dataset.match_frames(F("frame_number") < 3), "davis17-semi-supervised")
    clips = dataset.to_clips([[(1, 4), (3, 6)]])
    assert evaluate(clips, "davis17-semi-supervised").summary["units"].keys()
    for frame in sample.frames.values():
        for detection in frame.truth.detections:
            detection.object_id = "dog" if detection.object_id == "1" else detection.object_id
    for label in sample.expressions.detections:
        label["object_ids"] = ["dog" if id_ == "1" else id_ for id_ in label["object_ids"]]
    sample.save()
    with pytest.raises(FieldError, match="DAVIS numbers its objects 1, 2, …; 'dog' is no such number"):
        evaluate(dataset, "davis17-semi-supervised")
    results = evaluate(dataset, "davis17-semi-supervised", skip_failures=True)
    assert [failure["sample_id"] for failure in results.failures] == [sample.id]


def test_objects_need_ids_of_their_own_and_common_frames(dataset) -> None:
    sample = add_video(dataset)
    frame = sample.frames[2]
    frame.truth.detections[-1].object_id = None
    sample.save()
    with pytest.raises(FieldError, match=r"'truth' has masks without object_id \('x'\)"):
        evaluate(dataset, "davis17-semi-supervised")
    for frame in sample.frames.values():
        for detection in frame.truth.detections:
            detection.object_id = "1"
    sample.save()
    write_expression_attributes(sample, {"object_ids": {str(n): None for n in range(5)}})
    with pytest.raises(FieldError, match=r"two masks of object '1'|different objects with the object_id '1'"):
        evaluate(dataset, "davis17-semi-supervised")


def test_expressions_of_different_frames_have_no_common_objects(dataset) -> None:
    add_video(dataset)
    supports = [[1, 6], [2, 6], [1, 6], [1, 6], [1, 6]]
    dataset.set_values("expressions.detections.support", [supports])
    with pytest.raises(FieldError, match="'0' and '1' are shown or annotated in different ones"):
        evaluate(dataset.to_clips("expressions"), "davis17-semi-supervised")


def test_unnamed_masks_are_checked_too(dataset) -> None:
    sample = add_video(dataset)
    sample.frames[4].truth.detections[-1].mask = np.ones((2, 2), dtype=bool)
    sample.save()
    with pytest.raises(FieldError, match=rf"{sample.id}.*frame 4 of 'truth' has a mask of 2x2 pixels in a box"):
        evaluate(dataset, "davis17-semi-supervised")
