"""The operators of key frames, through FiftyOne's real executor."""

from __future__ import annotations

import json
from functools import partial
from uuid import uuid4

import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.demo import DemoConfig
from fiftyone_refvos.models.registry import SHIPPED
from scripts.make_kfs_base import main as make_base
from tests import operating
from tests.operating import outputs, reason, texts, uri

DEMO = DemoConfig(height=96, width=160, num_frames=8, max_per_kind=1)

select = partial(operating.execute, "select_key_frames")
select_form = partial(operating.form, "select_key_frames")
segment = partial(operating.execute, "segment_expressions")
segment_form = partial(operating.form, "segment_expressions")
train = partial(operating.execute, "train_selector")
train_form = partial(operating.form, "train_selector")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture
def demo(clips, fiftyone_home):
    """Two videos with their expressions."""
    dataset = rv.demo.load(num_videos=2, config=DEMO, folder=clips, name=f"test-{uuid4().hex[:12]}")
    yield dataset
    dataset.delete()


def add_masklets(dataset) -> None:
    """Masklets that are the true ones in the field `model`, with pseudo-labels that rise from frame to frame."""
    for sample in dataset:
        fields.write_masklets(sample, "model", fields.read_masklets(sample, "ground_truth"))
    fields.declare_frame_list(dataset, "model", "ious")
    for sample in dataset:
        rising = {each.id: [t / 7 for t in range(8)] for each in fields.read_expressions(sample)}
        fields.write_frame_list(sample, "model", "ious", rising)
    dataset.reload()


def test_a_selection_makes_what_the_library_makes_and_is_plotted(demo):
    plain = select(demo, selector="middle").result
    assert (plain["field"], plain["quality"]) == ("middle_kf", None)  # there is no true IoU to compare with
    assert "calibration" not in outputs("select_key_frames", plain)["type"]["properties"]
    add_masklets(demo)
    result = select(demo, selector="oracle", field="best").result
    count = demo.count("expressions.detections")
    assert (result["num_videos"], result["num_expressions"], result["num_failed"]) == (2, count, 0)
    demo.reload()
    assert set(demo.distinct("expressions.detections.best_key_frame")) == {8}
    json.dumps(result)
    quality = rv.key_frame_quality(demo, "best", "model")
    assert quality.spearman == pytest.approx(1)
    assert result["quality"]["summary"] == str(quality)
    shown = outputs("select_key_frames", result)
    assert f"{count} key frames written into 'best_key_frame'" in texts(shown)
    plots = shown["type"]["properties"]
    assert plots["calibration"]["view"]["data"][0]["x"] == [each.score for each in quality.calibration]
    assert [trace["name"] for trace in plots["expression_0"]["view"]["data"]] == ["score", "true IoU"]


def test_the_form_of_a_selection(demo):
    shown = select_form(demo)
    assert shown["selector"]["default"] == "middle"
    assert shown["selector"]["type"]["values"] == ["middle", "oracle", "confidence", "glus-kfs", "kfs-tiny"]
    assert shown["field"]["default"] == "middle_kf"
    assert "checkpoint" not in shown
    assert "segment the target first" in texts(select_form(demo, selector="oracle")["masklets_field"])
    add_masklets(demo)
    assert select_form(demo, selector="confidence")["masklets_field"]["default"] == "model"
    assert "checkpoint" in select_form(demo, selector="glus-kfs")


def test_segmenting_starts_from_the_key_frames_that_are_chosen(demo):
    assert "key_frames" not in segment_form(demo)
    rv.select_key_frames(demo, "middle", field="kf")
    demo.reload()
    assert segment_form(demo)["key_frames"]["type"]["values"] == ["kf"]
    result = segment(demo.limit(1), label_field="from_kf", key_frames="kf").result
    assert (result["num_samples"], result["num_failed"]) == (1, 0)
    assert {masklet.key_frame for masklet in fields.read_masklets(demo.first(), "from_kf")} == {3}
    demo.reload()
    assert "goes on with what is missing" in texts(segment_form(demo, label_field="from_kf", key_frames="kf"))
    assert segment_form(demo, label_field="from_kf")["overwrite"]["invalid"]
    assert segment_form(demo)["key_frames"]["type"]["values"] == ["kf"]  # masklets are none


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"selector": "luck"}, reason("selector") + "Invalid enum value"),
        ({"selector": "middle", "field": "no field"}, reason("field") + "'no field' cannot be a name of key frames"),
        ({"selector": "glus-kfs", "checkpoint": "/gone"}, reason("checkpoint") + "There is no folder /gone"),
    ],
)
def test_invalid_selections_are_named(demo, params, message):
    with pytest.raises(ExecutionError, match=message):
        select(demo, **params)


def test_a_selector_is_trained_and_then_selects(demo, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert "The target has no pseudo-labels" in texts(train_form(demo))
    add_masklets(demo)
    make_base(tmp_path / "base", SHIPPED / "glus-tiny")
    shown = train_form(demo)
    assert (shown["field"]["default"], shown["steps"]["default"]) == ("model", 2000)
    assert shown["folder"]["required"]
    with pytest.raises(ExecutionError, match=reason("folder") + "Required property"):
        train(demo, base=str(tmp_path / "base"))
    options = {"steps": 1, "accumulation": 1, "validation_share": 0.5}
    result = train(demo, base=str(tmp_path / "base"), folder=str(tmp_path / "run"), **options).result
    json.dumps(result)
    assert (result["steps"], result["validated_step"]) == (1, 1)
    report = outputs("train_selector", result)
    assert "The selector was trained for 1 steps" in texts(report)
    names = {trace["name"] for trace in report["type"]["properties"]["curves"]["view"]["data"]}
    assert names == {"ce", "score", "total", "validation rank correlation"}
    chosen = foo.get_operator(uri("select_key_frames"))(
        demo, "glus-kfs", field="kfs", checkpoint=result["checkpoint"]
    )
    assert chosen.result["num_videos"] == 2
