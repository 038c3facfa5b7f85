"""`rv.describe_objects`: what is written, and what cannot be described."""

from __future__ import annotations

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.describing import PromptError, ServerChat
from fiftyone_refvos.fields import FieldError
from tests.chats import agreeing, chat_server
from tests.described import FRAMES, SIZE, add_videos, expressions, masks, records
from tests.fields_data import boxes, masklet


@pytest.fixture
def videos(dataset, tmp_path) -> fo.Dataset:
    """Two videos with three objects each."""
    return add_videos(dataset, tmp_path)


def columns_of(images) -> str:
    """Looks at the outlined picture: where the yellow begins."""
    yellow = (images[0] == (255, 255, 0)).all(axis=-1)
    return f"the car at {int(np.flatnonzero(yellow.any(axis=0))[0]) + 1}"


def test_unnamed_objects_get_an_expression_with_all_it_rests_on(videos) -> None:
    before = videos.values("frames.ground_truth.detections.mask")
    report = rv.describe_objects(videos, agreeing(scene=columns_of, video="runs"))
    assert (report.num_videos, report.num_objects, report.num_expressions, report.failures) == (2, 4, 4, [])
    assert report.num_repeated == 2  # "runs", twice in each video
    human, second, third = expressions(videos)[:3]
    assert (human.label, human.kind, human.expression_id) == ("the first car", "prompt", "0")
    assert (second.label, second.kind, second.expression_id) == ("runs", "generated", "1")
    assert (second.object_ids, second.no_target, second.support) == (["2"], False, [1, 4])
    assert (second.stage, second.verdict) == ("video", "consistent")
    assert [each["step"] for each in second.stage_answers] == ["crop", "full", "check", "scene", "video"]
    assert second.stage_answers[3] == {
        "step": "scene",
        "prompt": "refvos-en/scene",
        "answer": "the car at 12",
        "verdict": None,
    }
    assert third.stage_answers[3]["answer"] == "the car at 20"
    sample = videos.first()
    assert masks(sample) == [("1", "0", "the first car", 1), ("2", "1", "runs", 2), ("3", "2", "runs", 3)]
    assert sample.frames[2].ground_truth.detections[1].category == "car"
    assert videos.values("frames.ground_truth.detections.mask")[0][0][0].tolist() == before[0][0][0].tolist()
    found = fields.read_masklets(sample, "ground_truth")
    assert [each.expression.text for each in found] == ["the first car", "runs", "runs"]
    assert found[2].found.tolist() == [False, True, True, False]
    record = records(sample)["3"]
    assert (record.label, record.support, record.expression_ids, record.stages) == (
        "described",
        [2, 3],
        ["2"],
        ["video"],
    )
    info = videos.get_run_info("describe_ground_truth")
    assert (info.config.method, info.config.model["chat"]) == ("refvos_describe_objects", "rules")
    assert info.config.model["prompts"] == "refvos-en"
    assert videos.load_run_results("describe_ground_truth").num_expressions == 4


def test_all_objects_and_views(videos) -> None:
    report = rv.describe_objects(videos.limit(1), agreeing(), objects="all", stages=["scene"])
    assert report.num_expressions == 3
    of_first = [each[1:3] for each in masks(videos.first()) if each[0] == "1"]
    assert of_first == [("0", "the first car"), ("1", "the red disc left of the tree")]
    third = videos.skip(1).filter_labels("frames.ground_truth", F("object_id") == "3")
    assert rv.describe_objects(third, agreeing()).num_expressions == 1
    assert [each.object_ids for each in expressions(videos) if each.kind == "generated"][-1] == ["3"]


def test_masks_without_object_ids_are_numbered(videos) -> None:
    videos.set_field("frames.ground_truth.detections.object_id", None).save()
    videos.set_field("frames.ground_truth.detections.expression_id", None).save()
    assert rv.describe_objects(videos.limit(1), agreeing()).num_expressions == 3
    videos.reload()
    assert [each[0] for each in masks(videos.first())] == ["1", "2", "3"]
    assert [each[0] for each in masks(videos.first(), 1)] == ["1", "2"]


def test_videos_that_cannot_be_read(videos, tmp_path) -> None:
    (tmp_path / "0" / "00000.png").unlink()
    report = rv.describe_objects(videos, agreeing())
    assert [(each.filepath, each.object_id) for each in report.failures] == [(str(tmp_path / "0.mp4"), None)]
    assert "00000.png" in report.failures[0].error
    assert report.num_expressions == 2


