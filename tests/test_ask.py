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
from fiftyone_refvos.image_files import read_image
from fiftyone_refvos.models.registry import ANSWERING
from fiftyone_refvos.models.sa2va.regions import Box, Points
from tests.scripted_sa2va import GROUNDED, scripted_sa2va
from tests.scripted_zoo import chat, saying
from tests.small import glus_tiny, noise_video

SEGMENTED = "Sure, [SEG].<|im_end|>"
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
    sa2va = saying(BALL)
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
    assert record == {**sa2va.identity, "question": "What is it?"}
    assert "2 samples were complete" in str(rv.ask(images, sa2va, "What is it?", answer_field="what"))


def test_picture_that_cannot_be_read_is_listed_and_the_others_are_answered(images: fo.Dataset) -> None:
    broken = images.first()
    Path(broken.filepath).write_bytes(b"no picture")
    report = rv.ask(images, saying(BALL), "What is it?", answer_field="what")
    assert [failure.filepath for failure in report.failures] == [broken.filepath]
    assert "is no readable image" in report.failures[0].error
    assert images.values("what") == [None, "A red ball."]
    stored = images.load_run_results("answers_what")
    assert stored.num_samples == 1
    assert stored.failures[0]["sample_id"] == broken.id


def test_another_question_replaces_answers_only_when_told_and_nowhere_else(images: fo.Dataset) -> None:
    rv.ask(images, saying(BALL), "What is it?", answer_field="what")
    other = saying(COLOUR)
    with pytest.raises(rv.FieldExistsError, match=r"question was 'What is it\?' and is 'Which colour\?'"):
        rv.ask(images, other, "Which colour?", answer_field="what")
    with pytest.raises(rv.FieldExistsError, match="holds 1 answers about others than these"):
        rv.ask(images.limit(1), other, "Which colour?", answer_field="what", overwrite=True)
    assert images.values("what") == ["A red ball."] * 2
    rv.ask(images, other, "Which colour?", answer_field="what", overwrite=True)
    assert images.values("what") == ["It is red."] * 2


def test_fields_of_others_are_never_touched(images: fo.Dataset) -> None:
    images.set_values("theirs", ["a", "b"])
    images.set_values("boxes", [fo.Detections(), fo.Detections()])
    sa2va = saying(GROUNDED)
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
    with pytest.raises(ValueError, match=f"'glus-tiny' answers no questions; models of Sa2VA do: {ANSWERING[0]}"):
        rv.ask(images, "glus-tiny", "What is it?", answer_field="what")
    with pytest.raises(ValueError, match="'GlusSegmenter' answers no questions"):
        rv.ask(images, glus_tiny(), "What is it?", answer_field="what")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the question is empty"):
        rv.ask(images, saying(BALL), "", answer_field="what")
    assert not images.has_sample_field("what")


def test_grounded_captions_of_images_are_texts_and_masks(images: fo.Dataset) -> None:
    sa2va = saying(GROUNDED)
    report = rv.caption(images, sa2va, caption_field="said", label_field="things")
    assert report.num_answers == 2
    assert images.values("said") == ["A red ball and the object in this image."] * 2
    for sample, picture in zip(images, PICTURES, strict=True):
        expected = chat(sa2va).describe_image(picture)
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
    sa2va = saying(SEGMENTED)
    rv.ask(images, sa2va, "Please segment the ball.", answer_field="said", label_field="ball")
    assert images.distinct("ball.detections.label") == ["Please segment the ball."]
    rv.ask(images, sa2va, "Please segment the ball.", answer_field="only_said")
    assert images.values("only_said") == ["Sure, ."] * 2


