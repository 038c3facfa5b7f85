"""`rv.describe_objects`: what is written, what is asked, and how a run goes on."""

from __future__ import annotations

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.describing import PromptError, ServerChat
from fiftyone_refvos.fields import FieldError
from fiftyone_refvos.fields.naming import name_masks
from tests.chats import UNREACHABLE, agreeing, chat_server, said
from tests.fields_data import boxes, masklet, write_images

SIZE, FRAMES = (20, 30), 4
COLUMNS = {"1": 3, "2": 12, "3": 20}


def truth(number: int, named: dict[str, str], instances: dict[str, fo.Instance]) -> list[fo.Detection]:
    """In frame `number` three squares in a row, the third in frames 2 and 3 alone."""
    found = []
    for index, (object_id, column) in enumerate(COLUMNS.items(), start=1):
        if object_id == "3" and number not in (2, 3):
            continue
        box = [column / SIZE[1], 5 / SIZE[0], 4 / SIZE[1], 4 / SIZE[0]]
        found.append(
            fo.Detection(
                label=named.get(object_id, "car"),
                bounding_box=box,
                mask=np.ones((4, 4), dtype=bool),
                index=index,
                instance=instances[object_id],
                object_id=object_id,
                expression_id="0" if object_id in named else None,
            )
        )
    return found


@pytest.fixture
def videos(dataset, tmp_path) -> fo.Dataset:
    """Two videos with three objects each; a human has named object 1."""
    for k in range(2):
        names = write_images(tmp_path / str(k), num_frames=FRAMES, size=SIZE)
        sample = fo.Sample(
            filepath=str(tmp_path / f"{k}.mp4"),
            metadata=fo.VideoMetadata(total_frame_count=FRAMES),
            frames_dir=str(tmp_path / str(k)),
            frame_names=names,
            frame_size=[SIZE[1], SIZE[0]],
        )
        instances = {object_id: fo.Instance() for object_id in COLUMNS}
        for number in range(1, FRAMES + 1):
            detections = truth(number, {"1": "the first car"}, instances)
            sample.frames[number] = fo.Frame(ground_truth=fo.Detections(detections=detections))
        dataset.add_sample(sample)
        fields.add_expressions(sample, "the first car")
    return dataset


def columns_of(images) -> str:
    """Looks at the outlined picture: where the yellow begins."""
    yellow = (images[0] == (255, 255, 0)).all(axis=-1)
    return f"the car at {int(np.flatnonzero(yellow.any(axis=0))[0]) + 1}"


def expressions(dataset: fo.Dataset) -> list[fo.TemporalDetection]:
    dataset.reload()
    return [each for sample in dataset for each in sample.expressions.detections]


def records(sample: fo.Sample) -> dict[str, fo.TemporalDetection]:
    return {each.object_id: each for each in sample.ground_truth_descriptions.detections}


def masks(sample: fo.Sample, number: int = 2) -> list[tuple[str, str | None, str, int]]:
    return [
        (each.object_id, each.expression_id, each.label, each.index)
        for each in sample.frames[number].ground_truth.detections
    ]


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


def test_a_second_call_asks_nothing_and_further_stages_only_what_is_missing(videos) -> None:
    view = videos.limit(1)
    chat = agreeing()
    assert rv.describe_objects(view, chat, stages=["object"]).num_expressions == 2
    assert chat.steps == ["crop", "full", "check"] * 2
    again = rv.describe_objects(view, chat, stages=["object"])
    assert (again.num_skipped, again.num_expressions, len(chat.asked)) == (2, 0, 6)
    more = rv.describe_objects(view, chat, stages=["video", "scene"])
    assert chat.steps[6:] == ["scene", "video"] * 2
    assert more.num_objects == 2
    texts = [(each.expression_id, each.stage, each.label) for each in expressions(videos)[1:7]]
    assert [stage for _, stage, _ in texts[:2]] == ["object", "object"]
    assert [(id_, stage) for id_, stage, _ in texts[2:]] == [
        ("3", "scene"),
        ("4", "video"),
        ("5", "scene"),
        ("6", "video"),
    ]
    of_object = [each for each in masks(view.first()) if each[0] == "2"]
    assert [(id_, text) for _, id_, text, _ in of_object] == [
        ("1", "a red disc"),
        ("3", "the red disc left of the tree"),
        ("4", "the red disc that rolls to the tree"),
    ]
    tracks = [
        {each.index: each.instance.id for each in view.first().frames[number].ground_truth.detections}
        for number in (1, 2)
    ]
    assert tracks[0].items() <= tracks[1].items()
    assert len(tracks[1]) == 7
    assert rv.describe_objects(view, chat, stages=["video"]).num_skipped == 2


