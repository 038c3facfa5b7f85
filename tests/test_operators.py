"""The operators, through FiftyOne's real registry, executor and queue."""

import shutil
import threading
from functools import partial
from pathlib import Path
from uuid import uuid4

import fiftyone as fo
import fiftyone.operators as foo
import fiftyone.zoo as foz
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError
from fiftyone.operators.registry import OperatorRegistry
from PIL import Image

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.demo import DemoConfig
from fiftyone_refvos.models.registry import SHIPPED
from fiftyone_refvos.segment import Progress
from operators.progress import Throttle, stream
from tests import operating
from tests.operating import PLUGIN, reason, run_queued, texts, uri

NAME = "segment_expressions"
CONFIG = DemoConfig(height=96, width=160, num_frames=8, max_per_kind=1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture
def demo(clips):
    """Two videos with two expressions each."""
    dataset = rv.demo.load(num_videos=2, config=CONFIG, folder=clips, name=f"test-{uuid4().hex[:12]}")
    for sample in dataset:
        del sample.expressions.detections[2:]
        sample.save()
    yield dataset
    dataset.delete()


execute = partial(operating.execute, NAME)
form = partial(operating.form, NAME)
outputs = partial(operating.outputs, NAME)
messages = partial(operating.messages, NAME)


# --- the plugin ---


def test_every_operator_of_the_manifest_registers():
    registry = OperatorRegistry()
    assert registry.list_errors() == []
    ours = [operator.name for operator in foo.list_operators() if operator.plugin_name == PLUGIN["name"]]
    assert sorted(ours) == sorted(PLUGIN["operators"])


@pytest.mark.parametrize("name", [name for name in PLUGIN["operators"] if name != "show_view"])
def test_button_and_icon(name):
    operator = foo.get_operator(uri(name))
    placement = operator.resolve_placement(foo.ExecutionContext({})).to_json()
    assert placement["place"] == "samples-grid-secondary-actions"
    assert placement["view"]["prompt"]
    assert (Path(__file__).parents[1] / placement["view"]["icon"].lstrip("/")).is_file()


# --- running ---


def test_a_run_writes_what_segment_writes(demo):
    result = execute(demo, label_field="by_operator", device="cpu")
    rv.segment(demo, foz.load_zoo_model("glus-tiny", device="cpu"), label_field="by_library")
    assert result.result.pop("seconds") > 0
    assert result.result == {
        "label_field": "by_operator",
        "num_expressions": 4,
        "num_videos": 2,
        "num_skipped": 0,
        "num_failed": 0,
        "failures": [],
    }
    for sample in demo:
        by_operator, by_library = (fields.read_masklets(sample, f"by_{who}") for who in ("operator", "library"))
        assert by_operator == by_library

    progress = [request.params["message"] for request in result.executor._requests]
    assert progress[0] == "Progress: 0.0 - Loading glus-tiny"
    assert progress[-1] == "Progress: 1.0 - 2/2 videos"


@pytest.mark.parametrize("prompts", ["the red circle\n\n the moon ", ["the red circle", "the moon"]])
def test_typed_prompts(demo, prompts):
    known = len(demo.first().expressions.detections)
    segment = foo.get_operator(uri(NAME))
    result = segment(demo.limit(1), prompts=prompts, label_field="typed").result
    assert (result["num_videos"], result["num_expressions"]) == (1, 2)
    demo.reload()
    added = demo.first().expressions.detections[known:]
    assert [(label.label, label.kind) for label in added] == [
        ("the red circle", "prompt"),
        ("the moon", "prompt"),
    ]
    assert [label.typed_text for label in added] == ["the red circle", "the moon"]
    assert demo.last().expressions.detections[-1].label != "the moon"  # the view had the first video alone


def test_prompts_of_a_field(demo):
    demo.set_values("question", ["the star", "the moon"])
    assert form(demo)["prompt_field"]["type"]["values"] == ["expressions", "question"]
    assert form(demo)["prompt_field"]["default"] == "expressions"
    assert "prompt_field" not in form(demo, prompts="the star")
    result = execute(demo, prompt_field="question").result
    assert (result["label_field"], result["num_expressions"]) == ("glus_tiny", 2)


def test_a_second_run_goes_on(demo):
    execute(demo.limit(1), prompts="the moon")
    shown = form(demo, prompts="the moon")
    assert "made by glus-tiny" in texts(shown)
    assert "goes on with what is missing" in texts(shown)
    assert not shown["overwrite"]["invalid"]
    result = execute(demo, prompts="the moon").result
    assert (result["num_videos"], result["num_skipped"]) == (1, 1)
    again = execute(demo, prompts="the moon").result
    assert "nothing to do" in texts(outputs(again))
    assert execute(demo, prompts="the moon", overwrite=True).result["num_videos"] == 2


def test_a_missing_file_is_listed(demo):
    gone = fo.Sample("/gone/clip.mp4", expressions=demo.first().expressions.copy())
    demo.add_sample(gone)
    result = execute(demo, prompts="the moon").result
    assert (result["num_videos"], result["num_failed"]) == (2, 1)
    (failure,) = result["failures"]
    assert failure["file"] == "/gone/clip.mp4"
    assert "does not exist" in failure["reason"]
    shown = outputs(result)
    assert "some videos failed" in texts(shown)
    assert [column["key"] for column in shown["type"]["properties"]["failures"]["view"]["columns"]] == [
        "file",
        "reason",
    ]


# --- what is refused ---


def test_a_foreign_field_is_not_touched(demo):
    before = demo.values("frames.ground_truth.detections.id")
    with pytest.raises(ExecutionError, match=reason("overwrite") + "Tick this, or choose another"):
        execute(demo, prompts="the moon", label_field="ground_truth")
    assert "no segmentation run made it" in texts(form(demo, label_field="ground_truth"))
    demo.reload()
    assert demo.values("frames.ground_truth.detections.id") == before
    assert "the moon" not in demo.distinct("expressions.detections.label")
    execute(demo, prompts="the moon", label_field="ground_truth", overwrite=True)
    demo.reload()
    assert demo.distinct("frames.ground_truth.detections.label") == ["the moon"]


def test_a_field_of_another_checkpoint_asks(demo, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(SHIPPED / "glus-tiny", copy)
    execute(demo.limit(1), prompts="the moon", checkpoint=str(copy))
    assert not form(demo, checkpoint=f"{copy}/")["overwrite"]["invalid"]
    shown = form(demo)
    assert f"made by glus-tiny (dtype=float32, checkpoint={copy}, " in texts(shown).replace("bfloat16", "float32")
    assert shown["overwrite"]["invalid"]


def test_clips_never_replace_what_belongs_to_whole_videos(demo):
    clips = demo.to_clips("expressions")
    shown = form(clips, label_field="ground_truth")
    assert shown["label_field_notice"]["invalid"]
    assert "overwrite" not in shown
    assert not any(value["invalid"] for value in form(clips).values())


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"label_field": "my field"}, reason("label_field") + "'my field' cannot be a field: use letters"),
        ({"label_field": "frames.glus"}, reason("label_field") + "'frames.glus' cannot be a field"),
        (
            {"label_field": "frame_number"},
            reason("label_field") + ".* holds FrameNumberField, not Detections",
        ),
        ({"model": "glus-huge"}, reason("model") + "'glus-huge' is none of the models, which are glus, "),
        ({"checkpoint": "/gone"}, reason("checkpoint") + "There is no folder /gone"),
        ({"clip_path": "/gone"}, reason("clip_path") + "There is no folder /gone"),
        ({"prompt_field": "gone"}, reason("prompt_field") + "Invalid enum value"),
        ({"device": "tpu"}, reason("device") + "Invalid enum value"),
    ],
)
def test_invalid_choices_are_named(demo, params, message):
    schema = set(demo.get_frame_field_schema())
    with pytest.raises(ExecutionError, match=message):
        execute(demo, **params)
    demo.reload()
    assert set(demo.get_frame_field_schema()) == schema


