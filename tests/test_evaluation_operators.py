"""The operators that evaluate and make pseudo-labels, through FiftyOne's real registry, executor and queue."""

import json

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError
from PIL import Image

import fiftyone_refvos as rv
from fiftyone_refvos.demo import DemoConfig
from fiftyone_refvos.metrics import PROTOCOLS
from tests.measured import add_broken_video, measured_demo
from tests.operating import execute, form, messages, outputs, reason, texts, uri

CONFIG = DemoConfig(height=96, width=160, num_frames=8, max_per_kind=1)
MEASURING = ("evaluate_masklets", "find_failures", "compare_models", "make_pseudo_labels")


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture
def demo(clips):
    """Three videos, in which the model is good, loses the object, and is elsewhere."""
    dataset = measured_demo(clips, CONFIG)
    yield dataset
    dataset.delete()


# --- evaluate_masklets ---


def test_an_evaluation_writes_what_evaluate_writes(demo):
    result = execute("evaluate_masklets", demo).result
    expected = rv.evaluate(demo, "model", eval_key="by_library")
    assert demo.list_evaluations(method="refvos") == ["by_library", "model_eval"]
    for path in ("{}_JF", "expressions.detections.{}_J", "frames.model.detections.{}_F"):
        assert demo.values(path.format("model_eval")) == demo.values(path.format("by_library"))
    assert result["eval_key"] == "model_eval"
    assert (result["num_samples"], result["num_failed"], result["failures"]) == (3, 0, [])
    assert result["num_expressions"] == len(expected.expressions)
    assert result["table"][0] == {"of": "all", **{k: f"{v:.4f}" for k, v in expected.metrics().items()}}
    worst = demo.load_saved_view(result["saved_view"])
    assert worst.values("id") == demo.values("id")[::-1]  # elsewhere, lost, good
    assert worst.values("model_eval_JF") == sorted(demo.values("model_eval_JF"))
    json.dumps(result)


def test_the_report_of_an_evaluation(demo):
    result = execute("evaluate_masklets", demo, protocol="ref-sav", eval_key="revos").result
    assert demo.get_evaluation_info("revos").config.protocol == "ref-sav"
    shown = outputs("evaluate_masklets", result)
    inputs = shown["type"]["properties"]
    assert [column["key"] for column in inputs["table"]["view"]["columns"]][:2] == ["of", result["measures"][0]]
    assert "ref-sav, percent" in texts(shown)
    assert inputs["show_view"]["view"]["operator"] == uri("show_view")
    assert inputs["show_view"]["view"]["params"] == {"name": "revos: worst first"}
    assert "failures" not in inputs


def test_a_video_with_errors_ends_an_evaluation_or_is_listed(demo):
    broken = add_broken_video(demo)
    with pytest.raises(ExecutionError, match=rf"sample {broken.id} .* not predicted"):
        execute("evaluate_masklets", demo)
    assert demo.list_evaluations() == []
    result = execute("evaluate_masklets", demo, skip_failures=True).result
    assert (result["num_samples"], result["num_failed"]) == (3, 1)
    assert result["failures"][0]["file"] == "/gone/broken.mp4"
    assert "not predicted" in texts(result["failures"])
    assert "left out" in texts(outputs("evaluate_masklets", result))
    assert broken.id not in demo.load_saved_view("model_eval: worst first").values("id")


def test_of_a_view_its_videos_are_evaluated(demo):
    result = execute("evaluate_masklets", demo.limit(2)).result
    assert result["num_samples"] == 2
    assert len(demo.load_saved_view(result["saved_view"])) == 2
    clips = demo.to_clips("expressions")
    assert execute("evaluate_masklets", clips).result["num_samples"] == 3
    assert len(demo.load_saved_view(result["saved_view"])) == 3


def test_the_form_lists_what_there_is(demo):
    demo.add_frame_field("boxes", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    shown = form("evaluate_masklets", demo)
    for name, default in (("pred_field", "model"), ("gt_field", "ground_truth")):
        assert sorted(shown[name]["type"]["values"]) == ["ground_truth", "model"]
        assert shown[name]["default"] == default
    assert "expressions_field" not in shown  # there is one
    assert shown["eval_key"]["view"]["placeholder"] == "model_eval"
    assert form("evaluate_masklets", demo, eval_key="mine")["eval_key"]["view"]["placeholder"] == "mine"
    protocols = {choice["value"]: choice["description"] for choice in shown["protocol"]["view"]["choices"]}
    assert protocols["mevis"] == PROTOCOLS["mevis"].description == shown["protocol"]["view"]["description"]
    assert {"revos", "ref-sav", "ref-davis17-per-annotator", "reasonvos"} <= protocols.keys()


def test_a_key_that_exists_is_told(demo):
    assert "eval_key_notice" not in form("evaluate_masklets", demo)
    execute("evaluate_masklets", demo, protocol="reasonvos")
    notice = texts(form("evaluate_masklets", demo)["eval_key_notice"])
    assert "'model_eval' exists already: 'model' against 'ground_truth' by reasonvos" in notice
    assert "eval_key_notice" not in form("evaluate_masklets", demo, eval_key="another")
    execute("evaluate_masklets", demo)
    assert demo.get_evaluation_info("model_eval").config.protocol == "mevis"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"eval_key": "my eval"}, reason("eval_key") + "'my eval' cannot be a name of an evaluation"),
        ({"pred_field": "ground_truth"}, reason("pred_field") + "Choose two different fields"),
        ({"pred_field": "gone"}, reason("pred_field") + "Invalid enum value"),
        ({"protocol": "nonsense"}, reason("protocol") + "Invalid enum value"),
    ],
)
def test_invalid_choices_are_named(demo, params, message):
    schema = set(demo.get_field_schema(flat=True))
    with pytest.raises(ExecutionError, match=message):
        execute("evaluate_masklets", demo, **params)
    demo.reload()
    assert set(demo.get_field_schema(flat=True)) == schema


