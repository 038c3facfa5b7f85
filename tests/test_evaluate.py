"""`rv.evaluate` on real datasets: the numbers, the fields, views, bad input."""

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
from fiftyone_refvos.fields import FieldError, read_masklets
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.metrics import PROTOCOLS
from fiftyone_refvos.segment import Progress
from tests.evaluated_videos import add_videos, attributes, evaluate, expected, remove_prediction_in_frame_3, track
from tests.fields_data import masklet


@pytest.fixture
def videos(dataset) -> fo.Dataset:
    return add_videos(dataset)


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


def test_labels_whose_last_detection_was_removed_are_empty(videos) -> None:
    first, second = videos.limit(2)
    first.frames[1].model.detections = []
    second.expressions.detections = []
    for number in second.frames:
        second.frames[number].truth.detections = []
        second.frames[number].model.detections = []
    for sample in (first, second):
        sample.save()
    results = evaluate(videos)
    assert [results.frame_scores(first.id, id_).J[0] for id_ in "012"] == [0.0, 0.0, 1.0]
    assert {row["sample_id"] for row in results.expressions} == {first.id, videos.last().id}
    rv.find_failures(videos, "run")
    rv.make_pseudo_labels(videos, "model", "truth")


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
    with pytest.raises(FieldError, match=r"named without 'frames\.': 'model', not 'frames\.model'"):
        rv.evaluate(videos, "frames.model", eval_key="run")
    with pytest.raises(FieldError, match=r"named without 'frames\.': 'truth', not 'frames\.truth'"):
        read_masklets(videos.first(), "frames.truth")
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