def test_captions_of_videos_have_masklets_in_all_frames(videos: fo.Dataset) -> None:
    sa2va = saying(GROUNDED)
    report = rv.caption(videos, sa2va, caption_field="said", label_field="things")
    assert (report.num_answers, report.failures) == (2, [])
    sample = videos.first()
    expected = chat(sa2va).describe_video(fields.frame_source(sample)).masklets
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
    rv.ask(videos, saying(BALL), "What is it?", answer_field="what", label_field="shown")
    assert videos.values("what") == ["A red ball."] * 2
    assert videos.values("frames.shown.detections") == [[[]] * 8] * 2
    clips = videos.to_clips("expressions")
    with pytest.raises(fields.FieldError, match="holds a view of frames, patches or clips"):
        rv.ask(clips, saying(BALL), "What is it?", answer_field="clip")


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
    report = rv.caption_regions(images, saying(BALL), regions_field="boxes")
    assert (report.num_samples, report.num_answers, report.num_skipped) == (1, 2, 1)
    assert images.values("boxes.detections.caption") == [["A red ball."] * 2, None]
    sample = images.first()
    sample.boxes.detections.append(fo.Detection(label="new", bounding_box=[0, 0, 0.5, 0.5]))
    sample.save()
    report = rv.caption_regions(images, saying(COLOUR), regions_field="boxes")
    assert (report.num_answers, report.failures) == (1, [])
    assert images.first().boxes.detections[2].caption == "It is red."
    assert images.values("boxes.detections.label")[0] == ["m", "b", "new"]
    rv.caption_regions(images, saying(COLOUR), regions_field="boxes", overwrite=True)
    assert images.values("boxes.detections.caption") == [["It is red."] * 3, None]
    rv.caption_regions(images, saying(BALL), regions_field="points", attribute="what")
    assert images.values("points.keypoints.what") == [["A red ball."], None]


def test_regions_that_cannot_be_captioned_are_named(images: fo.Dataset) -> None:
    add_regions(images)
    sa2va = saying(BALL)
    with pytest.raises(fields.FieldError, match=r"in 'gone' .*it has them in boxes, points"):
        rv.caption_regions(images, sa2va, regions_field="gone")
    with pytest.raises(rv.FieldExistsError, match=r"'boxes\.detections\.label' exists and holds no answers of ours"):
        rv.caption_regions(images, sa2va, regions_field="boxes", attribute="label")
    report = rv.caption_regions(images, saying(BALL, case="qwen2_5_vl_a"), regions_field="boxes")
    assert [failure.filepath for failure in report.failures] == [images.first().filepath]
    assert "only InternVL bases know them" in report.failures[0].error


def test_regions_of_videos_are_captioned_in_images_of_their_frames(videos: fo.Dataset, tmp_path: Path) -> None:
    sa2va = saying(BALL)
    with pytest.raises(fields.FieldError, match=r"regions are captioned in images.*to_frames\(sample_frames=True\)"):
        rv.caption_regions(videos, sa2va, regions_field="ground_truth")
    images = videos.limit(1).to_frames(sample_frames=True, output_dir=str(tmp_path / "frames")).clone()
    report = rv.caption_regions(images.limit(2), sa2va, regions_field="ground_truth")
    assert (report.num_samples, report.failures) == (2, [])
    assert images.distinct("ground_truth.detections.caption") == ["A red ball."]
    images.delete()


def test_undeclared_captions_of_others_are_never_touched(images: fo.Dataset) -> None:
    add_regions(images)
    sample = images.first()
    sample.boxes.detections[1]["caption"] = "MINE"
    sample.save()
    assert images.get_field("boxes.detections.caption") is None
    for overwrite in (False, True):
        with pytest.raises(rv.FieldExistsError, match=r"'boxes\.detections\.caption' exists and holds no answers"):
            rv.caption_regions(images, saying(BALL), regions_field="boxes", overwrite=overwrite)
    assert images.first().boxes.detections[1].caption == "MINE"


