"""`rv.evaluate` on real datasets: the numbers, the fields, the run's life, views, bad input, interruptions."""

from __future__ import annotations

import subprocess
import sys

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.cli import main
from fiftyone_refvos.evaluation import outcome, video_outcome
from fiftyone_refvos.evaluation.run import MaskletEvaluation
from fiftyone_refvos.fields import FieldError
from fiftyone_refvos.masklet import BoolArray, Expression
from fiftyone_refvos.metrics import PROTOCOLS, score_frame
from fiftyone_refvos.segment import Progress
from tests.fields_data import boxes, masklet, video_sample

SIZE = (40, 60)
TEXTS = ("the dog", "a cat", "no such thing")


def track(shift: int, *, num_objects: int = 1, num_frames: int = 4) -> BoolArray:
    return boxes([(4 + shift, 5 + 2 * t) for t in range(num_frames)], SIZE, side=9, num_objects=num_objects)


def add_video(dataset: fo.Dataset, number: int, *, num_frames: int = 4) -> fo.Sample:
    """A video with three expressions: a good mask, a worse one with two objects, and none for no target."""
    metadata = fo.VideoMetadata(total_frame_count=num_frames, frame_height=SIZE[0], frame_width=SIZE[1])
    sample = video_sample(dataset, f"/videos/{number}.mp4", texts=TEXTS, num_frames=num_frames)
    dataset.set_values("metadata", {sample.id: metadata}, key_field="id")
    expressions = [Expression(str(n), text) for n, text in enumerate(TEXTS)]
    nothing = np.zeros((num_frames, 1, *SIZE), dtype=bool)
    cat = track(1, num_objects=2, num_frames=num_frames)
    truth = [track(number, num_frames=num_frames), cat, nothing]
    predicted = [track(number + 1, num_frames=num_frames), cat[:, :1], nothing.copy()]
    predicted[0][2] = False  # lost in the third frame
    for field, masks in (("truth", truth), ("model", predicted)):
        found = [masklet(m, expression=e) for m, e in zip(masks, expressions, strict=True)]
        fields.write_masklets(sample, field, found)
    return dataset[sample.id]


@pytest.fixture
def videos(dataset) -> fo.Dataset:
    for number in range(3):
        add_video(dataset, number)
    return dataset


def evaluate(samples, **options):
    return rv.evaluate(samples, "model", **{"gt_field": "truth", "eval_key": "run", **options})


def expected(number: int, expression: int, frame: int) -> tuple[float, float]:
    truth = [track(number)[frame], track(1, num_objects=2)[frame], np.zeros((1, *SIZE), bool)][expression]
    predicted = [track(number + 1)[frame], track(1)[frame], np.zeros((1, *SIZE), bool)][expression]
    if (expression, frame) == (0, 2):
        predicted = np.zeros_like(predicted)
    score = score_frame(truth, predicted)
    return score.J, score.F


def attributes(dataset: fo.Dataset) -> list[str]:
    """The paths of all fields that runs made."""
    dataset.reload()
    paths = [*dataset.get_field_schema(flat=True)]
    paths += [f"frames.{path}" for path in dataset.get_frame_field_schema(flat=True)]
    return [path for path in paths if path.split(".")[-1].startswith(("run_", "other_"))]


def test_numbers_are_those_of_the_metrics_everywhere(videos) -> None:
    results = evaluate(videos)
    scores = np.array([[[expected(v, e, t) for t in range(4)] for e in range(3)] for v in range(3)])
    means = scores.mean(axis=2)
    assert results.metrics()["J"] == pytest.approx(means[..., 0].mean(), abs=1e-12)
    assert results.metrics()["J&F"] == pytest.approx(means.mean(), abs=1e-12)
    assert (results.metrics()["N-acc"], results.metrics()["T-acc"]) == (1.0, 1.0)
    for v, sample in enumerate(videos):
        assert sample["run_JF"] == pytest.approx(means[v].mean(), abs=1e-12)
        for e, label in enumerate(sample.expressions.detections):
            assert (label["run_J"], label["run_F"]) == pytest.approx(tuple(means[v, e]), abs=1e-12)
            assert label["run_JF"] == (label["run_J"] + label["run_F"]) / 2
            frames = results.frame_scores(sample.id, str(e))
            assert frames.frames.tolist() == [1, 2, 3, 4]
            assert np.array_equal(np.stack([frames.J, frames.F], 1), scores[v, e])  # `==` on the doubles
        for number, frame in sample.frames.items():
            for detection in frame.model.detections:
                e = int(detection.expression_id)
                assert (detection["run_J"], detection["run_F"]) == tuple(scores[v, e, number - 1])


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


