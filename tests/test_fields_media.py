"""The frames of a sample: exact images before the App's mp4, and clips of both."""

import re

import fiftyone as fo
import pytest

from fiftyone_refvos.fields import FieldError, add_expressions, canvas_size, frame_source
from fiftyone_refvos.fields.scores import media_name, media_names
from tests.fields_data import write_images, write_video


def greys(source):
    """What the test videos show: frame k has the grey value 10 k."""
    return [round(int(frame[0, 0, 0]) / 10) for frame in source.read(range(len(source)))]


@pytest.fixture
def video_sample(dataset, tmp_path):
    path = write_video(tmp_path / "a.mp4", num_frames=6, size=(48, 64))
    dataset.add_sample(fo.Sample(filepath=str(path)))
    return dataset.first()


def test_a_video(video_sample):
    source = frame_source(video_sample)
    assert (len(source), source.size) == (6, (48, 64))
    assert greys(source) == [0, 1, 2, 3, 4, 5]
    assert canvas_size(video_sample, source.size) == (48, 64)


def test_a_folder_dataset(dataset, tmp_path):
    """The images win over the mp4, in the order of their names; the App shows a padded picture."""
    path = write_video(tmp_path / "a.mp4", num_frames=3, size=(48, 64))
    names = write_images(tmp_path / "frames", num_frames=4, size=(47, 63))
    sample = fo.Sample(filepath=str(path), frames_dir=str(tmp_path / "frames"), frame_names=names[::-1])
    dataset.add_sample(sample)
    source = frame_source(sample)
    assert source.size == (47, 63)
    assert greys(source) == [3, 2, 1, 0]
    assert canvas_size(sample, source.size) == (48, 64)


def test_a_clip_of_a_video(dataset, video_sample):
    (clip,) = dataset.to_clips([[(3, 5)]])
    source = frame_source(clip)
    assert len(source) == 3
    assert greys(source) == [2, 3, 4]


def test_a_clip_of_a_folder_dataset(dataset, tmp_path):
    """The view of clips does not even have the fields with the folder and its names."""
    names = write_images(tmp_path / "frames", num_frames=4, size=(47, 63))
    sample = fo.Sample(filepath="/videos/a.mp4", frames_dir=str(tmp_path / "frames"), frame_names=names)
    dataset.add_sample(sample)
    (clip,) = dataset.to_clips([[(2, 3)]])
    assert greys(frame_source(clip)) == [1, 2]
    assert canvas_size(clip, (47, 63)) == (48, 64)


def test_a_clip_that_promises_too_many_frames(dataset, video_sample):
    (clip,) = dataset.to_clips([[(5, 8)]])
    assert greys(frame_source(clip)) == [4, 5]


def test_an_image(dataset, tmp_path):
    write_images(tmp_path / "images", num_frames=2, size=(47, 63))
    sample = fo.Sample(filepath=str(tmp_path / "images" / "00001.png"))
    dataset.add_sample(sample)
    source = frame_source(sample)
    assert greys(source) == [1]
    assert canvas_size(sample, source.size) == (47, 63)


def test_support_of_expressions_without_metadata(dataset, video_sample):
    assert video_sample.metadata is None
    add_expressions(video_sample, "the dog")
    assert dataset.first().expressions.detections[0].support == [1, 6]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "(/videos/none.mp4): the file does not exist; put it back or mend sample.filepath"),
        (
            {"frames_dir": "/videos/none", "frame_names": ["0.png"]},
            "(/videos/none.mp4) has its exact frames in /videos/none, which does not exist: put the folder",
        ),
    ],
)
def test_missing_files(dataset, fields, message):
    sample = fo.Sample(filepath="/videos/none.mp4", **fields)
    dataset.add_sample(sample)
    with pytest.raises(FieldError, match=re.escape(message)):
        frame_source(sample)


def test_samples_without_frames_of_their_own(dataset):
    dataset.add_sample(fo.Sample(filepath="/a.png", boxes=fo.Detections(detections=[fo.Detection()])))
    with pytest.raises(FieldError, match="belongs to a view of patches or frames: pass samples of the dataset"):
        frame_source(dataset.to_patches("boxes").first())


def test_names_of_videos_one_by_one_and_all_at_once(dataset):
    dataset.add_samples(
        [
            fo.Sample("/videos/a.mp4"),
            fo.Sample("/videos/b.mp4", frames_dir="/frames/bb"),
            fo.Sample("/videos/c.mp4", frames_dir="/frames/cc", video_name="UVO/all/c"),
        ]
    )
    assert media_names(dataset) == [media_name(sample) for sample in dataset] == ["a", "bb", "UVO/all/c"]
    assert media_names(dataset.skip(1)) == ["bb", "UVO/all/c"]
