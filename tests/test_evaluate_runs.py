"""The life of an evaluation run: listed, renamed, replaced, deleted, and interrupted at any moment."""

from __future__ import annotations

import fiftyone as fo
import numpy as np
import pytest

import fiftyone_refvos as rv
from fiftyone_refvos.evaluation import outcome, video_outcome
from fiftyone_refvos.evaluation.run import MaskletEvaluation
from fiftyone_refvos.fields import FieldError
from fiftyone_refvos.segment import Progress
from tests.evaluated_videos import add_videos, attributes, evaluate, remove_prediction_in_frame_3


@pytest.fixture
def videos(dataset) -> fo.Dataset:
    return add_videos(dataset)


def test_a_run_is_listed_loaded_renamed_and_deleted(videos) -> None:
    results = evaluate(videos.limit(2))
    assert videos.list_evaluations() == ["run"]
    assert videos.list_evaluations(method="refvos") == ["run"]
    assert len(videos.load_evaluation_view("run")) == 2
    evaluate(videos, eval_key="other")
    alone = videos.load_evaluation_view("run", select_fields=True)
    assert (alone.has_field("run_JF"), alone.has_field("other_JF")) == (True, False)
    assert not alone.has_field("frames.model.detections.other_J")
    videos.delete_evaluation("other")
    videos.clear_cache()
    loaded = videos.load_evaluation_results("run")
    assert loaded is not results
    assert loaded.report() == results.report()
    assert loaded.expressions == results.expressions
    first = results.expressions[0]
    again = loaded.frame_scores(first["sample_id"], first["expression_id"])
    assert np.array_equal(again.J, results.frame_scores(first["sample_id"], first["expression_id"]).J)
    before = attributes(videos)
    assert len(before) == 8
    videos.rename_evaluation("run", "other")
    assert attributes(videos) == [path.replace("run_", "other_") for path in before]
    assert videos.load_evaluation_results("other").key == "other"
    of_first = [row["JF"] for row in results.expressions if row["sample_id"] == videos.first().id]
    assert videos.first()["other_JF"] == pytest.approx(np.mean(of_first), abs=1e-12)
    videos.delete_evaluation("other")
    assert (attributes(videos), videos.list_evaluations()) == ([], [])


@pytest.mark.parametrize(
    ("module", "step"),
    [
        (outcome, "write_frame_scores"),
        (outcome, "write_expression_scores"),
        (video_outcome, "no_target_accuracy"),
    ],
)
def test_interrupted_runs_leave_nothing(videos, monkeypatch, module, step) -> None:
    calls = []

    def interrupt(*args, **kwargs):
        calls.append(args)
        raise KeyboardInterrupt

    monkeypatch.setattr(module, step, interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(videos)
    assert len(calls) == 1
    assert (videos.list_evaluations(), attributes(videos)) == ([], [])
    monkeypatch.undo()
    monkeypatch.setattr("fiftyone_refvos.evaluation.run.MaskletEvaluation.save_run_results", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(videos)
    assert (videos.list_evaluations(), attributes(videos)) == ([], [])


def test_an_interruption_while_the_former_run_is_deleted_leaves_nothing(videos, monkeypatch) -> None:
    evaluate(videos)
    calls = []
    delete_frame_fields = fo.Dataset.delete_frame_fields

    def interrupt_once(*args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise KeyboardInterrupt
        delete_frame_fields(*args, **kwargs)

    monkeypatch.setattr(fo.Dataset, "delete_frame_fields", interrupt_once)
    with pytest.raises(KeyboardInterrupt):
        evaluate(videos)
    assert (videos.list_evaluations(), attributes(videos)) == ([], [])


def test_scores_of_a_process_that_was_killed_do_not_mix_with_new_ones(videos) -> None:
    evaluate(videos)
    MaskletEvaluation.delete_run(videos, "run", cleanup=False)  # what is there before the run is registered
    assert len(attributes(videos)) == 8
    first = evaluate(videos.limit(1)).metrics()["J&F"]
    assert videos.values("run_JF") == [pytest.approx(first), None, None]


def test_other_fields_and_failures_survive_an_evaluation_that_ends_early(videos, monkeypatch) -> None:
    rv.find_failures(videos, "model", gt_field="truth", eval_key="run")
    videos.add_sample_field("run_J", fo.StringField)
    videos.set_values("run_J", ["a", "b", "c"])
    with pytest.raises(FieldError, match="'run_J' holds a StringField, but is where scores of 'run' go: choose"):
        evaluate(videos)
    videos.reload()
    assert videos.values("run_J") == ["a", "b", "c"]
    videos.delete_sample_field("run_J")
    found = videos.values("run_failures")

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(outcome, "write_frame_scores", interrupt)
    with pytest.raises(KeyboardInterrupt):
        evaluate(videos)
    videos.reload()
    assert videos.values("run_failures") == found
    assert videos.count("run_failures.detections") > 0


def test_renaming_replaces_failures_that_were_found_under_the_new_name(videos) -> None:
    evaluate(videos)
    rv.find_failures(videos, "run")
    of_run = videos.count("run_failures.detections")
    rv.find_failures(videos.limit(1), "model", gt_field="truth", eval_key="other")
    videos.rename_evaluation("run", "other")
    assert not any("run_" in path for path in attributes(videos))
    assert videos.count("other_failures.detections") == of_run
    videos.delete_evaluation("other")
    assert attributes(videos) == []


@pytest.mark.parametrize("num_workers", [1, 2])
def test_an_interruption_between_videos_leaves_nothing(videos, num_workers) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.video == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(videos, num_workers=num_workers, progress=interrupt)
    assert (videos.list_evaluations(), attributes(videos)) == ([], [])


def test_a_run_is_replaced_only_by_a_complete_one(videos) -> None:
    before = evaluate(videos).metrics()
    sample = videos.last()
    remove_prediction_in_frame_3(sample)
    with pytest.raises(FieldError):
        evaluate(videos)
    videos.clear_cache()
    assert videos.load_evaluation_results("run").metrics() == before
    assert len(attributes(videos)) == 8
    replaced = evaluate(videos.limit(1))
    assert len(replaced.expressions) == 3
    assert videos.last()["run_JF"] is None
