"""The operator and the verb that let fields vote."""

from __future__ import annotations

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError

import fiftyone_refvos as rv
from fiftyone_refvos.cli import main
from tests.operating import execute, form, messages, outputs, reason, run_queued, texts, uri
from tests.voting import MASKS, MEMBERS, NOTHING, add_video, square, written


@pytest.fixture
def videos(dataset):
    """Two videos with three models and the truth; of the second, the models agree on the cat."""
    truth = {"ground_truth": (square(2, 3), square(8, 9))}
    add_video(dataset, "/videos/a.mp4", {**MASKS, **truth})
    add_video(dataset, "/videos/b.mp4", {**{name: (masks[0], NOTHING) for name, masks in MASKS.items()}, **truth})
    return dataset


def test_all_fields_but_the_truth_vote_by_default(videos):
    shown = form("vote", videos)
    assert {name: shown[f"member_{name}"]["default"] for name in (*MEMBERS, "ground_truth")} == {
        **dict.fromkeys(MEMBERS, True),
        "ground_truth": False,
    }
    assert "even" not in shown
    result = execute("vote", videos).result
    assert (result["num_videos"], result["num_expressions"], result["failures"]) == (2, 4, [])
    assert videos.get_run_info("segment_voted").config.model["members"] == sorted(MEMBERS, key=[*MASKS].index)
    assert form("vote", videos, label_field="again")["member_voted"]["default"] is False


def test_the_report_lists_what_is_disputed_and_leads_to_it(videos):
    result = execute("vote", videos).result
    assert [row["text"] for row in result["disputed"]] == ["the cat", "the dog", "the dog", "the cat"]
    assert result["disputed"][0] == {"agreement": f"{12 / 52:.4f}", "text": "the cat", "video": "a.mp4"}
    kept = videos.load_saved_view(result["saved_view"])
    assert result["saved_view"] == "voted: most disputed"
    assert kept.values("expressions.label") == [row["text"] for row in result["disputed"]]
    shown = outputs("vote", result)
    assert {"disputed", "show_view"} <= shown["type"]["properties"].keys()
    assert "4 masklets written into 'frames.voted'" in texts(shown)


def test_fields_rule_and_weights_are_those_that_are_chosen(videos):
    shown = form("vote", videos, member_three=False)
    assert "where they tie, there is no mask" in texts(shown["even"])
    execute("vote", videos, member_three=False)
    assert np.array_equal(written(videos.first(), "voted", 0), square(2, 2)[:, 0])
    assert "weights" not in form("vote", videos, rule="report")
    execute("vote", videos, rule="report", label_field="strict")
    assert np.array_equal(written(videos.first(), "strict", 0), (square(2, 2) & square(2, 3))[:, 0])
    with pytest.raises(ExecutionError, match=reason("weights") + "There is no evaluation of one, two, three"):
        execute("vote", videos, weights="evaluations", label_field="weighed")
    for field in MEMBERS:
        rv.evaluate(videos, field, eval_key=f"{field}_eval")
    execute("vote", videos, weights="evaluations", label_field="weighed")
    weights = videos.get_run_info("segment_weighed").config.model["weights"]
    assert weights["two"] == pytest.approx(videos.load_evaluation_results("two_eval").metrics()["J&F"])
    execute("vote", videos, weights="predicted_iou", label_field="scored")
    assert videos.get_run_info("segment_scored").config.model["weights"] == "predicted_iou"


def test_from_python_and_the_schedule(videos):
    vote = foo.get_operator(uri("vote"))
    result = vote(videos, ["one", "three"], weights={"one": 1, "three": 3}, label_field="heavy").result
    assert result["num_expressions"] == 4
    assert np.array_equal(written(videos.first(), "heavy", 0), square(2, 3)[:, 0])
    assert vote(videos, MEMBERS, delegate=True).delegated
    before, done = run_queued("vote", videos)
    assert before.label == "Vote: one, two, three → voted"
    assert done.run_state == "completed", done.result.error
    assert (done.status.progress, done.status.label) == (1.0, "2/2 videos")
    assert "voted: most disputed" in texts(done.metadata["outputs_schema"])


def test_failures_are_listed(videos):
    sample = videos.last()
    sample.frames[3]["two"] = None
    sample.save()
    result = execute("vote", videos).result
    (failure,) = result["failures"]
    assert failure["file"] == "/videos/b.mp4"
    assert "only one of them covers frame 2" in failure["reason"]
    assert "failures" in outputs("vote", result)["type"]["properties"]


def test_what_cannot_be_voted_on_is_said(videos):
    with pytest.raises(ExecutionError, match="Tick at least two fields"):
        execute("vote", videos, member_one=False, member_two=False)
    with pytest.raises(ExecutionError, match="Tick this, or choose another label field"):
        execute("vote", videos, label_field="three")
    execute("vote", videos)
    assert "Only what is missing" in texts(form("vote", videos)["label_field_notice"])
    with pytest.raises(ExecutionError, match="Tick this, or choose another label field"):
        execute("vote", videos, rule="report")
    assert execute("vote", videos, rule="report", overwrite=True).result["num_expressions"] == 4
    lonely = fo.Dataset()
    add_video(lonely, "/videos/a.mp4", {"one": MASKS["one"]})
    with pytest.raises(ExecutionError, match="Two fields with masklets are needed, but it is: one"):
        execute("vote", lonely)
    lonely.delete()


def test_the_app_shows_the_outcome(videos):
    *_, activate, (name, _) = messages("vote", videos)
    assert activate[1]["fields"] == ["frames.ground_truth", "frames.voted"]
    assert name == "show_output"


def test_the_verb_votes_and_keeps_the_view(videos, capsys):
    assert main(["vote", videos.name, *MEMBERS, "--save-view", "disputed"]) == 0
    assert "4 masklets of 2 videos written to 'frames.voted'" in capsys.readouterr().out
    videos.reload()
    assert videos.load_saved_view("disputed").values("expressions.label")[0] == "the cat"
    weights = ["--weight", "one=1", "--weight", "three=3"]
    assert main(["vote", videos.name, "one", "three", *weights, "--label-field", "heavy"]) == 0
    assert np.array_equal(written(videos.first(), "heavy", 0), square(2, 3)[:, 0])
    assert main(["vote", videos.name, *MEMBERS, "--rule", "report"]) == 1
    assert "rule was 'majority' and is 'report'" in capsys.readouterr().err
    assert main(["vote", videos.name, *MEMBERS, "--by-predicted-iou", "--overwrite"]) == 0
    with pytest.raises(SystemExit):
        main(["vote", videos.name, *MEMBERS, "--weight", "one"])
    assert "'one' is not FIELD=WEIGHT" in capsys.readouterr().err
