"""From an image dataset through the operators that segment and evaluate, as FiftyOne runs them."""

from __future__ import annotations

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

import fiftyone_refvos as rv
from fiftyone_refvos.metrics import IMAGE_PROTOCOLS
from fiftyone_refvos.models.registry import IMAGE_MODELS
from tests.operating import execute, form, messages, outputs, reason, run_queued, texts, uri
from tests.referred_images import CASE, TEXTS, add_published_case, small_model
from tests.small_mllmseg import checkpoint_of

NAME = "segment_expressions"


@pytest.fixture
def images(dataset) -> fo.Dataset:
    return add_published_case(dataset)


@pytest.fixture(scope="module")
def chosen() -> dict[str, str]:
    """The choice of a small checkpoint."""
    return {"model": "mllmseg-8b-gres", "checkpoint": str(checkpoint_of(CASE)), "device": "cpu"}


def test_images_are_segmented_and_evaluated_by_the_operators(images, chosen) -> None:
    ran = execute(NAME, images, label_field="found", **chosen)
    result = ran.result
    assert (result["path"], result["num_samples"], result["num_expressions"]) == ("found", 2, 6)
    assert [request.params["message"] for request in ran.executor._requests][-1] == "Progress: 1.0 - 2/2 images"
    shown = texts(outputs(NAME, result))
    assert "6 masklets written into 'found'" in shown
    assert "Images segmented" in shown
    rv.segment(images, small_model(), label_field="library")
    boxes, said = "detections.bounding_box", "expressions.classifications"
    assert images.values(f"found.{boxes}") == images.values(f"library.{boxes}")
    assert images.values(f"{said}.found_no_target") == images.values(f"{said}.library_no_target")

    for protocol in IMAGE_PROTOCOLS:
        result = execute("evaluate_masklets", images, pred_field="found", protocol=protocol).result
        expected = rv.evaluate(images, "found", eval_key="direct", protocol=protocol).metrics()
        (row,) = result["table"]
        digits = 2 if result["percent"] else 4
        assert row == {"of": "all", **{name: f"{value:.{digits}f}" for name, value in expected.items()}}
        assert (result["protocol"], result["media"], result["num_expressions"]) == (protocol, "images", 6)
    measures = set(execute("evaluate_masklets", images, pred_field="found").result["measures"])
    assert {"cIoU", "gIoU", "Pr@0.5", "Pr@0.9", "N-acc", "T-acc"} <= measures


def test_the_app_shows_the_field_of_the_images(images, chosen) -> None:
    sent = messages(NAME, images, label_field="found", prompts=TEXTS[0], **chosen)
    assert [params for name, params in sent if name == "set_active_fields"] == [
        {"fields": ["found", "frames.ground_truth"]}
    ]
    (report,) = [params["results"] for name, params in sent if name == "show_output"]
    assert (report["media"], report["num_samples"], report["num_expressions"]) == ("images", 2, 2)


def test_a_scheduled_run(images, chosen) -> None:
    foo.get_operator(uri(NAME))(images, label_field="found", delegate=True, **chosen)
    _, done = run_queued(NAME, images)
    assert done.result.result["num_samples"] == 2
    assert images.values("found") != [None, None]


def test_the_form_offers_the_models_and_fields_of_images(images, chosen) -> None:
    shown = form(NAME, images)
    assert [each["value"] for each in shown["model"]["view"]["choices"]] == list(IMAGE_MODELS)
    assert shown["model"]["default"] == "mllmseg-tiny"
    assert not shown["model"]["invalid"]
    assert shown["prompt_field"]["type"]["values"] == ["expressions"]
    assert "in every image" in texts(shown["prompts"])
    assert "of the frames" not in texts(shown["label_field"])
    assert "key_frames" not in shown
    assert "clip_path" not in shown
    with pytest.raises(
        ExecutionError, match=reason("model") + "'glus-tiny' is none of the models, which are sa2va-tiny"
    ):
        execute(NAME, images, model="glus-tiny")


def test_a_field_that_exists_asks_and_a_second_run_goes_on(images, chosen) -> None:
    assert form(NAME, images, label_field="ground_truth", **chosen)["overwrite"]["invalid"]
    execute(NAME, images.limit(1), label_field="found", **chosen)
    shown = form(NAME, images, label_field="found", **chosen)
    assert "goes on with what is missing" in texts(shown)
    result = execute(NAME, images, label_field="found", **chosen).result
    assert (result["num_samples"], result["num_skipped"]) == (1, 1)
    assert form(NAME, images.to_patches("found"), **chosen)["media"]["invalid"]


def test_a_failure_is_listed_with_its_file(images, chosen) -> None:
    images.add_sample(fo.Sample(filepath="/gone/image.png"))
    result = execute(NAME, images, label_field="found", prompts=TEXTS[0], **chosen).result
    assert (result["num_samples"], result["num_failed"]) == (2, 1)
    assert [failure["file"] for failure in result["failures"]] == ["/gone/image.png"]
    assert "some images failed" in texts(outputs(NAME, result))