def test_masklets_of_models_are_refused(videos) -> None:
    sample = videos.first()
    fields.add_expressions(sample, ["a", "b"])
    found = [
        masklet(boxes([(2, 3 + 5 * n)] * FRAMES, SIZE), expression=each)
        for n, each in enumerate(fields.read_expressions(sample))
    ]
    fields.write_masklets(sample, "model", found)
    report = rv.describe_objects(videos.limit(1), agreeing(), field="model", objects="all")
    assert "'frames.model' has several objects with the object_id '1'" in report.failures[0].error


def test_two_masks_of_an_object_in_a_frame_are_refused_before_anything_is_written(videos) -> None:
    sample = videos.first()
    for number in (1, 2):
        sample.frames[number].ground_truth.detections[0].object_id = None  # would be numbered
    twin = sample.frames[2].ground_truth.detections[1].copy()
    sample.frames[2].ground_truth.detections.append(twin)
    sample.save()
    before, chat = masks(videos.first()), agreeing()
    report = rv.describe_objects(videos.limit(1), chat)
    (failure,) = report.failures
    assert f"sample {sample.id}" in failure.error
    assert "has 2 masks of the object with the object_id '2' in frame 2" in failure.error
    videos.reload()
    assert masks(videos.first()) == before
    assert not chat.asked


def test_indices_that_expressions_count_for_themselves_are_refused_before_they_become_ids(videos) -> None:
    sample = videos.first()
    for frame in sample.frames.values():
        for n, each in enumerate(frame.ground_truth.detections):
            each.object_id, each.index, each.expression_id = None, 1, str(n)
    sample.save()
    report = rv.describe_objects(videos.limit(1), agreeing(), objects="all")
    assert "several objects with the index 1" in report.failures[0].error
    videos.reload()
    left = videos.first().frames[2].ground_truth.detections
    assert all(getattr(each, "object_id", None) is None for each in left)


def test_what_cannot_be_described(videos, dataset) -> None:
    chat = agreeing()
    with pytest.raises(FieldError, match="objects of whole videos can be described, but .* holds clips"):
        rv.describe_objects(videos.to_clips([[(1, 2)], [(1, 2)]]), chat)
    with pytest.raises(FieldError, match="nothing"):
        rv.describe_objects(videos, chat, field="nothing")
    with pytest.raises(ValueError, match="stages is \\('all',\\), but has to name some of object, scene, video"):
        rv.describe_objects(videos, chat, stages=["all"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="objects is 'some'"):
        rv.describe_objects(videos, chat, objects="some")  # type: ignore[arg-type]
    with pytest.raises(PromptError):
        rv.describe_objects(videos, chat, prompts="/nowhere/prompts.yaml")
    videos.add_sample_field("ground_truth_descriptions", fo.StringField)
    with pytest.raises(FieldError, match="'ground_truth_descriptions' does not hold TemporalDetections"):
        rv.describe_objects(videos, chat)
    assert not chat.asked
    assert not videos.has_run("describe_ground_truth")


def test_no_record_holds_the_key(videos, monkeypatch, caplog) -> None:
    caplog.set_level("DEBUG")
    with chat_server((401, "the key s3cret is not known")) as server:
        chat = ServerChat(server.address, "m", key_variable="SOME_KEY")
        for key in ("s3cret\n", "s3cret\nmore"):
            monkeypatch.setenv("SOME_KEY", key)
            report = rv.describe_objects(videos.limit(1), chat)
            assert len(report.failures) == 2
            results = videos.load_run_results("describe_ground_truth").serialize()
            assert "s3cret" not in f"{report} {videos.first().to_dict()} {results} {caplog.text}"
        assert len(server.requests) == 2


def test_fields_whose_expressions_tell_which_frames_they_cover(videos) -> None:
    sample = videos.first()
    found = boxes([(2, 3), (2, 4), (2, 5), (2, 6)], SIZE)
    found[0] = False
    (human,) = fields.read_expressions(sample)
    fields.write_masklets(sample, "model", [masklet(found, expression=human)])
    assert rv.describe_objects(videos.limit(1), agreeing(), field="model", objects="all").num_expressions == 1
    named, generated = fields.read_masklets(videos.first(), "model")
    assert (named.frames, generated.frames) == ((0, 1, 2, 3), (1, 2, 3))
    assert generated.expression.text == "the red disc that rolls to the tree"
    assert generated.masks == named.masks[1:]
    assert fields.stale_expressions(videos.first(), "model") == set()


def test_images_are_refused(dataset) -> None:
    dataset.add_sample(fo.Sample(filepath="/images/a.png"))
    with pytest.raises(FieldError, match="holds image samples: pass the video dataset"):
        rv.describe_objects(dataset, agreeing())