def test_report_and_plot(videos, capsys) -> None:
    results = evaluate(videos)
    report = results.report()
    assert (report["protocol"], report["num_videos"], report["num_expressions"], report["num_frames"]) == (
        "mevis",
        3,
        9,
        36,
    )
    results.print_report()
    printed = capsys.readouterr().out
    assert "J&F" in printed
    assert f"{results.metrics()['J&F']:.4f}" in printed
    heights = list(results.plot().data[0].y)
    assert heights == sorted(row["JF"] for row in results.expressions)


def test_protocols_by_name_and_refusals(videos) -> None:
    assert evaluate(videos, protocol="ref-davis17-per-expression").summary["protocol"] == "ref-davis17-per-expression"
    assert evaluate(videos, protocol=PROTOCOLS["reasonvos"]).metrics()["J"] == evaluate(videos).metrics()["J"]
    with pytest.raises(ValueError, match="no protocol 'nonsense', but: mevis"):
        evaluate(videos, protocol="nonsense")
    with pytest.raises(ValueError, match="'gres' is for images, and videos are to be evaluated: choose one of mevis"):
        evaluate(videos, protocol="gres")
    with pytest.raises(FieldError, match=r"needs the foreground .*'model' against 'truth'"):
        evaluate(videos, protocol="revos", eval_key="other")
    assert videos.list_evaluations() == ["run"]


def test_revos_groups_by_type_id_with_foreground(videos) -> None:
    for sample in videos:
        for label in sample.expressions.detections:
            label["type_id"] = int(label.expression_id) % 2
        for frame in sample.frames.values():
            frame["foreground"] = fo.Detections(detections=[d.copy() for d in frame.truth.detections])
        sample.save()
    results = evaluate(videos, protocol="revos")
    assert set(results.report()["groups"]) == {"referring", "reason", "overall"}
    assert results.report()["percent"]
    assert videos.first().expressions.detections[0]["run_J"] <= 1


def test_ref_davis_by_annotator_has_expressions_too(videos) -> None:
    for sample in videos:
        for label in sample.expressions.detections:
            label["annotator"], label["object_ids"] = 0, [{"0": "1", "1": "2", "2": "3"}[label.expression_id]]
        sample.save()
    cats = {"0", "2"}  # expression 1 means two objects
    view = videos.filter_labels("expressions", F("expression_id").is_in(list(cats)))
    results = evaluate(view, protocol="ref-davis17-per-annotator")
    assert set(results.report()["groups"]) == {"0"}
    assert {row["expression_id"] for row in results.expressions} == cats


def test_none_is_not_annotated_and_an_empty_list_is_absent(videos) -> None:
    sample = videos.first()
    sample.frames[2]["truth"] = None
    sample.frames[4]["truth"] = fo.Detections()
    sample.save()
    results = evaluate(videos.limit(1))
    frames = results.frame_scores(sample.id, "0")
    assert frames.frames.tolist() == [1, 3, 4]
    assert frames.J[2] == 0  # predicted, though absent
    labels = videos.first().frames[2].model.detections
    assert {label["run_J"] for label in labels} == {None}


def test_views_clips_and_frames(videos) -> None:
    dogs = evaluate(videos.filter_labels("expressions", F("label") == "the dog"))
    assert {row["expression_id"] for row in dogs.expressions} == {"0"}
    assert [v is None for v in videos.values("expressions.detections.run_J")[0]] == [False, True, True]
    late = evaluate(videos.match_frames(F("frame_number") > 2))
    assert {row["num_frames"] for row in late.expressions} == {2}
    clips = evaluate(videos.to_clips("expressions"))
    whole = evaluate(videos, eval_key="other")
    assert clips.metrics() == whole.metrics()
    halves = videos.to_clips([[(1, 2), (2, 3)]] * 3)  # frame 2 counts once
    first = evaluate(halves)
    assert first.frame_scores(videos.first().id, "0").frames.tolist() == [1, 2, 3]
    assert first.metrics() == evaluate(videos.match_frames(F("frame_number") < 4)).metrics()
    assert videos.first()["run_JF"] is not None


def test_processes_give_the_same_numbers_and_never_import_torch(videos) -> None:
    serial, parallel = evaluate(videos), evaluate(videos, num_workers=2, eval_key="other")
    assert serial.expressions == parallel.expressions
    assert serial.summary == parallel.summary
    code = "import sys, fiftyone_refvos.evaluation.scoring; print(*sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not {"torch", "fiftyone"} & set(printed.split())


def test_progress_goes_to_the_end(videos) -> None:
    told: list[Progress] = []
    evaluate(videos, progress=told.append)
    assert [round(each.fraction * 3) for each in told] == [0, 1, 2, 3]
    assert {each.num_videos for each in told} == {3}


def remove_prediction_in_frame_3(sample: fo.Sample) -> str:
    sample.frames[3]["model"] = None
    sample.save()
    return r"frame 3 is annotated in 'truth', but not predicted in 'model'"


def unknown_expression(sample: fo.Sample) -> str:
    sample.frames[2]["model"].detections[0]["expression_id"] = "99"
    sample.save()
    return r"frame 1 of 'model' has masks of expression '99'|frame 2 of 'model' has masks of expression '99'"