def test_an_answer_is_overwritten_once_there_is_a_new_one_and_a_second_call_goes_on(images: fo.Dataset) -> None:
    where = {"answer_field": "what", "label_field": "where"}
    rv.ask(images, saying(SEGMENTED), "Where is it?", **where)  # type: ignore[arg-type]
    former = images.values("where.detections.id")
    assert all(former)
    broken = Path(images.first().filepath)
    picture = broken.read_bytes()
    broken.write_bytes(b"no picture")
    other = saying(BALL)
    report = rv.ask(images, other, "What is it?", overwrite=True, **where)  # type: ignore[arg-type]
    assert [failure.filepath for failure in report.failures] == [str(broken)]
    assert images.values("what") == ["Sure, .", "A red ball."]
    assert images.values("where.detections.id") == [former[0], []]
    broken.write_bytes(picture)
    report = rv.ask(images, other, "What is it?", **where)  # type: ignore[arg-type]
    assert (report.num_samples, report.num_skipped, report.failures) == (1, 1, [])
    assert images.values("what") == ["A red ball."] * 2
    assert images.values("where.detections.id") == [[], []]
    assert rv.ask(images, other, "What is it?", **where).num_skipped == 2  # type: ignore[arg-type]


def test_interrupted_overwriting_of_captions_loses_none_and_goes_on(images: fo.Dataset) -> None:
    for sample in images:
        sample["boxes"] = fo.Detections(detections=[fo.Detection(label="b", bounding_box=[0.25, 0.25, 0.5, 0.5])])
        sample.save()
    rv.caption_regions(images, saying(BALL), regions_field="boxes")

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    other = saying(COLOUR, checkpoint="/weights/other")
    with pytest.raises(KeyboardInterrupt):
        rv.caption_regions(images, other, regions_field="boxes", overwrite=True, progress=interrupt)
    assert images.values("boxes.detections.caption") == [["It is red."], ["A red ball."]]
    report = rv.caption_regions(images, other, regions_field="boxes")
    assert (report.num_answers, report.num_skipped) == (1, 1)
    assert images.values("boxes.detections.caption") == [["It is red."]] * 2


def test_fields_of_others_that_are_called_as_our_marks_are_never_touched(images: fo.Dataset) -> None:
    rv.ask(images, saying(BALL), "What is it?", answer_field="what")
    images.add_sample_field("what_outdated", fo.BooleanField)
    images.set_values("what_outdated", [True, False])
    for overwrite in (False, True):
        with pytest.raises(fields.FieldError, match="'what_outdated' is where answers in 'what' are marked"):
            rv.ask(images, saying(COLOUR), "What is it?", answer_field="what", overwrite=overwrite)
    assert images.values("what_outdated") == [True, False]
    add_regions(images)
    sample = images.first()
    sample.boxes.detections[0]["words_outdated"] = "mine"  # no field is declared for it
    sample.save()
    with pytest.raises(fields.FieldError, match=r"'boxes.detections.words_outdated' is where"):
        rv.caption_regions(images, saying(BALL), regions_field="boxes", attribute="words")
    assert run_records.recorded(images, "regions_boxes_words") is None


def test_regions_that_a_view_does_not_show_are_left_alone(images: fo.Dataset) -> None:
    add_regions(images)
    view = images.filter_labels("boxes", fo.ViewField("label") == "b")
    assert rv.caption_regions(view, saying(BALL), regions_field="boxes").num_answers == 1
    assert images.values("boxes.detections.caption") == [[None, "A red ball."], None]
    rv.caption_regions(images, saying(BALL), regions_field="boxes")
    view.reload()
    assert rv.caption_regions(view, saying(COLOUR), regions_field="boxes", overwrite=True).num_answers == 1
    assert images.values("boxes.detections.caption") == [["A red ball.", "It is red."], None]
    assert images.values("boxes.detections.label")[0] == ["m", "b"]
    other = saying(COLOUR, checkpoint="/weights/other")
    with pytest.raises(rv.FieldExistsError, match="holds 1 answers about others than these"):
        rv.caption_regions(view, other, regions_field="boxes", overwrite=True)


def test_answers_of_two_checkpoints_are_never_mixed(images: fo.Dataset) -> None:
    with pytest.raises(ValueError, match="a Sa2vaSegmenter alone does not say which weights it has"):
        rv.ask(images, scripted_sa2va(BALL), "What is it?", answer_field="what")  # type: ignore[arg-type]
    rv.ask(images, saying(BALL), "What is it?", answer_field="what")
    with pytest.raises(rv.FieldExistsError, match="checkpoint was '/weights/scripted' and is '/weights/other'"):
        rv.ask(images, saying(BALL, checkpoint="/weights/other"), "What is it?", answer_field="what")


