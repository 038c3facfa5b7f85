"""What is finished, what is stale, and how a field is cleared: on this rests that a run can be resumed."""

import fiftyone as fo
import pytest

import fiftyone_refvos.fields.masklets as writing
from fiftyone_refvos.fields import (
    FieldError,
    add_expressions,
    clear_field,
    finished_expressions,
    read_masklets,
    stale_expressions,
    write_masklets,
)
from fiftyone_refvos.masklet import Expression
from tests.fields_data import SIZE, boxes, masklet

DOG, CAT = Expression("0", "the dog"), Expression("1", "a cat")


def add_sample(dataset, num_frames=6):
    sample = fo.Sample(filepath="/videos/a.mp4", metadata=fo.VideoMetadata(total_frame_count=num_frames))
    dataset.add_sample(sample)
    add_expressions(sample, [DOG.text, CAT.text])
    return sample


def of(expression, *, num_frames=6, first=0):
    return masklet(boxes([(2, 2)] * num_frames, SIZE), expression=expression, first=first)


def states(sample):
    return finished_expressions(sample, "model"), stale_expressions(sample, "model")


def test_nothing_is_finished_before_it_is_written(dataset):
    sample = add_sample(dataset)
    assert states(sample) == (set(), set())
    write_masklets(sample, "model", [of(CAT)])
    assert states(sample) == ({"1"}, set())
    write_masklets(dataset.view().first(), "model", [of(DOG)])
    assert states(sample) == ({"0", "1"}, set())
    assert finished_expressions(sample, "other") == set()


def test_no_target_is_a_result(dataset):
    sample = add_sample(dataset)
    write_masklets(sample, "model", [masklet(boxes([(2, 2)] * 6, SIZE, num_objects=0), expression=DOG)])
    assert states(sample) == ({"0"}, set())


def test_an_edited_text_makes_masklets_stale(dataset):
    sample = add_sample(dataset)
    write_masklets(sample, "model", [of(DOG), of(CAT)])
    sample.expressions.detections[0].label = "the other dog"
    sample.save()
    assert states(sample) == ({"1"}, {"0"})
    (dog, _) = read_masklets(sample, "model")
    assert dog.expression == DOG  # the text that the masks were made for

    edited = Expression("0", "the other dog")
    write_masklets(sample, "model", [of(edited)])
    assert states(sample) == ({"0", "1"}, set())
    assert read_masklets(sample, "model") == [of(edited), of(CAT)]


def test_a_part_of_the_frames_is_not_finished(dataset):
    sample = add_sample(dataset)
    write_masklets(sample, "model", [of(DOG, num_frames=3)], complete=False)
    assert states(sample) == (set(), set())
    write_masklets(sample, "model", [of(DOG, num_frames=3, first=3)], complete=False)
    assert states(sample) == ({"0"}, set())


def test_a_video_with_fewer_frames_than_it_promises(dataset):
    """Otherwise a run would start over with it for ever."""
    sample = add_sample(dataset, num_frames=8)
    write_masklets(sample, "model", [of(DOG)])
    assert states(sample) == ({"0"}, set())
    assert read_masklets(sample, "model") == [of(DOG)]


def test_clips_add_up(dataset):
    sample = add_sample(dataset)
    first, second = dataset.to_clips([[(1, 3), (4, 6)]])
    write_masklets(first, "model", [of(DOG, num_frames=3)])
    assert states(first) == ({"0"}, set())
    assert states(second) == states(sample) == (set(), set())
    write_masklets(second, "model", [of(DOG, num_frames=3)])
    assert states(second) == states(sample) == ({"0"}, set())
    assert read_masklets(sample, "model") == [of(DOG)]


def test_an_edited_text_does_not_add_up(dataset):
    sample = add_sample(dataset)
    write_masklets(sample, "model", [of(DOG)])
    sample.expressions.detections[0].label = "the other dog"
    sample.save()
    (clip,) = dataset.to_clips([[(1, 3)]])
    edited = Expression("0", "the other dog")
    write_masklets(clip, "model", [of(edited, num_frames=3)])
    assert states(clip) == ({"0"}, set())
    assert states(sample) == (set(), set())
    assert read_masklets(sample, "model") == [of(edited, num_frames=3)]


def test_a_run_that_dies_leaves_nothing_finished(dataset, monkeypatch):
    """The mark of an earlier run is gone before the first of its masks is."""
    sample = add_sample(dataset)
    write_masklets(sample, "model", [of(DOG), of(CAT)])

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(writing, "write_frames", die)
    with pytest.raises(KeyboardInterrupt):
        write_masklets(sample, "model", [of(DOG)])
    assert states(sample) == ({"1"}, set())


def test_clearing_a_view(dataset):
    kept, cleared = add_sample(dataset), add_sample(dataset)
    for sample in (kept, cleared):
        for field in ("model", "other"):
            write_masklets(sample, field, [of(DOG), of(CAT)])
    view = dataset.select(cleared.id).filter_labels("expressions", fo.ViewField("label") == "a cat")
    clear_field(view, "model")

    assert states(cleared) == (set(), set())
    assert read_masklets(cleared, "model") == []
    assert {frame.model for frame in cleared.frames.values()} == {None}
    told = [label.to_dict() for label in dataset[cleared.id].expressions.detections]
    assert [(label["label"], label.get("model_score"), label["other_score"]) for label in told] == [
        ("the dog", None, 0.5),
        ("a cat", None, 0.5),
    ]
    assert read_masklets(cleared, "other") == read_masklets(kept, "model") == [of(DOG), of(CAT)]
    assert states(kept) == ({"0", "1"}, set())

    write_masklets(cleared, "model", [of(CAT)])
    assert states(cleared) == ({"1"}, set())


def test_clearing_a_dataset_and_what_is_not_there(dataset):
    sample = add_sample(dataset)
    write_masklets(sample, "model", [of(DOG)])
    clear_field(dataset, "never written")
    assert states(sample) == ({"0"}, set())
    clear_field(dataset, "model")
    assert states(sample) == (set(), set())


def test_clearing_images(dataset):
    sample = fo.Sample(filepath="/images/a.png")
    dataset.add_sample(sample)
    add_expressions(sample, DOG.text)
    write_masklets(sample, "model", [of(DOG, num_frames=1)])
    assert states(sample) == ({"0"}, set())
    clear_field(dataset, "model")
    assert sample.model is None
    assert states(sample) == (set(), set())


def test_clips_are_not_cleared(dataset):
    sample = add_sample(dataset)
    write_masklets(sample, "model", [of(DOG)])
    with pytest.raises(FieldError, match="clips cannot be cleared of 'model', the masklets belong to whole videos"):
        clear_field(dataset.to_clips("expressions"), "model")