def test_without_a_field_of_prompts_they_have_to_be_typed(demo):
    demo.delete_sample_field("expressions")
    assert "prompt_field" not in form(demo)
    with pytest.raises(ExecutionError, match=reason("prompts") + "Required property"):
        execute(demo)


def test_only_videos(dataset, demo, tmp_path):
    with pytest.raises(ExecutionError, match="Only videos can be segmented, but the target holds no samples"):
        execute(dataset)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "image.png")
    dataset.add_sample(fo.Sample(str(tmp_path / "image.png")))
    with pytest.raises(ExecutionError, match="the target holds image samples"):
        execute(dataset)
    assert list(form(dataset)) == ["media"]
    assert form(demo.to_frames(output_dir=str(tmp_path), sample_frames=False))["media"]["invalid"]


# --- large models, and the queue ---


def test_what_a_model_downloads_is_told(demo, tmp_path):
    notice = form(demo, model="glus-s")["model_notice"]
    assert "downloads" in texts(notice)
    assert "GiB from huggingface.co/Swindl/GLUS-S, licence: " in texts(notice)
    assert "huggingface.co/openai/clip-vit-large-patch14" in texts(notice)
    local = form(demo, model="glus-s", checkpoint=str(tmp_path), clip_path=str(tmp_path))
    assert "downloads" not in texts(local["model_notice"])
    assert "downloads" not in texts(form(demo)["model_notice"])


