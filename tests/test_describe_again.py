"""`rv.describe_objects` for another time: what is asked again, and what stays."""

from __future__ import annotations

import fiftyone as fo
import pytest
from fiftyone import ViewField as F

import fiftyone_refvos as rv
from fiftyone_refvos.describing import ServerChat
from fiftyone_refvos.fields.naming import name_masks
from tests.chats import UNREACHABLE, agreeing, chat_server, said
from tests.described import add_videos, expressions, masks, records


@pytest.fixture
def videos(dataset, tmp_path) -> fo.Dataset:
    """Two videos with three objects each."""
    return add_videos(dataset, tmp_path)


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


def test_a_corrected_text_stays_until_it_is_overwritten(videos) -> None:
    view, chat = videos.limit(1), agreeing()
    rv.describe_objects(view, chat, stages=["object"])
    sample = videos.first()
    sample.expressions.detections[1].label = "a crimson disc"
    sample.save()
    rv.describe_objects(view, chat, stages=["object", "scene"])
    assert expressions(videos)[1].label == "a crimson disc"
    of_object = [each[1:3] for each in masks(videos.first()) if each[0] == "2"]
    assert of_object == [("1", "a crimson disc"), ("3", "the red disc left of the tree")]
    rv.describe_objects(view, chat, stages=["object"], overwrite=True)  # with the same answers as before
    assert expressions(videos)[1].label == "a red disc"
    assert not records(videos.first())["2"].anew
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


def test_overwriting_leaves_alone_what_is_not_asked_about(videos) -> None:
    rv.describe_objects(videos, agreeing(), objects="all", stages=["object"])
    first = videos.limit(1)
    third = first.filter_labels("frames.ground_truth", F("object_id") == "3")
    chat = agreeing(crop="a pink disc")
    assert rv.describe_objects(third, chat, objects="all", stages=["object"], overwrite=True).num_objects == 1
    assert chat.steps == ["crop", "full", "check"]
    texts = {each.object_ids[0]: each.label for each in expressions(first) if each.kind == "generated"}
    assert texts == {"1": "a red disc", "2": "a red disc", "3": "a pink disc"}
    found = records(videos.first())
    assert {id_: (each.label, len(each.stage_answers)) for id_, each in found.items()} == dict.fromkeys(
        "123", ("described", 3)
    )
    rv.describe_objects(first, chat, stages=["object"], overwrite=True)
    texts = {each.object_ids[0]: each.label for each in expressions(first) if each.kind == "generated"}
    assert texts == {"1": "a red disc", "2": "a pink disc", "3": "a pink disc"}
    assert records(videos.first())["1"].label == "described"


def test_other_settings_are_refused_where_an_object_would_keep_its_description(videos) -> None:
    rv.describe_objects(videos, agreeing(), objects="all")
    other = agreeing()
    other.name = "other"
    id_ = videos.first().id
    third = videos.filter_labels("frames.ground_truth", F("object_id") == "3")
    with pytest.raises(rv.FieldExistsError, match=f"object '1' of sample {id_} .*the view shows no mask of it"):
        rv.describe_objects(third, other, objects="all", overwrite=True)
    with pytest.raises(rv.FieldExistsError, match=f"object '1' of sample {id_} .*names it: pass objects='all'"):
        rv.describe_objects(videos, other, overwrite=True)
    assert {each.label for each in records(videos.first()).values()} == {"described"}
    assert not other.asked
    assert rv.describe_objects(videos, other, objects="all", overwrite=True).num_objects == 6


def test_records_of_objects_whose_masks_are_gone_hinder_nobody(videos) -> None:
    rv.describe_objects(videos, agreeing())
    without = videos.filter_labels("frames.ground_truth", F("object_id") != "3", only_matches=False)
    without.save("frames.ground_truth")
    other = agreeing()
    other.name = "other"
    assert rv.describe_objects(videos, other, overwrite=True).num_objects == 2


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
