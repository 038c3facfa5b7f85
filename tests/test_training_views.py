"""Views as training data: what an expression means in a frame, which frames are drawn, and what is left out."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F
from PIL import Image

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.demo import DemoConfig
from fiftyone_refvos.fields import FieldError, to_labels
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.segment import Progress
from fiftyone_refvos.training.views import ViewReport, ViewSource, has_run
from tests.conftest import REPOSITORY
from tests.fields_data import SIZE, boxes, masklet, write_images, write_video
from tests.measured import measured_demo

CONFIG = DemoConfig(height=96, width=160, num_frames=8, max_per_kind=1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture
def demo(clips):
    dataset = rv.demo.load(num_videos=2, config=CONFIG, folder=clips, name=f"test-{uuid4().hex[:12]}")
    yield dataset
    dataset.delete()


def annotated_video(dataset: fo.Dataset, folder: Path, *, num_frames: int = 6, **facts) -> fo.Sample:
    """A video with the expression "the dogs", whose two objects overlap by a row of 3 pixels in every frame."""
    path = write_video(folder / f"{uuid4().hex[:8]}.mp4", num_frames=num_frames, size=SIZE)
    sample = fo.Sample(str(path), metadata=fo.VideoMetadata.build_for(str(path)))
    label = fo.TemporalDetection(label="the dogs", support=[1, num_frames], expression_id="0", kind="motion", **facts)
    sample["expressions"] = fo.TemporalDetections(detections=[label])
    masks = boxes([(2, t) for t in range(num_frames)], SIZE, num_objects=2)
    masks[:, 1] = np.roll(masks[:, 1], -1, axis=-2)  # one row up, onto the first object
    for number, labels in to_labels([masklet(masks, expression=Expression("0", "the dogs"))], SIZE).items():
        sample.frames[number] = fo.Frame(ground_truth=labels)
    dataset.add_sample(sample)
    dataset.add_dynamic_sample_fields()
    dataset.add_dynamic_frame_fields()
    return sample


# --- what an expression means ---


def test_objects_of_an_expression_are_counted_pixel_by_pixel(dataset, tmp_path):
    annotated_video(dataset, tmp_path)
    video = ViewSource(dataset).video(0)
    (dogs,) = video.expressions
    assert (dogs.text, dogs.object_ids, dogs.frames) == ("the dogs", ("1", "2"), None)
    target = video.targets([dogs, dogs], 3)
    assert (target.shape, target.dtype) == ((2, *SIZE), np.uint8)
    expected = np.zeros(SIZE, np.uint8)
    expected[2:5, 3:6] += 1
    expected[4:7, 3:6] += 1
    np.testing.assert_array_equal(target[0], expected)
    assert target.max() == 2


def test_objects_are_found_by_the_ids_that_an_expression_names(demo):
    """A second expression of the same objects has no masks of its own, only `object_ids`."""
    sample = demo.first()
    known = next(label for label in sample.expressions.detections if label.object_ids)
    label = fo.TemporalDetection(
        label="that one", support=[1, 8], expression_id="99", kind="static", object_ids=known.object_ids
    )
    sample.expressions.detections.append(label)
    sample.save()
    video = ViewSource(demo).video(0)
    by_id = {expression.id: expression for expression in video.expressions}
    assert by_id["99"].object_ids == by_id[known.expression_id].object_ids
    ours, its = video.targets([by_id["99"], by_id[known.expression_id]], 4)
    assert its.any()
    np.testing.assert_array_equal(ours, its)


def test_masklets_of_a_model_are_targets_too(demo):
    sample = demo.first()
    expressions = fields.read_expressions(sample)
    without = {label.expression_id for label in sample.expressions.detections if label.no_target}
    here, missed = [each for each in expressions if each.id not in without][:2]
    (nothing,) = [each for each in expressions if each.id in without]
    written = [
        masklet(boxes([(5, t) for t in range(8)], (96, 160)), expression=here),
        *(masklet(np.zeros((8, 1, 96, 160), bool), expression=each) for each in (missed, nothing)),
    ]
    fields.write_masklets(sample, "model", written)
    source = ViewSource(demo, masklets_field="model")
    assert [expression.id for expression in source.video(0).expressions] == [here.id]
    video = source.video(0)
    np.testing.assert_array_equal(video.targets(video.expressions, 7)[0], written[0].union(7))
    both = ViewSource(demo.limit(1), masklets_field="model", no_target=True)
    assert [(e.id, e.object_ids) for e in both.video(0).expressions] == [(here.id, ("1",)), (nothing.id, ())]
    assert not both.video(0).targets(both.video(0).expressions[1:], 0).any()
    # what was missed is no example of what is not there, and the model has not looked for the others
    assert (both.report.no_target, both.report.unknown) == (0, len(expressions) - 2)


def test_frames_and_their_names_are_those_of_the_exact_images(dataset, tmp_path):
    sample = annotated_video(dataset, tmp_path)
    names = write_images(tmp_path / "frames", num_frames=6, size=SIZE)
    sample["frames_dir"], sample["frame_names"] = str(tmp_path / "frames"), names
    sample["frame_size"] = [SIZE[1], SIZE[0]]
    sample.save()
    video = ViewSource(dataset).video(0)
    assert (video.name, video.size, len(video)) == ("frames", SIZE, 6)
    assert [video.frame_name(index) for index in (0, 5)] == ["00000", "00005"]
    assert [int(frame[0, 0, 0]) for frame in video.read([5, 2])] == [50, 20]


# --- what is drawn ---


def test_frames_that_are_not_annotated_are_no_query_frames(dataset, tmp_path):
    sample = annotated_video(dataset, tmp_path, num_frames=9)
    sample.frames[3].ground_truth = None
    sample.frames[6].ground_truth = fo.Detections()  # annotated, and absent
    sample.save()
    video = ViewSource(dataset).video(0)
    assert video.expressions[0].frames == {0, 1, 3, 4, 5, 6, 7, 8}
    assert not video.targets(video.expressions, 5).any()
    assert ViewSource(dataset, query_frames=6).video(0).expressions == video.expressions
    with pytest.raises(FieldError, match="1 expressions without enough annotated frames in a row"):
        ViewSource(dataset, query_frames=7)
    with pytest.raises(ValueError, match="frame 2 of expression '0' is not annotated"):
        video.targets(video.expressions, 2)


def test_a_view_hides_expressions_and_frames(demo):
    whole = ViewSource(demo)
    shown = demo.filter_labels("expressions", F("kind") == "motion").match_frames(F("frame_number") > 2)
    source = ViewSource(shown)
    assert 0 < source.report.num_expressions < whole.report.num_expressions
    for index in range(len(source)):
        for expression in source.video(index).expressions:
            assert expression.frames == {2, 3, 4, 5, 6, 7}
    kinds = {label.label: label.kind for sample in demo for label in sample.expressions.detections}
    texts = [expression.text for index in range(len(source)) for expression in source.video(index).expressions]
    assert {kinds[text] for text in texts} == {"motion"}


def test_pseudo_labels_gate_frames(clips):
    """ "late loss" is right in its first half of 8 frames, "missed object" nowhere."""
    dataset = measured_demo(clips, CONFIG)
    with pytest.raises(FieldError, match="there is nothing to train on .* IoU"):
        ViewSource(dataset, masklets_field="model", min_iou=0.9)
    rv.make_pseudo_labels(dataset, "model", absent_policy="skip")
    source = ViewSource(dataset, masklets_field="model", min_iou=0.9)
    good, late = (source.video(index) for index in range(2))
    assert {expression.frames for expression in good.expressions} == {None}
    assert {expression.frames for expression in late.expressions} == {frozenset(range(4))}
    assert len(source) == 2
    assert source.report.low_iou >= 1
    without = {label.expression_id for label in dataset.first().expressions.detections if label.no_target}
    both = ViewSource(dataset, masklets_field="model", min_iou=0.9, no_target=True).video(0)
    assert {each.id for each in both.expressions if not each.object_ids} == without
    everything = ViewSource(dataset, masklets_field="model")
    assert everything.report.low_iou == 0
    assert everything.report.num_expressions > source.report.num_expressions
    dataset.delete()


@pytest.mark.parametrize(("frames", "found"), [(range(4), True), ([0, 1, 2, 4, 5, 6], False), ([], False)])
def test_four_frames_in_a_row(frames, found):
    assert has_run(frames, 4) == found


# --- what is left out, and what is refused ---


def test_what_cannot_be_used_is_counted(dataset, tmp_path):
    annotated_video(dataset, tmp_path)
    annotated_video(dataset, tmp_path, num_frames=3)
    nothing = annotated_video(dataset, tmp_path, object_ids=[], no_target=True)
    for frame in nothing.frames.values():
        frame.ground_truth = fo.Detections()
    sparse = annotated_video(dataset, tmp_path)
    fields.add_expressions(sparse, "typed by somebody")
    sparse.reload()
    for number in (1, 3, 5):
        sparse.frames[number].ground_truth = None
    nothing.save()
    sparse.save()
    report = ViewSource(dataset).report
    assert report == ViewReport(1, 1, short_videos=1, empty_videos=2, no_target=1, unknown=1, unannotated=1)
    assert str(report).startswith("1 expressions of 1 videos; left out: 1 videos with fewer than 4 frames, 2 videos")
    assert ViewSource(dataset, no_target=True).report.num_expressions == 2
    assert report + report == ViewReport(2, 2, 2, 4, 2, 2, 2, 0)


def test_nothing_left_is_an_error_that_says_why(dataset, tmp_path):
    annotated_video(dataset, tmp_path, num_frames=3)
    with pytest.raises(FieldError, match="nothing to train on in 'ground_truth' of 1 videos .*1 videos with fewer"):
        ViewSource(dataset)


def test_a_mask_of_another_size_is_found_before_training(dataset, tmp_path):
    annotated_video(dataset, tmp_path)
    sample = annotated_video(dataset, tmp_path)
    sample.frames[5].ground_truth.detections[0].mask = np.ones((9, 9), bool)
    sample.save()
    message = rf"{sample.id} .*frame 5 of 'ground_truth' has a mask of 9x9 pixels in a box of 3x3"
    with pytest.raises(FieldError, match=message):
        ViewSource(dataset)


def test_missing_fields_are_named(demo):
    with pytest.raises(FieldError, match=r"no field 'frames.glus' with masklets, but in: ground_truth"):
        ViewSource(demo, masklets_field="glus")
    with pytest.raises(FieldError, match="no field 'texts' to take expressions from"):
        ViewSource(demo, expressions_field="texts")
    first = demo.first()
    first.expressions = None
    first.save()
    with pytest.raises(FieldError, match=rf"sample {first.id} .*the field 'expressions' is not set"):
        ViewSource(demo)
    demo.set_values("filepath", ["/gone/a.mp4", "/gone/b.mp4"])
    with pytest.raises(FieldError, match="/gone/.*does not exist"):
        ViewSource(demo.exists("expressions"))


def test_only_whole_videos(dataset, demo, tmp_path):
    with pytest.raises(FieldError, match="holds no samples"):
        ViewSource(dataset)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "image.png")
    dataset.add_sample(fo.Sample(str(tmp_path / "image.png")))
    with pytest.raises(FieldError, match="holds image samples"):
        ViewSource(dataset)
    with pytest.raises(FieldError, match="holds clips"):
        ViewSource(demo.to_clips("expressions"))


# --- many videos, other processes ---


def test_videos_with_one_name_are_told_apart(dataset, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        sample = annotated_video(dataset, tmp_path / name)
        sample["video_name"] = "dogs"
        sample.save()
    source = ViewSource(dataset)
    names = [source.video(index).name for index in range(2)]
    assert names == [f"dogs ({sample_id})" for sample_id in dataset.values("id")]


def test_what_was_removed_meanwhile_is_named(demo):
    source = ViewSource(demo)
    sample = demo.first()
    sample.expressions.detections = []
    sample.save()
    with pytest.raises(FieldError, match=rf"sample {sample.id} .* was removed while it was trained on"):
        source.video(0)


def test_progress_is_told_video_by_video(demo):
    told: list[Progress] = []
    ViewSource(demo, progress=told.append)
    assert [(each.video, each.num_videos, each.fraction) for each in told] == [(1, 2, 0.5), (2, 2, 1.0)]


def test_another_process_reads_the_same_targets(demo, tmp_path):
    source = ViewSource(demo.limit(1), name="mine", contrastive=True)
    pickled = tmp_path / "source.pkl"
    pickled.write_bytes(pickle.dumps(source))
    assert len(pickle.dumps(source)) < 4000
    code = (
        "import pickle, sys\n"
        "source = pickle.load(open(sys.argv[1], 'rb'))\n"
        "video = source.video(0)\n"
        "print('SUM', source.name, source.contrastive, [int(t.sum()) for t in video.targets(video.expressions, 3)])\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, str(pickled)], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    video = source.video(0)
    sums = [int(target.sum()) for target in video.targets(video.expressions, 3)]
    assert f"SUM mine True {sums}" in process.stdout
