"""Masklets read from clips, from ground truth and from labels that others wrote."""

import fiftyone as fo
import numpy as np
import pytest

from fiftyone_refvos.fields import FieldError, labels_for, read_masklets, to_labels, write_masklets
from fiftyone_refvos.masklet import Expression
from tests.fields_data import SIZE, boxes, masklet, video_sample, write_and_read, write_video

# --- clips ---


def test_clips_view(dataset):
    sample = video_sample(dataset, num_frames=6)
    whole = masklet(boxes([(1, 1)] * 6, SIZE), key_frame=3)
    write_masklets(sample, "model", [whole])

    (clip,) = dataset.to_clips([[(3, 5)]])
    assert read_masklets(clip, "model") == [masklet(boxes([(1, 1)] * 3, SIZE), key_frame=1)]
    shorter = masklet(boxes([(8, 8)] * 3, SIZE), key_frame=2)
    assert write_and_read(clip, shorter) == [shorter]
    corners = [(1, 1), (1, 1), (8, 8), (8, 8), (8, 8), (1, 1)]
    assert read_masklets(sample, "model") == [masklet(boxes(corners, SIZE), key_frame=4)]
    with pytest.raises(FieldError, match=r"frame 3 \(from 0\) of the masklets is outside of the clip, which has 3"):
        write_masklets(clip, "model", [masklet(boxes([(8, 8)] * 4, SIZE))])


def test_labels_for_apply_model(dataset):
    """What a FiftyOne model returns for a clip goes to the frames of the clip, on the App's canvas."""
    sample = video_sample(dataset, num_frames=6, frame_size=[29, 19])
    (clip,) = dataset.to_clips([[(3, 4)]])
    written = masklet(boxes([(8, 8)] * 2, (19, 29)))
    labels = labels_for(clip, [written])
    assert list(labels) == [3, 4]
    assert labels[3].detections[0].bounding_box == [8 / 30, 8 / 20, 3 / 30, 3 / 20]
    assert labels_for(clip, []) == {}
    for number, label in labels.items():
        sample.frames[number] = fo.Frame(model=label)
    sample.save()
    assert read_masklets(clip, "model") == [written]


def test_clips_before_anything_else(dataset):
    sample = video_sample(dataset, num_frames=6)
    (clip,) = dataset.to_clips("expressions")
    written = masklet(boxes([(8, 8)] * 6, SIZE))
    assert write_and_read(clip, written) == [written]
    assert read_masklets(sample, "model") == [written]


def test_a_cloned_clips_view(dataset):
    video_sample(dataset, num_frames=6)
    clone = dataset.to_clips([[(3, 5)]], other_fields=True).clone()
    try:
        written = masklet(boxes([(8, 8)] * 3, SIZE))
        assert write_and_read(clone.first(), written) == [written]
        assert sorted(clone.first().frames) == [3, 4, 5]
        assert dataset.first().frames[3].has_field("model") is False
    finally:
        clone.delete()


# --- labels that others wrote ---


def test_ground_truth(dataset):
    """None is not annotated, an empty list is annotated and absent; objects of no expression are left out."""
    sample = video_sample(dataset, texts=["dog", "nothing"])
    labels = to_labels([masklet(boxes([(1, 1)] * 4, SIZE, num_objects=2))], SIZE)
    labels[1].detections[0].confidence = None
    labels[2] = fo.Detections()
    labels[3].detections[0].expression_id = None
    for number in (1, 2, 3):
        sample.frames[number] = fo.Frame(ground_truth=labels[number])
    sample.frames[4] = fo.Frame()
    sample.save()

    dog, nothing = read_masklets(sample, "ground_truth")
    assert dog.expression == Expression("0", "dog")
    assert dog.frames == nothing.frames == (0, 1, 2)
    assert dog.size == SIZE
    np.testing.assert_array_equal(dog.scores, np.array([[1, 0.5], [0, 0], [0, 0.5]], dtype=np.float32))
    np.testing.assert_array_equal(dog.found, [True, False, True])
    np.testing.assert_array_equal(dog.mask(0), boxes([(1, 1)], SIZE, num_objects=2)[0])
    assert nothing.no_target
    assert nothing.num_objects == 0


def test_a_field_without_expressions(dataset):
    sample = fo.Sample(filepath="/videos/a.mp4")
    for number, label in to_labels([masklet(boxes([(1, 1)] * 2, SIZE))], SIZE).items():
        sample.frames[number] = fo.Frame(sam=label)
    dataset.add_sample(sample)
    assert read_masklets(sample, "sam") == [masklet(boxes([(1, 1)] * 2, SIZE))]


def test_masks_on_disk(dataset, tmp_path):
    sample = video_sample(dataset)
    written = masklet(boxes([(1, 1)], SIZE))
    write_masklets(sample, "model", [written])
    detection = sample.frames[1].model.detections[0]
    detection.export_mask(str(tmp_path / "mask.png"), update=True)
    sample.save()
    assert read_masklets(sample, "model") == [written]


def test_an_edited_box_stretches_its_mask(dataset, tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=2, size=SIZE)
    sample = video_sample(dataset, path)
    write_masklets(sample, "model", [masklet(boxes([(1, 1), (1, 1)], SIZE))])
    sample.frames[1].model.detections[0].bounding_box = [0.1, 0.1, 0.2, 0.3]
    sample.save()
    (read,) = read_masklets(sample, "model")
    assert read.size == SIZE
    assert read.mask(0).sum() == 6 * 6
    np.testing.assert_array_equal(read.mask(1), boxes([(1, 1)], SIZE)[0])


def test_metadata_of_a_turned_video(dataset, tmp_path):
    """FiftyOne knows the size before the rotation; without any mask, the file tells the right one."""
    path = write_video(tmp_path / "a.mp4", num_frames=2, size=SIZE)
    sample = video_sample(dataset, path)
    sample.metadata.frame_width, sample.metadata.frame_height = SIZE
    sample.save()
    nothing = masklet(boxes([(0, 0)] * 2, SIZE, num_objects=0))
    assert write_and_read(sample, nothing) == [nothing]


def test_boxes_without_masks(dataset):
    sample = video_sample(dataset)
    box = fo.Detection(label="dog", bounding_box=[0, 0, 1, 1], expression_id="0")
    sample.frames[1] = fo.Frame(boxes=fo.Detections(detections=[box]))
    sample.save()
    with pytest.raises(FieldError, match="of expression '0' is a box without a mask; masklets need masks"):
        read_masklets(sample, "boxes")


def test_two_masks_of_one_object(dataset):
    sample = video_sample(dataset)
    labels = to_labels([masklet(boxes([(1, 1)], SIZE, num_objects=2))], SIZE)[1]
    labels.detections[1].object_id = "1"
    sample.frames[1] = fo.Frame(twice=labels)
    sample.save()
    with pytest.raises(FieldError, match="frame 1 of 'twice' has two masks of object '1' of expression '0'"):
        read_masklets(sample, "twice")
