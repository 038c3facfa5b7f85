"""The operators that work on evaluations, and their runs from the queue and the App."""

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone import ViewField as F
from fiftyone.operators.executor import ExecutionError

import fiftyone_refvos as rv
from fiftyone_refvos.demo import DemoConfig
from tests.measured import FLAWS, measured_demo, spoil
from tests.operating import execute, form, messages, outputs, reason, run_queued, texts, uri

CONFIG = DemoConfig(height=96, width=160, num_frames=8, max_per_kind=1)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Three videos, in which the model is good, loses the object, and is elsewhere; tests get copies of it."""
    dataset = measured_demo(tmp_path_factory.mktemp("clips"), CONFIG)
    rv.evaluate(dataset, "model", eval_key="model_eval")
    yield dataset
    dataset.delete()


@pytest.fixture(scope="module")
def remeasured(measured):
    """With a newer model that is worse in the first video, and better in the last."""
    dataset = measured.clone()
    for sample, flaw in zip(dataset, reversed(FLAWS), strict=True):
        spoil(sample, "latest", flaw)
    rv.evaluate(dataset, "latest", eval_key="latest_eval")
    yield dataset
    dataset.delete()


@pytest.fixture
def evaluated(measured):
    dataset = measured.clone()
    yield dataset
    dataset.delete()


@pytest.fixture
def compared(remeasured):
    dataset = remeasured.clone()
    yield dataset
    dataset.delete()


# --- find_failures ---


def test_failures_are_written_counted_and_kept_as_a_view(evaluated):
    result = execute("find_failures", evaluated).result
    shown = rv.show_failures(evaluated, "model_eval")
    kept = evaluated.load_saved_view(result["saved_view"])
    assert kept.values("id") == shown.values("id") == [evaluated.last().id, evaluated.skip(1).first().id]
    assert kept.values("expressions.detections.label") == shown.values("expressions.detections.label")
    written = evaluated.count_values("expressions.detections.model_eval_failure")
    assert {row["kind"]: row["expressions"] for row in result["counts"]} == {
        kind: number for kind, number in written.items() if kind != "none"
    }
    assert result["num_failures"] == sum(row["expressions"] for row in result["counts"]) > 0
    assert (result["num_good"], result["num_unjudged"], result["num_shown"]) == (written["none"], 0, 2)
    assert set(evaluated.first().expressions.detections[0].model_eval_failure) == set("none")


def test_one_kind_of_failure(evaluated):
    everything = execute("find_failures", evaluated).result
    result = execute("find_failures", evaluated, kind="late loss").result
    assert result["counts"] == everything["counts"]
    assert result["saved_view"] == "model_eval: late loss"
    view = evaluated.load_saved_view("model_eval: late loss")
    assert set(view.distinct("model_eval_failures.detections.label")) == {"late loss"}
    none = execute("find_failures", evaluated, kind="identity switch").result
    assert (none["num_shown"], none["saved_view"]) == (0, None)
    shown = outputs("find_failures", none)
    assert "none of them is of the kind identity switch" in texts(shown)
    assert "show_view" not in shown["type"]["properties"]


def test_a_view_that_has_become_empty_is_not_kept(evaluated):
    execute("find_failures", evaluated)
    for sample in evaluated:
        spoil(sample, "model", "good")
    result = execute("find_failures", evaluated).result
    assert (result["num_failures"], result["saved_view"]) == (0, None)
    assert evaluated.list_saved_views() == []


def test_failures_are_looked_for_in_the_evaluation_that_is_chosen(compared):
    assert form("find_failures", compared)["eval_key"]["default"] == "latest_eval"
    assert form("find_failures", compared)["eval_key"]["type"]["values"] == ["latest_eval", "model_eval"]
    find = foo.get_operator(uri("find_failures"))
    result = find(compared, "model_eval", kind="late loss").result
    assert (result["eval_key"], result["kind"]) == ("model_eval", "late loss")
    assert not compared.has_field("latest_eval_failures")
    with pytest.raises(ExecutionError, match=reason("kind") + "Invalid enum value"):
        find(compared, "model_eval", kind="nonsense")


# --- compare_models ---


def test_a_comparison_is_that_of_compare(compared):
    comparison = rv.compare(compared, "model_eval", "latest_eval")
    result = execute("compare_models", compared, num_regressions=2).result
    assert (result["old_key"], result["new_key"]) == ("model_eval", "latest_eval")
    assert result["wins"] == len(comparison.wins) > 0
    assert (result["losses"], result["ties"]) == (len(comparison.losses), comparison.num_ties)
    assert result["mean_delta"] == f"{comparison.mean_delta:+.4f}"
    worst = comparison.losses[0]
    assert len(result["regressions"]) == 2
    assert result["regressions"][0] == {
        "text": worst.text,
        "video": compared.first().filename,
        "old": f"{worst.a:.4f}",
        "new": f"{worst.b:.4f}",
        "delta": f"{worst.delta:+.4f}",
    }
    kept = compared.load_saved_view(result["saved_view"])
    assert kept == comparison.regressions(2)
    assert kept.values("id") == [compared.first().id]
    assert "wins" in texts(outputs("compare_models", result))


def test_a_comparison_without_losses(compared):
    for sample in compared:
        spoil(sample, "latest", "good")
    rv.evaluate(compared, "latest", eval_key="latest_eval")
    compare = foo.get_operator(uri("compare_models"))
    result = compare(compared, "model_eval", "latest_eval", measure="J").result
    assert (result["losses"], result["regressions"], result["saved_view"]) == (0, [], None)
    assert not {"regressions", "show_view"} & outputs("compare_models", result)["type"]["properties"].keys()


def test_what_a_comparison_is_of_is_checked(compared, tmp_path):
    with pytest.raises(ExecutionError, match=reason("new_key") + "Choose two different evaluations"):
        execute("compare_models", compared, old_key="latest_eval", new_key="latest_eval")
    with pytest.raises(ExecutionError, match=reason("num_regressions")):
        execute("compare_models", compared, num_regressions=0)
    assert "truth_notice" not in form("compare_models", compared)
    rv.evaluate(compared, "model", gt_field="latest", eval_key="other_truth")
    notice = form("compare_models", compared, new_key="other_truth")["truth_notice"]
    assert "different masks: 'ground_truth' and 'latest'" in texts(notice)


# --- the queue, and the App ---


@pytest.mark.parametrize(
    ("name", "args", "label", "view"),
    [
        ("evaluate_masklets", ["latest"], "Evaluate masklets: latest → latest_eval", "latest_eval: worst first"),
        ("find_failures", ["latest_eval"], "Find failures: all kinds in latest_eval", "latest_eval: failures"),
        (
            "compare_models",
            ["model_eval", "latest_eval"],
            "Compare models: model_eval → latest_eval",
            "latest_eval: worse than model_eval",
        ),
        (
            "make_pseudo_labels",
            ["latest"],
            "Make pseudo-labels: latest against ground_truth",
            "latest: lowest IoU first",
        ),
    ],
)
def test_a_scheduled_run_leaves_its_view_by_name(compared, name, args, label, view):
    assert foo.get_operator(uri(name))(compared, *args, delegate=True).delegated
    before, done = run_queued(name, compared)
    assert (before.run_state, before.label) == ("queued", label)
    assert done.run_state == "completed", done.result.error
    assert (done.status.progress, done.status.label) == (1.0, "3/3 videos")
    assert done.result.result["saved_view"] == view
    assert view in texts(done.metadata["outputs_schema"])
    assert compared.load_saved_view(view).values("id")[0] == compared.first().id  # where the newer model is elsewhere


def test_the_app_shows_failures_right_away_and_the_way_back(evaluated):
    former = evaluated.match(F("model_eval_JF") < 2)
    *_, activate, (name, shown), (_, report) = messages("find_failures", evaluated, view=former)
    assert activate[1]["fields"] == ["frames.ground_truth", "frames.model", "model_eval_failures"]
    assert name == "set_view"
    assert fo.DatasetView._build(evaluated, shown["view"]) == rv.show_failures(former, "model_eval")
    back = report["outputs"]["type"]["properties"]["back"]["view"]
    assert back["operator"] == uri("show_view")
    assert fo.DatasetView._build(evaluated, back["params"]["stages"]) == former


def test_buttons_show_saved_views_and_former_ones(evaluated):
    evaluated.save_view("worst", evaluated.sort_by("model_eval_JF"))
    for params, view in (
        ({"name": "worst"}, evaluated.sort_by("model_eval_JF")),
        ({"stages": evaluated.limit(1)._serialize()}, evaluated.limit(1)),
        ({"stages": []}, evaluated.view()),
    ):
        (request,) = execute("show_view", evaluated, **params).executor._requests
        assert request.operator_uri == "set_view"
        assert fo.DatasetView._build(evaluated, request.params["view"]) == view
    with pytest.raises(ExecutionError, match="gone"):
        execute("show_view", evaluated, name="gone")