def test_evaluations_of_other_kinds_are_not_replaced(demo):
    demo.set_values("cat", [fo.Classification(label="a")] * 3)
    demo.evaluate_classifications("cat", gt_field="cat", eval_key="model_eval")
    with pytest.raises(ExecutionError, match=reason("eval_key") + "'model_eval' is an evaluation of another kind"):
        execute("evaluate_masklets", demo)
    assert form("find_failures", demo)["evaluations"]["invalid"]  # it is no candidate there either


def test_the_app_shows_progress_the_score_and_the_report(demo):
    *progress, reload, activate, report = messages("evaluate_masklets", demo)
    assert {name for name, _ in progress} == {"set_progress"}
    assert progress[0][1]["label"] == "Reading model"
    assert progress[-1][1] == {"label": "3/3 videos", "progress": 1.0}
    assert reload[0] == "reload_dataset"
    assert activate == ("set_active_fields", {"fields": ["frames.ground_truth", "model_eval_JF"]})
    assert report[0] == "show_output"
    assert report[1]["results"]["num_samples"] == 3


def test_the_app_sees_why_a_run_failed(demo):
    broken = add_broken_video(demo)
    *_, (name, params) = messages("evaluate_masklets", demo)
    assert name == "show_output"
    assert broken.id in params["results"]["error"]
    assert "Nothing was evaluated" in texts(params["outputs"])


# --- what all refuse ---


@pytest.mark.parametrize("name", MEASURING)
def test_a_dataset_without_samples_is_refused(dataset, name):
    assert form(name, dataset)["media"]["invalid"]


@pytest.mark.parametrize("name", ["find_failures", "make_pseudo_labels"])
def test_only_videos(dataset, name, tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "image.png")
    dataset.add_sample(fo.Sample(str(tmp_path / "image.png")))
    with pytest.raises(ExecutionError, match="Only videos can be .*, but the target holds image samples"):
        execute(name, dataset)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("evaluate_masklets", "Two fields with masklets are needed, .* but it is: ground_truth"),
        ("make_pseudo_labels", "Two fields with masklets are needed, .* but it is: ground_truth"),
        ("find_failures", "There is no evaluation of masklets yet"),
        ("compare_models", "Two evaluations of masklets are needed, but there are none"),
    ],
)
def test_without_candidates_the_form_says_what_to_do(demo, name, message):
    demo.delete_frame_field("model")
    with pytest.raises(ExecutionError, match=message):
        execute(name, demo)
    assert len(form(name, demo)) == 1


# --- make_pseudo_labels ---


def test_pseudo_labels_are_written_into_the_dataset_and_files(demo, tmp_path):
    result = execute("make_pseudo_labels", demo, folder=str(tmp_path / "labels")).result
    by_operator = demo.values("frames.model.detections.iou")
    labels = rv.make_pseudo_labels(demo, "model")
    assert by_operator == demo.values("frames.model.detections.iou")
    assert set(np.unique([iou for ious in by_operator[0] for iou in ious])) == {1.0}
    assert (result["num_labels"], result["num_videos"], result["num_failed"]) == (len(labels.labels), 3, 0)
    files = sorted((tmp_path / "labels").rglob("*.json"))
    assert result["num_files"] == len(files) == len(labels.labels)
    first = labels.labels[0]
    assert json.loads((tmp_path / "labels" / first.video / f"{first.expression_id}.json").read_text()) == list(
        first.ious
    )
    assert demo.load_saved_view(result["saved_view"]).values("id") == demo.values("id")[::-1]


def test_files_that_exist_are_kept_and_the_labels_too(demo, tmp_path):
    make = foo.get_operator(uri("make_pseudo_labels"))
    assert make(demo, "model", folder=str(tmp_path)).result["export_error"] is None
    (file, *_) = sorted(tmp_path.rglob("*.json"))
    file.write_text("mine")
    result = make(demo, "model", folder=str(tmp_path), absent_policy="zero").result
    assert "exists: choose another folder" in result["export_error"]
    assert (result["num_files"], file.read_text()) == (0, "mine")
    assert result["num_labels"] > 0
    assert "No files were written" in texts(outputs("make_pseudo_labels", result))
    assert make(demo, "model", folder=str(tmp_path), overwrite=True).result["num_files"] > 0
    assert file.read_text() != "mine"


def test_the_form_of_pseudo_labels(demo, tmp_path):
    shown = form("make_pseudo_labels", demo)
    assert shown["absent_policy"]["type"]["values"] == ["one", "zero", "skip"]
    assert "as in GLUS" in texts(shown["absent_policy"])
    assert "overwrite" not in shown
    assert "overwrite" in form("make_pseudo_labels", demo, folder=str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(ExecutionError, match=reason("folder") + ".*is a file, not a folder"):
        execute("make_pseudo_labels", demo, folder=str(tmp_path / "file"))
