"""Answers, captions with masks and captions of regions, written into real datasets."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

import fiftyone_refvos as rv
from fiftyone_refvos import fields, run_records
from fiftyone_refvos.demo import DemoConfig
from fiftyone_refvos.models.sa2va.chat import Sa2vaChat
from fiftyone_refvos.models.sa2va.regions import Box, Points
from tests.scripted_sa2va import GROUNDED, scripted_sa2va
from tests.small import glus_tiny, noise_video

BALL, COLOUR = "A red ball.<|im_end|>", "It is red.<|im_end|>"
SIZE = (48, 80)
PICTURES = noise_video(2, SIZE).frames
DEMO = DemoConfig(height=96, width=160, num_frames=8, max_per_kind=1)


@pytest.fixture
def images(dataset: fo.Dataset, tmp_path: Path) -> fo.Dataset:
    """Two pictures of noise."""
    for number, picture in enumerate(PICTURES):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    dataset.add_samples([fo.Sample(str(tmp_path / f"{number}.png")) for number in range(2)])
    return dataset


@pytest.fixture
def videos(tmp_path: Path, fiftyone_home: Path):
    """Two demo videos."""
    dataset = rv.demo.load(num_videos=2, config=DEMO, folder=tmp_path, name=f"test-{uuid4().hex[:12]}")
    yield dataset
    dataset.delete()


def test_images_are_asked_once_and_again_where_an_answer_is_missing(images: fo.Dataset) -> None:
    sa2va = scripted_sa2va(BALL)
    report = rv.ask(images, sa2va, "What is it?", answer_field="what")
    assert (report.num_samples, report.num_answers, report.num_skipped, report.failures) == (2, 2, 0, [])
    assert images.values("what") == ["A red ball."] * 2
    sample = images.first()
    sample["what"] = None
    sample.save()
    report = rv.ask(images, sa2va, "What is it?", answer_field="what")
    assert (report.num_samples, report.num_skipped) == (1, 1)
    assert images.values("what") == ["A red ball."] * 2
    record = run_records.recorded(images, "answers_what")
    assert record == {"name": "Sa2vaSegmenter", **sa2va.identity, "question": "What is it?"}
    assert "2 samples were complete" in str(rv.ask(images, sa2va, "What is it?", answer_field="what"))


def test_picture_that_cannot_be_read_is_listed_and_the_others_are_answered(images: fo.Dataset) -> None:
    broken = images.first()
    Path(broken.filepath).write_bytes(b"no picture")
    report = rv.ask(images, scripted_sa2va(BALL), "What is it?", answer_field="what")
    assert [failure.filepath for failure in report.failures] == [broken.filepath]
    assert "is no readable image" in report.failures[0].error
    assert images.values("what") == [None, "A red ball."]
    stored = images.load_run_results("answers_what")
    assert stored.num_samples == 1
    assert stored.failures[0]["sample_id"] == broken.id


def test_another_question_replaces_answers_only_when_told_and_nowhere_else(images: fo.Dataset) -> None:
    rv.ask(images, scripted_sa2va(BALL), "What is it?", answer_field="what")
    other = scripted_sa2va(COLOUR)
    with pytest.raises(rv.FieldExistsError, match=r"question was 'What is it\?' and is 'Which colour\?'"):
        rv.ask(images, other, "Which colour?", answer_field="what")
    with pytest.raises(rv.FieldExistsError, match="holds 1 answers about other samples"):
        rv.ask(images.limit(1), other, "Which colour?", answer_field="what", overwrite=True)
    assert images.values("what") == ["A red ball."] * 2
    rv.ask(images, other, "Which colour?", answer_field="what", overwrite=True)
    assert images.values("what") == ["It is red."] * 2


def test_fields_of_others_are_never_touched(images: fo.Dataset) -> None:
    images.set_values("theirs", ["a", "b"])
    images.set_values("boxes", [fo.Detections(), fo.Detections()])
    sa2va = scripted_sa2va(GROUNDED)
    for name in ("theirs", "filepath"):
        with pytest.raises(rv.FieldExistsError, match=f"'{name}' exists and holds no answers of ours"):
            rv.ask(images, sa2va, "What is it?", answer_field=name, overwrite=True)
    with pytest.raises(rv.FieldExistsError, match="'boxes' exists and was not made with the answers in 'said'"):
        rv.caption(images, sa2va, caption_field="said", label_field="boxes", overwrite=True)
    with pytest.raises(fields.FieldError, match="cannot hold both answers and masks"):
        rv.caption(images, sa2va, caption_field="said", label_field="said")
    with pytest.raises(fields.FieldError, match="cannot be a label field"):
        rv.ask(images, sa2va, "What is it?", answer_field="no field")
    assert not images.has_sample_field("said")
    assert images.values("theirs") == ["a", "b"]


def test_models_and_questions_that_cannot_answer_are_refused_before_anything_is_written(images: fo.Dataset) -> None:
    with pytest.raises(ValueError, match="'glus-tiny' answers no questions; models of Sa2VA do: sa2va-1b"):
        rv.ask(images, "glus-tiny", "What is it?", answer_field="what")
    with pytest.raises(ValueError, match="'GlusSegmenter' answers no questions"):
        rv.ask(images, glus_tiny(), "What is it?", answer_field="what")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the question is empty"):
        rv.ask(images, scripted_sa2va(BALL), "", answer_field="what")
    assert not images.has_sample_field("what")


def test_grounded_captions_of_images_are_texts_and_masks(images: fo.Dataset) -> None:
    sa2va = scripted_sa2va(GROUNDED)
    report = rv.caption(images, sa2va, caption_field="said", label_field="things")
    assert report.num_answers == 2
    assert images.values("said") == ["A red ball and the object in this image."] * 2
    for sample, picture in zip(images, PICTURES, strict=True):
        expected = Sa2vaChat(sa2va).describe_image(picture)
        shown = [n for n, mask in enumerate(expected.masks) if mask.any()]
        labels = [["red ball", "the object"][n] for n in shown]
        assert [each.label for each in sample.things.detections] == labels
        assert [each.index for each in sample.things.detections] == [n + 1 for n in shown]
        read = fields.read_regions(sample, "things", SIZE)
        for n, mask in zip(shown, read.values(), strict=True):
            assert isinstance(mask, np.ndarray)
            assert np.array_equal(mask, expected.masks[n])
        found = [each.confidence for each in sample.things.detections]
        assert found == pytest.approx(expected.scores[shown].tolist())
    rv.caption(images, sa2va, caption_field="said", label_field="things", overwrite=True)
    assert images.values("said") == ["A red ball and the object in this image."] * 2


def test_masks_of_a_question_are_labelled_with_it(images: fo.Dataset) -> None:
    sa2va = scripted_sa2va("Sure, [SEG].<|im_end|>")
    rv.ask(images, sa2va, "Please segment the ball.", answer_field="said", label_field="ball")
    assert images.distinct("ball.detections.label") == ["Please segment the ball."]
    rv.ask(images, sa2va, "Please segment the ball.", answer_field="only_said")
    assert images.values("only_said") == ["Sure, ."] * 2


def test_captions_of_videos_have_masklets_in_all_frames(videos: fo.Dataset) -> None:
    sa2va = scripted_sa2va(GROUNDED)
    report = rv.caption(videos, sa2va, caption_field="said", label_field="things")
    assert (report.num_answers, report.failures) == (2, [])
    sample = videos.first()
    expected = Sa2vaChat(sa2va).describe_video(fields.frame_source(sample)).masklets
    dense = [list(masklet.dense()) for masklet in expected]
    instances: dict[str, set[str]] = {}
    assert len(sample.frames) == 8
    for number, frame in sample.frames.items():
        shown = [n for n in range(2) if dense[n][number - 1].any()]
        assert [each.label for each in frame.things.detections] == [["red ball", "the object"][n] for n in shown]
        for each in frame.things.detections:
            instances.setdefault(each.label, set()).add(each.instance.id)
    assert all(len(found) == 1 for found in instances.values())
    assert not videos.has_frame_field("things.detections.expression_id")


def test_videos_get_text_answers_and_empty_lists_where_nothing_is_shown(videos: fo.Dataset) -> None:
    rv.ask(videos, scripted_sa2va(BALL), "What is it?", answer_field="what", label_field="shown")
    assert videos.values("what") == ["A red ball."] * 2
    assert videos.values("frames.shown.detections") == [[[]] * 8] * 2
    clips = videos.to_clips("expressions")
    with pytest.raises(fields.FieldError, match="holds a view of frames, patches or clips"):
        rv.ask(clips, scripted_sa2va(BALL), "What is it?", answer_field="clip")


def add_regions(images: fo.Dataset) -> None:
    mask = np.ones((6, 10), dtype=bool)
    masked = fo.Detection(label="m", bounding_box=[0.5, 0.5, 10 / 80, 6 / 48], mask=mask)
    box = fo.Detection(label="b", bounding_box=[0.25, 0.125, 0.5, 0.25])
    images.set_values("boxes", [fo.Detections(detections=[masked, box]), None])
    points = fo.Keypoint(label="p", points=[(0.5, 0.5), (float("nan"), float("nan")), (1.0, 1.0)])
    images.set_values("points", [fo.Keypoints(keypoints=[points]), None])


def test_masks_boxes_and_points_of_a_field_are_regions_in_pixels(images: fo.Dataset) -> None:
    add_regions(images)
    mask, box = fields.read_regions(images.first(), "boxes", SIZE).values()
    assert isinstance(mask, np.ndarray)
    assert mask.sum() == 60
    assert mask[24:30, 40:50].all()
    assert box == Box(20, 6, 60, 18)
    (points,) = fields.read_regions(images.first(), "points", SIZE).values()
    assert points == Points(((40, 24), (79, 47)))
    assert fields.read_regions(images.last(), "points", SIZE) == {}


def test_regions_get_captions_and_only_those_that_have_none(images: fo.Dataset) -> None:
    add_regions(images)
    report = rv.caption_regions(images, scripted_sa2va(BALL), regions_field="boxes")
    assert (report.num_samples, report.num_answers, report.num_skipped) == (1, 2, 1)
    assert images.values("boxes.detections.caption") == [["A red ball."] * 2, None]
    sample = images.first()
    sample.boxes.detections.append(fo.Detection(label="new", bounding_box=[0, 0, 0.5, 0.5]))
    sample.save()
    report = rv.caption_regions(images, scripted_sa2va(COLOUR), regions_field="boxes")
    assert (report.num_answers, report.failures) == (1, [])
    assert images.first().boxes.detections[2].caption == "It is red."
    assert images.values("boxes.detections.label")[0] == ["m", "b", "new"]
    rv.caption_regions(images, scripted_sa2va(COLOUR), regions_field="boxes", overwrite=True)
    assert images.values("boxes.detections.caption") == [["It is red."] * 3, None]
    rv.caption_regions(images, scripted_sa2va(BALL), regions_field="points", attribute="what")
    assert images.values("points.keypoints.what") == [["A red ball."], None]


def test_regions_that_cannot_be_captioned_are_named(images: fo.Dataset) -> None:
    add_regions(images)
    sa2va = scripted_sa2va(BALL)
    with pytest.raises(fields.FieldError, match=r"in 'gone' .*it has them in boxes, points"):
        rv.caption_regions(images, sa2va, regions_field="gone")
    with pytest.raises(rv.FieldExistsError, match=r"'boxes\.detections\.label' exists and holds no answers of ours"):
        rv.caption_regions(images, sa2va, regions_field="boxes", attribute="label")
    report = rv.caption_regions(images, scripted_sa2va(BALL, case="qwen2_5_vl_a"), regions_field="boxes")
    assert [failure.filepath for failure in report.failures] == [images.first().filepath]
    assert "only InternVL bases know them" in report.failures[0].error


def test_regions_of_videos_are_captioned_in_images_of_their_frames(videos: fo.Dataset, tmp_path: Path) -> None:
    sa2va = scripted_sa2va(BALL)
    with pytest.raises(fields.FieldError, match=r"regions are captioned in images.*to_frames\(sample_frames=True\)"):
        rv.caption_regions(videos, sa2va, regions_field="ground_truth")
    images = videos.limit(1).to_frames(sample_frames=True, output_dir=str(tmp_path / "frames")).clone()
    report = rv.caption_regions(images.limit(2), sa2va, regions_field="ground_truth")
    assert (report.num_samples, report.failures) == (2, [])
    assert images.distinct("ground_truth.detections.caption") == ["A red ball."]
    images.delete()