def test_a_corrected_text_stays_until_the_object_is_described_otherwise(videos) -> None:
    view, chat = videos.limit(1), agreeing()
    rv.describe_objects(view, chat, stages=["object"])
    sample = videos.first()
    sample.expressions.detections[1].label = "a crimson disc"
    sample.save()
    rv.describe_objects(view, chat, stages=["object", "scene"])
    assert expressions(videos)[1].label == "a crimson disc"
    of_object = [each[1:3] for each in masks(videos.first()) if each[0] == "2"]
    assert of_object == [("1", "a crimson disc"), ("3", "the red disc left of the tree")]
    rv.describe_objects(view, agreeing(crop="a pink disc"), stages=["object"], overwrite=True)
    assert expressions(videos)[1].label == "a pink disc"


def test_rejected_objects_keep_their_record_and_are_not_asked_again(videos) -> None:
    chat = agreeing(check="CONFLICT: one is a dog")
    report = rv.describe_objects(videos, chat)
    assert (report.num_rejected, report.num_expressions, report.num_objects) == (4, 0, 0)
    assert len(expressions(videos)) == 2
    record = records(videos.first())["2"]
    assert (record.label, record.expression_ids) == ("rejected", [])
    assert record.stage_answers[2]["answer"] == "CONFLICT: one is a dog"
    assert masks(videos.first())[1] == ("2", None, "car", 2)
    asked = len(chat.asked)
    again = rv.describe_objects(videos, chat)
    assert (again.num_skipped, len(chat.asked)) == (4, asked)
    rejected = videos.filter_labels("ground_truth_descriptions", F("label") == "rejected")
    assert rejected.count("ground_truth_descriptions.detections") == 4


def test_failures_are_listed_and_a_second_call_goes_on_after_the_last_answer(videos) -> None:
    chat = agreeing(scene=UNREACHABLE)
    report = rv.describe_objects(videos, chat)
    assert [(each.object_id, each.error) for each in report.failures[:2]] == [
        ("2", "ChatError: nobody is there"),
        ("3", "ChatError: nobody is there"),
    ]
    assert "object '2': ChatError: nobody is there" in str(report)
    assert len(expressions(videos)) == 2
    record = records(videos.first())["2"]
    assert (record.label, record.error, len(record.stage_answers)) == ("failed", "ChatError: nobody is there", 3)
    chat.answers["scene"] = "the car"
    chat.asked.clear()
    report = rv.describe_objects(videos, chat)
    assert (report.num_expressions, report.failures) == (4, [])
    assert chat.steps == ["scene", "video"] * 4
    assert records(videos.first())["2"].error is None


def test_a_stopped_run_goes_on(videos) -> None:
    def stop(images) -> str:
        raise KeyboardInterrupt

    chat = agreeing(video=stop)
    with pytest.raises(KeyboardInterrupt):
        rv.describe_objects(videos, chat)
    assert records(videos.first())["2"].label == "failed"
    chat.answers["video"] = "the car that rolls"
    chat.asked.clear()
    assert rv.describe_objects(videos, chat).num_expressions == 4
    assert chat.steps[:2] == ["video", "crop"]