def stretched_mask(sample: fo.Sample) -> str:
    label = sample.frames[2]["model"].detections[0]
    label.mask = np.ones((5, 5), dtype=bool)
    sample.save()
    return r"frame 2 of 'model' has a mask of 5x5 pixels in a box of 9x9"


def other_size(sample: fo.Sample) -> str:
    for frame in sample.frames.values():
        for label in frame["model"].detections:
            label.mask = np.kron(label.mask, np.ones((2, 2), dtype=bool))
    sample.save()
    return r"frame 1 has masks of 80x120 pixels in 'model', and of 40x60 in 'truth'"


def box_without_mask(sample: fo.Sample) -> str:
    sample.frames[1]["truth"].detections[0].mask = None
    sample.save()
    return r"box without a mask"


def missing_expression(sample: fo.Sample) -> str:
    fields.clear_field(sample.dataset.select(sample.id), "model")
    nothing = [masklet(track(0), expression=Expression("0", "the dog"))]
    fields.write_masklets(sample.dataset[sample.id], "model", nothing)
    return r"no prediction for '1'.* \('model' against 'truth'\)"


@pytest.mark.parametrize(
    "spoil",
    [
        remove_prediction_in_frame_3,
        unknown_expression,
        stretched_mask,
        other_size,
        box_without_mask,
        missing_expression,
    ],
)
def test_bad_videos_are_named_and_can_be_left_out(videos, spoil) -> None:
    bad = videos.skip(1).first()
    message = spoil(videos[bad.id])
    with pytest.raises(FieldError, match=message) as caught:
        evaluate(videos)
    assert bad.id in str(caught.value)
    assert (videos.list_evaluations(), attributes(videos)) == ([], [])
    results = evaluate(videos, skip_failures=True)
    assert [failure["sample_id"] for failure in results.failures] == [bad.id]
    assert results.failures[0]["error"] == str(caught.value)
    assert results.report()["num_videos"] == 2
    assert videos[bad.id]["run_JF"] is None


def test_videos_without_any_prediction_count_as_zero(videos) -> None:
    fields.clear_field(videos.limit(1), "model")
    results = evaluate(videos)
    assert results.report()["num_unpredicted"] == 3
    assert videos.first()["run_JF"] == 0
    assert results.report()["groups"]["predicted videos only"]["J"] > results.metrics()["J"]


def test_wrong_fields_and_keys(videos) -> None:
    with pytest.raises(
        FieldError, match=r"no field 'frames.gone'.*model, truth|no field 'frames.gone'.*truth, model"
    ):
        rv.evaluate(videos, "gone", gt_field="truth", eval_key="run")
    videos.add_frame_field("number", fo.FloatField)
    with pytest.raises(FieldError, match=r"no Detections in 'frames.number'"):
        evaluate(videos, gt_field="number")
    videos.add_sample_field("text", fo.StringField)
    with pytest.raises(FieldError, match="'text' holds plain text"):
        evaluate(videos, expressions_field="text")
    with pytest.raises(FieldError, match="no field 'nothing' to take expressions from"):
        evaluate(videos, expressions_field="nothing")
    with pytest.raises(ValueError, match="valid variable names"):
        evaluate(videos, eval_key="not a key")
    with pytest.raises(FieldError, match="masklets of videos are evaluated"):
        evaluate(videos.to_frames(sample_frames=False))
    for sample in videos:
        for frame in sample.frames.values():
            frame["truth"] = None
        sample.save()
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate(videos)


def test_empty_datasets_are_refused(dataset) -> None:
    with pytest.raises(FieldError, match="holds no samples"):
        evaluate(dataset)


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


def test_the_truth_of_the_demo_against_itself_is_perfect(tmp_path) -> None:
    config = rv.demo.DemoConfig(height=48, width=86, num_frames=8)
    demo = rv.demo.load(num_videos=2, config=config, folder=tmp_path, name="test-evaluate-demo", overwrite=True)
    try:
        results = rv.evaluate(demo, "ground_truth", eval_key="run")
        assert results.metrics() == {"J": 1.0, "F": 1.0, "J&F": 1.0, "N-acc": 1.0, "T-acc": 1.0}
        assert not all(row["has_target"] for row in results.expressions)
        assert len(results.expressions) == demo.count("expressions.detections")
    finally:
        demo.delete()


def test_command_line(videos, capsys) -> None:
    arguments = ["evaluate", videos.name, "--pred-field", "model", "--gt-field", "truth", "--eval-key", "run"]
    assert main(arguments) == 0
    assert "9 expressions of 3 videos" in capsys.readouterr().out
    remove_prediction_in_frame_3(videos.first())
    assert main([*arguments, "--skip-failures"]) == 1
    assert "failed: sample" in capsys.readouterr().out
    assert main(arguments) == 1
    assert "frame 3" in capsys.readouterr().err
