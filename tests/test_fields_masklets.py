"""Masklets through MongoDB: what is written comes back to the pixel, and nothing else is touched."""

import re
from dataclasses import replace

import fiftyone as fo
import fiftyone.core.odm as foo
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fiftyone_refvos.fields import (
    FieldError,
    add_expressions,
    canvas_size,
    declare_masklet_schema,
    read_masklets,
    to_labels,
    write_masklets,
)
from fiftyone_refvos.masklet import Expression, FrameResult, Masklet
from tests.fields_data import (
    KINDS,
    SIZE,
    boxes,
    masklet,
    random_mask,
    video_sample,
    write_and_read,
    write_images,
)

SIZES = [(1, 1), (1, 7), (5, 1), (13, 17), (64, 48), (101, 53), (480, 854), (1080, 1920)]


# --- exactness ---


@st.composite
def masklet_batches(draw):
    """Masklets of one video: every kind and position of masks, in sizes from a pixel to full HD."""
    size = draw(st.sampled_from(SIZES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_frames, frames = draw(st.integers(1, 3)), []
    expressions = [Expression(str(e), f"text {e}") for e in range(draw(st.integers(1, 2)))]
    num_objects = {expression.id: draw(st.integers(0, 2)) for expression in expressions}
    for expression in expressions:
        for t in range(num_frames):
            kinds = draw(st.lists(st.sampled_from(KINDS), min_size=num_objects[expression.id], max_size=2))
            kinds = kinds[: num_objects[expression.id]]
            masks = np.zeros((len(kinds), *size), dtype=bool)
            for n, kind in enumerate(kinds):
                masks[n] = random_mask(rng, size, kind)
            scores = np.where(masks.any((1, 2)), rng.random(len(kinds)), 0)
            frames.append(FrameResult(t, expression.id, masks, scores, bool(masks.any())))
    return Masklet.collect(frames, expressions, key_frames={"0": draw(st.integers(0, num_frames - 1))})


def as_stored(written):
    """A masklet without its objects that are empty in all frames: these leave no trace."""
    kept = [n for n in range(written.num_objects) if any(frame[n].any() for frame in written.dense())]
    return Masklet(
        written.expression,
        written.size,
        written.frames,
        tuple(tuple(rles[n] for n in kept) for rles in written.masks),
        written.scores[:, kept],
        written.found,
        written.key_frame,
    )


@pytest.fixture(scope="module")
def exact_dataset(fiftyone_home):
    dataset = fo.Dataset()
    yield dataset
    dataset.delete()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(masklet_batches())
def test_read_back_is_what_was_written(exact_dataset, batch):
    texts = [written.expression.text for written in batch]
    # Metadata only where no detection tells the size: with other detections they must not be needed.
    height, width = batch[0].size
    metadata = fo.VideoMetadata(total_frame_count=len(batch[0].frames), frame_height=height, frame_width=width)
    sample = fo.Sample(filepath="/videos/a.mp4", metadata=metadata)
    exact_dataset.add_sample(sample)
    add_expressions(sample, texts)
    assert write_and_read(sample, *batch) == [as_stored(written) for written in batch]


@pytest.mark.parametrize("size", [(1, 1), (13, 17), (14, 17), (13, 18)])
def test_folder_dataset_of_odd_size(dataset, tmp_path, size):
    """The App's mp4 is padded right and bottom: boxes are relative to it, masks are those of the images."""
    names = write_images(tmp_path / "frames", num_frames=3, size=size)
    sample = video_sample(dataset, num_frames=3, frames_dir=str(tmp_path / "frames"), frame_names=names)
    padded = tuple(length + length % 2 for length in size)
    assert canvas_size(sample, size) == padded

    rng = np.random.default_rng(0)
    written = masklet([random_mask(rng, size, kind)[None] for kind in ("full", "border", "pixel")])
    assert write_and_read(sample, written) == [written]
    full = sample.frames[1].model.detections[0]
    assert full.bounding_box == [0, 0, size[1] / padded[1], size[0] / padded[0]]
    assert full.mask.shape == size

    sample["frame_size"] = [size[1], size[0]]  # now without a look at the images
    sample["frames_dir"] = None
    sample.save()
    assert canvas_size(sample, size) == padded
    assert read_masklets(sample, "model") == [written]


def test_frame_size_of_another_video(dataset):
    sample = video_sample(dataset, frame_size=[30, 21])
    message = "frame_size says 30x21 (width x height), but the frames are 30x20: mend sample.frame_size"
    with pytest.raises(FieldError, match=re.escape(message)):
        write_masklets(sample, "model", [masklet(boxes([(0, 0)], SIZE))])


def test_two_samples_of_one_file(dataset):
    first, second = (video_sample(dataset, "/videos/same.mp4") for _ in range(2))
    one, other = masklet(boxes([(0, 0)] * 4, SIZE)), masklet(boxes([(9, 9)] * 4, SIZE))
    assert write_and_read(first, one) == [one]
    assert read_masklets(second, "model") == []
    assert write_and_read(second, other) == [other]
    assert read_masklets(first, "model") == [one]


def test_an_image(dataset):
    dataset.add_sample(fo.Sample(filepath="/images/a.png"))
    sample = dataset.first()
    add_expressions(sample, ["the dog", "the cat"])
    assert [label.label for label in sample.expressions.classifications] == ["the dog", "the cat"]
    dog = masklet(boxes([(3, 4)], (21, 31), num_objects=2))
    cat = masklet(np.zeros((1, 0, 21, 31), dtype=bool), expression=Expression("1", "the cat"))
    assert write_and_read(sample, dog, cat) == [dog, cat]
    assert [d.index for d in sample.model.detections] == [1, 2]
    with pytest.raises(FieldError, match="is an image, but the masklets have a frame 1"):
        write_masklets(sample, "model", [masklet(boxes([(3, 4)] * 2, (21, 31)))])


def test_what_was_accepted_without_a_pixel_is_no_rejection_of_an_image_and_what_was_kept_is_one(dataset):
    dataset.add_sample(fo.Sample(filepath="/images/a.png"))
    sample = dataset.first()
    add_expressions(sample, ["the dog", "the cat"])
    nothing = masklet(np.zeros((1, 1, 21, 31), dtype=bool))
    kept = masklet(boxes([(3, 4)], (21, 31)), expression=Expression("1", "the cat"))
    write_masklets(
        sample, "model", [replace(nothing, found=np.ones(1, bool)), replace(kept, found=np.zeros(1, bool))]
    )
    assert [label["model_no_target"] for label in sample.expressions.classifications] == [False, True]
    assert [each.label for each in sample.model.detections] == ["the cat"]


def test_of_a_video_the_frames_in_which_it_is_found_say_whether_there_is_a_target(dataset):
    sample = video_sample(dataset, texts=["the dog", "the cat"])
    rejected = masklet(boxes([(3, 4)] * 4, SIZE))
    once = masklet(boxes([(3, 4)] * 4, SIZE), expression=Expression("1", "the cat"))
    write_masklets(
        sample,
        "model",
        [replace(rejected, found=np.zeros(4, bool)), replace(once, found=np.array([False, True, False, False]))],
    )
    assert [label["model_no_target"] for label in sample.expressions.detections] == [True, False]
    assert len(sample.frames[1].model.detections) == 2  # kept


# --- what is in the database ---


def test_documents_are_those_that_fiftyone_writes(dataset):
    """The same masklet in two samples: one written here, one through FiftyOne's objects and `save()`."""
    written = masklet(boxes([(1, 2), (3, 4)], SIZE, num_objects=2))
    ours, theirs = video_sample(dataset), video_sample(dataset)
    write_masklets(ours, "model", [written])
    for number, label in to_labels([written], SIZE).items():
        theirs.frames[number] = fo.Frame(model=label)
    theirs.save()

    frames = foo.get_db_conn()[dataset._frame_collection_name]
    for number in (1, 2):
        ours_frame, theirs_frame = (
            frames.find_one({"_sample_id": sample._id, "frame_number": number}) for sample in (ours, theirs)
        )
        assert ours_frame.keys() == theirs_frame.keys()
        assert _without_ids(ours_frame["model"]) == _without_ids(theirs_frame["model"])
    assert read_masklets(theirs, "model") == read_masklets(ours, "model") == [written]


def _without_ids(document):
    if isinstance(document, list):
        return [_without_ids(value) for value in document]
    if not isinstance(document, dict):
        return document
    return {name: "an id" if name == "_id" else _without_ids(value) for name, value in document.items()}


def test_the_attributes_of_a_detection(dataset):
    sample = video_sample(dataset, texts=["the dog", "cats"])
    dog = masklet(boxes([(1, 2), (3, 4)], SIZE), scores=0.25)
    cats = masklet(boxes([(5, 5), (6, 6)], SIZE, num_objects=2), expression=Expression("1", "cats"))
    write_masklets(sample, "model", [dog, cats], key_frame_scores={"1": [0.5, 0.75]})
    first, second = (sample.frames[number].model.detections for number in (1, 2))
    told = [(d.label, d.expression_id, d.object_id, d.index, d.confidence) for d in first]
    assert told == [
        ("the dog", "0", "1", 1, 0.25),
        ("cats", "1", "1", 2, 0.5),
        ("cats", "1", "2", 3, 0.5),
    ]
    assert [d.instance.id for d in first] == [d.instance.id for d in second]
    assert len({d.instance.id for d in first}) == 3
    assert len({d.id for d in [*first, *second]}) == 6
    assert [d.get_attribute_value("key_frame_score", None) for d in second] == [None, 0.75, 0.75]
    assert first[1].bounding_box == [5 / 30, 5 / 20, 3 / 30, 3 / 20]


def test_covered_frames_without_detections_have_an_empty_list(dataset):
    sample = video_sample(dataset)
    masks = boxes([(1, 2)] * 3, SIZE)
    masks[1] = False
    write_masklets(sample, "model", [masklet(masks)])
    assert [len(sample.frames[number].model.detections) for number in (1, 2, 3)] == [1, 0, 1]
    assert len(sample.frames) == 3


def test_what_an_expression_tells(dataset):
    sample = video_sample(dataset, texts=["the dog", "a cat"])
    dog = masklet(boxes([(1, 2)] * 4, SIZE), key_frame=2)
    cat = masklet(np.zeros((4, 1, *SIZE), dtype=bool), expression=Expression("1", "a cat"))
    write_masklets(sample, "model", [dog, cat])
    told = [
        [label[f"model_{name}"] for name in ("no_target", "score", "key_frame", "frames", "text")]
        for label in sample.expressions.detections
    ]
    assert told == [[False, 0.5, 3, [1, 4], "the dog"], [True, 0.0, None, [1, 4], "a cat"]]


# --- merging ---


def test_other_fields_of_frames_survive(dataset):
    sample = video_sample(dataset)
    truth = fo.Detections(detections=[fo.Detection(label="x", bounding_box=[0, 0, 1, 1])])
    sample.frames[2] = fo.Frame(ground_truth=truth, note="kept")
    sample.frames[9] = fo.Frame(note="far")
    sample.save()
    written = masklet(boxes([(1, 2)] * 4, SIZE))
    assert write_and_read(sample, written) == [written]
    assert sorted(sample.frames) == [1, 2, 3, 4, 9]
    assert sample.frames[2].ground_truth == truth
    assert (sample.frames[2].note, sample.frames[9].note) == ("kept", "far")
    assert sample.frames[9].model is None


def test_other_expressions_stay_and_the_same_are_replaced(dataset):
    sample = video_sample(dataset, texts=["dog", "cat", "cow"])
    dog, cat, cow = (
        masklet(boxes([(e, e)] * 4, SIZE, num_objects=2), expression=Expression(str(e), text))
        for e, text in enumerate(["dog", "cat", "cow"])
    )
    write_masklets(sample, "model", [dog, cat])
    before = {d.object_id: (d.index, d.instance.id) for d in sample.frames[1].model.detections[:2]}
    assert write_and_read(sample, cow) == [dog, cat, cow]

    changed = masklet(boxes([(9, 9)] * 4, SIZE, num_objects=3), expression=dog.expression)
    assert write_and_read(sample, changed) == [changed, cat, cow]
    detections = sample.frames[1].model.detections
    assert [(d.expression_id, d.object_id, d.index) for d in detections] == [
        *(("0", "1", 1), ("0", "2", 2), ("1", "1", 3), ("1", "2", 4)),
        *(("2", "1", 5), ("2", "2", 6), ("0", "3", 7)),
    ]
    assert {d.object_id: (d.index, d.instance.id) for d in detections[:2]} == before


def test_only_covered_frames_are_replaced(dataset):
    sample = video_sample(dataset, num_frames=6)
    write_masklets(sample, "model", [masklet(boxes([(1, 1)] * 6, SIZE))])
    write_masklets(sample, "model", [masklet(boxes([(9, 9)] * 2, SIZE), first=2)])
    assert read_masklets(sample, "model") == [masklet(boxes([(1, 1), (1, 1), (9, 9), (9, 9), (1, 1), (1, 1)], SIZE))]


def test_masklets_of_different_frames_in_one_field(dataset):
    """Each expression is read in the frames that it was written in, whatever others cover."""
    sample = video_sample(dataset, num_frames=6, texts=["dog", "cat"])
    dog = masklet(boxes([(1, 1)] * 2, SIZE), first=1, expression=Expression("0", "dog"))
    cat = masklet(np.zeros((6, 0, *SIZE), dtype=bool), expression=Expression("1", "cat"))
    write_masklets(sample, "model", [dog], complete=False)
    write_masklets(sample, "model", [cat])
    assert read_masklets(sample, "model") == [dog, cat]
    assert read_masklets(sample, "model", expression_ids={"1"}) == [cat]


def test_objects_in_memory_follow(dataset):
    sample = video_sample(dataset)
    write_masklets(sample, "model", [masklet(boxes([(1, 1)] * 4, SIZE))])
    frame, view = sample.frames[1], dataset.view()
    frame["note"] = "not saved yet"
    write_masklets(view.first(), "model", [masklet(boxes([(9, 9)] * 4, SIZE, side=5), scores=0.75)])
    assert frame.model.detections[0].mask.shape == (5, 5)
    assert sample.expressions.detections[0].model_score == 0.75
    frame.reload()
    assert frame.note == "not saved yet"


# --- refusals ---


def test_unknown_expressions_are_refused_before_anything_is_written(dataset):
    sample = video_sample(dataset)
    cat = masklet(boxes([(1, 1)], SIZE), expression=Expression("5", "cat"))
    message = "'expressions' has no expression '5' to write a masklet for, only ['0']; add_expressions adds one"
    with pytest.raises(FieldError, match=re.escape(message)):
        write_masklets(sample, "model", [masklet(boxes([(1, 1)], SIZE)), cat])
    assert len(sample.frames) == 0


def test_too_few_key_frame_scores(dataset):
    sample = video_sample(dataset)
    with pytest.raises(FieldError, match="expression '0' has 1 key frame scores for 2 frames"):
        write_masklets(sample, "model", [masklet(boxes([(1, 1)] * 2, SIZE))], key_frame_scores={"0": [1.0]})


def test_masklets_of_two_sizes(dataset):
    sample = video_sample(dataset, texts=["the dog", "cat"])
    cat = masklet(boxes([(1, 1)], (20, 40)), expression=Expression("1", "cat"))
    with pytest.raises(FieldError, match=re.escape("must have one size, got [(20, 30), (20, 40)]")):
        write_masklets(sample, "model", [masklet(boxes([(1, 1)], SIZE)), cat])


def test_reading_what_is_not_there(dataset):
    sample = video_sample(dataset)
    with pytest.raises(FieldError, match=r"has no Detections in 'frames.model' to read masklets from"):
        read_masklets(sample, "model")
    declare_masklet_schema(dataset, "model")
    assert read_masklets(sample, "model") == []


def test_a_sample_outside_of_a_dataset():
    with pytest.raises(FieldError, match=re.escape("is in no dataset: call dataset.add_sample")):
        read_masklets(fo.Sample(filepath="/videos/a.mp4"), "model")


def test_writing_changes_no_schema(dataset):
    """Workers write at once; two of them that change the schema can lose a field."""
    sample = video_sample(dataset)
    declare_masklet_schema(dataset, "model")
    before = foo.get_db_conn().datasets.find_one({"name": dataset.name})
    write_masklets(sample, "model", [masklet(boxes([(1, 1)] * 2, SIZE), key_frame=1)], key_frame_scores={"0": [1, 0]})
    assert foo.get_db_conn().datasets.find_one({"name": dataset.name}) == before


def test_writing_nothing(dataset):
    sample = video_sample(dataset)
    write_masklets(sample, "model", [])
    assert dataset.get_field("frames.model") is None
