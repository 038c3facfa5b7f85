"""The operators that train and that load what was trained, through FiftyOne's real executor and queue."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from uuid import uuid4

import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

import fiftyone_refvos as rv
from fiftyone_refvos import fields, run_records
from fiftyone_refvos.demo import DemoConfig
from fiftyone_refvos.models.adapters import AdapterError, read_adapter
from tests import operating
from tests.operating import outputs, reason, run_queued, texts, uri

DEMO = DemoConfig(height=96, width=160, num_frames=8, max_per_kind=1)
RECIPE = {"steps": 2, "batch_size": 1, "accumulation": 1, "validate_every": 2}

train = partial(operating.execute, "train_model")
train_form = partial(operating.form, "train_model")
load = partial(operating.execute, "load_adapter")
load_form = partial(operating.form, "load_adapter")


@pytest.fixture(scope="module", autouse=True)
def cpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        yield


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture
def demo(clips, fiftyone_home):
    """Three videos with their expressions."""
    dataset = rv.demo.load(num_videos=3, config=DEMO, folder=clips, name=f"test-{uuid4().hex[:12]}")
    yield dataset
    dataset.delete()


@pytest.fixture(scope="module")
def trainings(clips, fiftyone_home, tmp_path_factory) -> Path:
    """A folder with the training `dogs` of glus-tiny."""
    dataset = rv.demo.load(num_videos=1, config=DEMO, folder=clips, name=f"test-{uuid4().hex[:12]}")
    folder = tmp_path_factory.mktemp("trainings")
    rv.train(dataset, folder=folder / "dogs", config=rv.TrainingConfig(steps=1, batch_size=1, accumulation=1))
    dataset.delete()
    return folder


# --- train_model ---


def test_a_training_makes_what_train_makes(demo, tmp_path):
    options = {"validation": "share", "validation_share": 0.3, "patience": 2}
    result = train(demo, folder=str(tmp_path / "run"), **options, **RECIPE)
    progress = [request.params["message"] for request in result.executor._requests]
    assert progress[0] == "Progress: 0.0 - Loading glus-tiny, and reading 'ground_truth'"
    assert progress[-1] == "Progress: 1.0 - 2 steps"
    found = result.result
    training, validation = rv.hold_out(demo, 0.3)
    config = rv.TrainingConfig(steps=2, batch_size=1, accumulation=1, warmup_steps=1, patience=2)
    expected = rv.train(training, folder=tmp_path / "library", config=config, validation_view=validation)
    assert "without a target" in found["data"][0]["report"]
    assert (found["steps"], found["validation"]) == (2, f"{expected.validation:.4f}")
    assert read_adapter(Path(found["adapter"])).facts == read_adapter(expected.adapter).facts
    assert {path.name for path in Path(found["checkpoint"]).iterdir()} >= {"config.json", "model.safetensors"}
    json.dumps(found)

    shown = outputs("train_model", found)
    assert f"glus-tiny was trained for 2 steps: the adapter is in {tmp_path}/run/adapter" in texts(shown)
    curves = shown["type"]["properties"]["curves"]["view"]
    assert {trace["name"] for trace in curves["data"]} >= {"ce", "bce", "dice", "total", "validation J&F"}
    assert all(trace["x"] == [1, 2] for trace in curves["data"] if trace["name"] == "total")
    button = shown["type"]["properties"]["load_adapter"]["view"]
    assert (button["operator"], button["prompt"]) == (uri("load_adapter"), True)
    assert button["params"] == {"model": "glus-tiny", "adapters_folder": str(tmp_path / "run")}
    local = outputs("train_model", {**found, "base": {"checkpoint": "/weights", "clip_path": None}})
    button = local["type"]["properties"]["load_adapter"]["view"]
    assert button["params"]["checkpoint"] == "/weights"  # an adapter fits the weights that it was trained on


def test_a_scheduled_training_of_expressions_that_mean_nothing(demo, tmp_path):
    demo.save_view("held out", demo.limit(1))
    queued = foo.get_operator(uri("train_model"))(
        demo.skip(1), tmp_path / "run", validation="view:held out", no_target=True, delegate=True, **RECIPE
    )
    assert queued.delegated
    before, done = run_queued("train_model", demo)
    assert (before.run_state, before.label) == ("queued", f"Train model: glus-tiny → {tmp_path}/run")
    assert done.run_state == "completed", done.result.error
    assert (done.status.progress, done.status.label) == (1.0, "2 steps")
    assert "expressions of 2 videos" in done.result.result["data"][0]["report"]
    assert "without a target" not in done.result.result["data"][0]["report"]  # none is left out
    assert (tmp_path / "run" / "adapter" / "adapter.json").is_file()


def test_the_form_of_a_training(demo, tmp_path):
    shown = train_form(demo)
    assert (shown["masklets_field"]["default"], shown["steps"]["default"]) == ("ground_truth", 3000)
    assert shown["folder"]["required"]
    assert shown["no_target"]["default"] is False
    assert "validation_share" not in shown
    assert "patience" not in shown
    demo.save_view("held out", demo.limit(1))
    choices = train_form(demo, validation="share")["validation"]["type"]["values"]
    assert choices == ["none", "share", "view:held out"]
    assert train_form(demo, validation="share")["validation_share"]["default"] == 0.1
    assert not train_form(demo, validation="share")["patience"]["required"]
    (tmp_path / "checkpoints").mkdir()
    assert "with the same settings it goes on" in texts(train_form(demo, folder=str(tmp_path))["folder_notice"])
    assert "Better schedule it" in texts(train_form(demo, model="glus-s")["schedule_notice"])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"folder": None}, reason("folder") + "Required property"),
        ({"folder": "relative"}, reason("folder") + "'relative' is not an absolute path"),
        ({"steps": 0}, reason("recipe") + "steps is 0; it must be at least 1"),
        ({"learning_rate": -1.0}, reason("recipe") + "learning_rate is -1.0; it must be above 0"),
        ({"model": "glus-huge"}, reason("model") + "'glus-huge' is none of the models"),
        ({"validation": "share", "validation_share": 1.5}, reason("validation_share") + "Choose a share between"),
        ({"validation": "view:gone"}, reason("validation") + "Invalid enum value"),
        ({"masklets_field": "gone"}, reason("masklets_field") + "Invalid enum value"),
    ],
)
def test_invalid_trainings_are_named(demo, tmp_path, params, message):
    given = {"folder": str(tmp_path / "run"), **params}
    with pytest.raises(ExecutionError, match=message):
        train(demo, **{name: value for name, value in given.items() if value is not None})
    assert list(tmp_path.iterdir()) == []


def test_only_videos_with_masks_of_expressions(dataset, demo):
    assert "the target holds no samples" in texts(train_form(dataset))
    assert "the target holds clips" in texts(train_form(demo.to_clips("expressions")))
    demo.delete_frame_field("ground_truth")
    assert "no field with masks of expressions to learn" in texts(train_form(demo))


def test_the_app_sees_steps_and_then_the_curves(demo, tmp_path):
    sent = operating.messages("train_model", demo, folder=str(tmp_path / "run"), **RECIPE)
    labels = [params["label"] for name, params in sent if name == "set_progress"]
    assert labels[-1] == "2/2 steps"
    name, params = sent[-1]
    assert name == "show_output"
    assert "curves" in params["outputs"]["type"]["properties"]
    assert params["results"]["steps"] == 2


def test_the_app_sees_why_a_training_failed(demo, tmp_path):
    for sample in demo:
        for frame in sample.frames.values():
            frame.ground_truth = None
        sample.save()
    *_, (name, params) = operating.messages("train_model", demo, folder=str(tmp_path / "run"), **RECIPE)
    assert name == "show_output"
    assert "there is nothing to train on in 'ground_truth' of 3 videos" in params["results"]["error"]
    assert "The training failed" in texts(params["outputs"])


# --- load_adapter ---


def test_masklets_of_an_adapter_stand_beside_those_of_its_model(demo, trainings):
    rv.segment(demo, "glus-tiny", label_field="before")
    result = load(demo, adapters_folder=str(trainings), device="cpu").result
    count = demo.count("expressions.detections")
    assert (result["label_field"], result["num_samples"], result["num_expressions"]) == ("dogs", 3, count)
    demo.reload()
    made = run_records.made_by(demo, "dogs") or {}
    adapter = read_adapter(trainings / "dogs" / "adapter")
    assert (made["name"], made["adapter"]) == ("glus-tiny", str(adapter.folder))
    assert made["adapter_digest"] == adapter.digest
    assert f"{count} masklets written into 'frames.dogs'" in texts(outputs("load_adapter", result))
    sample = demo.first()
    assert fields.read_masklets(sample, "dogs") != []
    again = load(demo, adapters_folder=str(trainings), device="cpu").result
    assert (again["num_samples"], again["num_skipped"]) == (0, 3)


def test_adapters_are_chosen_from_a_list(demo, trainings, tmp_path):
    shutil.copytree(trainings, tmp_path / "trainings")
    other = tmp_path / "trainings" / "cats" / "adapter"
    shutil.copytree(trainings / "dogs" / "adapter", other)
    values = json.loads((other / "adapter.json").read_text())
    (other / "adapter.json").write_text(
        json.dumps({**values, "base": "glus-s", "facts": {"steps": 9, "validation": 0.5}})
    )
    folder = str(tmp_path / "trainings")
    shown = load_form(demo, adapters_folder=folder)["adapter"]
    assert [choice["label"] for choice in shown["view"]["choices"]] == [
        "cats/adapter: glus-s, 9 steps, J&F 0.5000",
        "dogs/adapter: glus-tiny, 1 steps",
    ]
    assert shown["required"]
    chosen = load_form(demo, adapters_folder=folder, adapter=str(other), model="glus-tiny")["adapter"]
    assert chosen["invalid"]
    assert not load_form(demo, adapters_folder=folder, adapter=str(other), model="glus-s")["adapter"]["invalid"]
    with pytest.raises(ExecutionError, match=reason("adapter") + "It was trained on glus-s"):
        load(demo, adapters_folder=folder, adapter=str(other), model="glus-tiny")


def test_folders_without_adapters(demo, tmp_path):
    assert load_form(demo)["adapters_folder"]["required"]
    assert "There is no adapter in" in texts(load_form(demo, adapters_folder=str(tmp_path)))
    with pytest.raises(ExecutionError, match=reason("adapters_folder") + "There is no folder /gone"):
        load(demo, adapters_folder="/gone/trainings")
    with pytest.raises(AdapterError, match="is no adapter"):
        foo.get_operator(uri("load_adapter"))(demo, tmp_path)


def test_an_adapter_from_python(demo, trainings):
    loaded = foo.get_operator(uri("load_adapter"))(
        demo.limit(1), trainings / "dogs" / "adapter", label_field="mine", prompts=["the moon"], device="cpu"
    )
    assert (loaded.result["label_field"], loaded.result["num_expressions"]) == ("mine", 1)