def test_points_outside_of_an_image_are_named_and_its_other_regions_are_captioned(images: fo.Dataset) -> None:
    nan = float("nan")
    places = [[(0.5, 0.5)], [(1.25, 0.5)], [(nan, nan)], [(1.0, 1.0)]]
    points = [fo.Keypoint(label="p", points=each) for each in places]
    images.set_values("points", [fo.Keypoints(keypoints=points), None])
    report = rv.caption_regions(images, saying(BALL), regions_field="points")
    assert (report.num_samples, report.num_answers, report.num_skipped) == (1, 2, 1)
    (failure,) = report.failures
    assert failure.filepath == images.first().filepath
    assert f"label {points[1].id} has the point (100.0, 24.0), outside of the image of 80x48" in failure.error
    assert f"label {points[2].id} has no points" in failure.error
    assert images.values("points.keypoints.caption") == [["A red ball.", None, None, "A red ball."], None]


def test_a_mask_without_a_phrase_is_labelled_alike_in_images_and_videos(images: fo.Dataset) -> None:
    sa2va, question = saying(SEGMENTED), "\n Please segment the ball. "
    rv.ask(images, sa2va, question, answer_field="said", label_field="ball")
    assert images.distinct("ball.detections.label") == ["Please segment the ball."]
    rv.caption(images, sa2va, caption_field="described", label_field="things")
    assert images.distinct("things.detections.label") == ["thing"]
    (asked,) = chat(sa2va).about_video(noise_video(2), question).masklets
    (described,) = chat(sa2va).describe_video(noise_video(2)).masklets
    assert (asked.expression.text, described.expression.text) == ("Please segment the ball.", "thing")


def test_overwriting_leaves_no_masks_in_the_former_label_field(images: fo.Dataset) -> None:
    sa2va = saying(SEGMENTED)
    rv.ask(images, sa2va, "Where is it?", answer_field="said", label_field="first")
    for label_field in ("second", None):
        with pytest.raises(rv.FieldExistsError, match=r"'first' holds the masks.*delete_sample_field\('first'\)"):
            rv.ask(images, sa2va, "Where is it?", answer_field="said", label_field=label_field, overwrite=True)
    assert not images.has_sample_field("second")
    images.delete_sample_field("first")
    rv.ask(images, sa2va, "Where is it?", answer_field="said", label_field="second", overwrite=True)
    assert all(images.values("second.detections"))


def test_records_of_answers_and_regions_are_told_apart(images: fo.Dataset) -> None:
    add_regions(images)
    images.clone_sample_field("boxes", "boxes_two")
    sa2va = saying(BALL)
    rv.ask(images, sa2va, "What is it?", answer_field="boxes_caption")
    rv.caption_regions(images, sa2va, regions_field="boxes", attribute="caption")
    assert rv.ask(images, sa2va, "What is it?", answer_field="boxes_caption").num_skipped == 2
    rv.caption_regions(images, sa2va, regions_field="boxes_two", attribute="words")
    with pytest.raises(rv.FieldExistsError, match=r"belongs to 'boxes_two\.detections\.words'"):
        rv.caption_regions(images, sa2va, regions_field="boxes", attribute="two_words")
    assert run_records.recorded(images, "regions_boxes_two_words") == {
        **sa2va.identity,
        "task": "region captions",
        "path": "boxes_two.detections.words",
    }


def test_a_turned_picture_is_asked_about_as_it_is_displayed(dataset: fo.Dataset, tmp_path: Path) -> None:
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(PICTURES[0]).save(path, exif=exif)
    dataset.add_sample(fo.Sample(str(path)))
    sa2va = saying(SEGMENTED)
    rv.ask(dataset, sa2va, "Where is it?", answer_field="said", label_field="where")
    expected = chat(sa2va).about_image(read_image(path), "Where is it?").masks[0]
    (mask,) = fields.read_regions(dataset.first(), "where", (80, 48)).values()
    assert isinstance(mask, np.ndarray)
    assert expected.shape == (80, 48)
    assert np.array_equal(mask, expected)