def test_expressions_that_were_written_without_their_masks_are_taken_up(videos) -> None:
    """As after a power cut between the two writes."""
    view, chat = videos.limit(1), agreeing()
    rv.describe_objects(view, chat)
    sample = view.first()
    name_masks(sample, "ground_truth", "2", {}, {"1"})
    sample = videos[sample.id]
    for each in sample.ground_truth_descriptions.detections:
        each.label, each.expression_ids, each.stages = "pending", [], []
    sample.save()
    assert masks(sample)[1][:3] == ("2", None, "car")
    asked = len(chat.asked)
    rv.describe_objects(view, chat)
    assert len(chat.asked) == asked
    assert [each.expression_id for each in expressions(videos)][:3] == ["0", "1", "2"]
    assert [each[1] for each in masks(videos.first())] == ["0", "1", "2"]


def test_other_settings_are_refused_and_overwrite_keeps_ids(videos) -> None:
    rv.describe_objects(videos, agreeing())
    other = agreeing(video="something else")
    other.name = "other"
    with pytest.raises(rv.FieldExistsError, match="chat was 'rules' and is 'other'.*overwrite=True"):
        rv.describe_objects(videos, other)
    with pytest.raises(rv.FieldExistsError, match="overwrite the whole dataset"):
        rv.describe_objects(videos.limit(1), other, overwrite=True)
    other.answers["crop"] = UNREACHABLE
    assert len(rv.describe_objects(videos, other, overwrite=True).failures) == 4
    assert expressions(videos)[1].label == "the red disc that rolls to the tree"  # until there is a new one
    other.answers["crop"] = "a disc"
    rv.describe_objects(videos, other)
    assert [(each.expression_id, each.label) for each in expressions(videos)[:3]] == [
        ("0", "the first car"),
        ("1", "something else"),
        ("2", "something else"),
    ]
    assert masks(videos.first())[1] == ("2", "1", "something else", 2)
    other.answers["check"] = "conflict"
    rv.describe_objects(videos, other, overwrite=True)
    assert [each.expression_id for each in expressions(videos)] == ["0", "0"]
    assert masks(videos.first())[1] == ("2", None, "car", 2)


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


def test_a_server_that_breaks_down_on_the_way(videos, monkeypatch) -> None:
    monkeypatch.setenv("SOME_KEY", "s3cret")
    answers = [said("a car"), said("A car."), said("CONSISTENT"), said("the car"), said("the car that rolls")]
    with chat_server(*answers[:3], (500, ""), (500, ""), answers[3], (200, "junk")) as server:
        chat = ServerChat(server.address, "m", attempts=3, backoff=0.01, key_variable="SOME_KEY")
        report = rv.describe_objects(videos.limit(1), chat)
        assert [each.object_id for each in report.failures] == ["2", "3"]
        assert "junk instead of an answer" in report.failures[0].error
        server.script[:] = [answers[4], *answers]
        report = rv.describe_objects(videos.limit(1), chat)
        assert (report.num_expressions, report.failures) == (2, [])
    stored = videos.get_run_info("describe_ground_truth").config.model
    assert stored["url"] == server.address
    assert "s3cret" not in f"{stored} {videos.first().to_dict()} {report}"


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


def test_an_expression_that_was_deleted_is_not_written_again(videos) -> None:
    rv.describe_objects(videos, agreeing())
    sample = videos.first()
    del sample.expressions.detections[1]
    sample.save()
    chat = agreeing()
    assert rv.describe_objects(videos, chat).num_skipped == 4
    assert not chat.asked
    assert [each.expression_id for each in expressions(videos)] == ["0", "2", "0", "1", "2"]
    rv.describe_objects(videos, chat, overwrite=True)
    assert [each.expression_id for each in expressions(videos)][:3] == ["0", "2", "3"]
    assert [each[:2] for each in masks(videos.first())] == [("1", "0"), ("2", "3"), ("3", "2")]


def test_images_are_refused(dataset) -> None:
    dataset.add_sample(fo.Sample(filepath="/images/a.png"))
    with pytest.raises(FieldError, match="holds image samples: pass the video dataset"):
        rv.describe_objects(dataset, agreeing())