@pytest.mark.parametrize(
    ("scheduler", "params", "immediate"),
    [
        (True, {}, True),
        (True, {"model": "glus"}, False),
        (True, {"model": "glus", "run_now": True}, True),
        (False, {"model": "glus"}, True),  # the App would have no way to run it
    ],
)
def test_large_models_are_scheduled_where_that_is_possible(demo, monkeypatch, scheduler, params, immediate):
    monkeypatch.setattr(fo.config, "allow_legacy_orchestrators", scheduler)
    ctx = foo.ExecutionContext({"dataset_name": demo.name, "params": params})
    options = foo.get_operator(uri(NAME)).resolve_execution_options(ctx)
    assert options.allow_immediate_execution == immediate
    assert options.allow_delegated_execution
    advice = texts(form(demo, **params)["schedule_notice"])
    assert "fiftyone delegated launch" in advice
    assert ("FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS" in advice) != scheduler


def test_a_scheduled_run(demo):
    queued = foo.get_operator(uri(NAME))(demo.limit(1), prompts=["the moon"], delegate=True)
    assert queued.delegated
    assert not demo.has_frame_field("glus_tiny")
    before, done = run_queued(NAME, demo)
    assert (before.run_state, before.label) == ("queued", "Segment expressions: glus-tiny → glus_tiny")
    assert done.run_state == "completed", done.result.error
    assert (done.status.progress, done.status.label) == (1.0, "1/1 videos")
    assert (done.result.result["num_videos"], done.result.result["num_failed"]) == (1, 0)
    assert "1 masklets written into 'frames.glus_tiny'" in texts(done.metadata["outputs_schema"])
    assert demo.has_frame_field("glus_tiny")


# --- the messages to the App ---


def test_the_app_sees_progress_and_then_the_report(demo):
    *progress, reload, activate, report = messages(demo, prompts="the moon")
    assert {name for name, _ in progress} == {"set_progress"}
    fractions = [params["progress"] for _, params in progress]
    assert fractions[0] == 0
    assert fractions[-1] == 1
    assert fractions == sorted(fractions)
    assert progress[0][1]["label"] == "Loading glus-tiny"
    assert progress[-1][1]["label"] == "2/2 videos"
    assert reload[0] == "reload_dataset"
    assert activate == ("set_active_fields", {"fields": ["frames.glus_tiny", "frames.ground_truth"]})
    name, params = report
    assert name == "show_output"
    assert params["results"]["num_expressions"] == 2
    assert "2 masklets written into 'frames.glus_tiny'" in texts(params["outputs"])


def test_the_app_sees_why_a_run_failed(demo, tmp_path):
    (tmp_path / "empty").mkdir()
    *_, (name, params) = messages(demo, prompts="the moon", checkpoint=str(tmp_path / "empty"))
    assert name == "show_output"
    assert str(tmp_path / "empty") in params["results"]["error"]
    assert "Nothing was segmented" in texts(params["outputs"])
    assert params["results"]["error"] in texts(params["outputs"])


def test_a_run_goes_on_when_the_browser_is_closed():
    closed, done = threading.Event(), threading.Event()

    def work(tell):
        tell(Progress(1, 2, 0.25))
        closed.wait(10)
        tell(Progress(2, 2, 0.75))
        done.set()

    updates = stream(work)
    assert next(updates) == Progress(1, 2, 0.25)
    updates.close()
    closed.set()
    assert done.wait(10)


def test_updates_are_not_more_than_a_database_can_take():
    passed: list[Progress] = []
    tell = Throttle(passed.append)
    for number in range(1, 1001):
        tell(Progress(number, 1000, number / 1000))
    assert passed == [Progress(1, 1000, 0.001)]
