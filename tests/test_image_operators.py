"""The operators that measure, on images."""

from __future__ import annotations

import fiftyone as fo
import fiftyone.operators as foo
import pytest
from fiftyone.operators.executor import ExecutionError

import fiftyone_refvos as rv
from fiftyone_refvos.metrics import IMAGE_PROTOCOLS
from tests.image_masks import add_images
from tests.operating import execute, form, outputs, reason, run_queued, texts, uri


@pytest.fixture
def images(dataset) -> fo.Dataset:
    return add_images(dataset)


def test_an_evaluation_writes_what_evaluate_writes(images):
    expected = rv.evaluate(images, "model", gt_field="truth", eval_key="direct")
    result = execute("evaluate_masklets", images, gt_field="truth").result
    assert images.values("model_eval_iou") == images.values("direct_iou")
    assert result["table"] == [
        {
            "of": "all",
            **{
                name: f"{value:.{2 if expected.report()['percent'] else 4}f}"
                for name, value in expected.metrics().items()
            },
        }
    ]
    assert (result["media"], result["num_samples"], result["num_expressions"]) == ("images", 2, 6)
    shown = texts(outputs("evaluate_masklets", result))
    assert "6 expressions of 2 images evaluated" in shown
    assert "By the protocol gres, percent, N-acc and T-acc from 0 to 1" in shown
    assert "Show the worst images first" in shown
    worst = images.load_saved_view("model_eval: worst first").values("model_eval_iou")
    assert worst == sorted(worst)


def test_a_scheduled_evaluation_takes_the_protocol_of_images(images):
    evaluate = foo.get_operator(uri("evaluate_masklets"))
    evaluate(images, "model", gt_field="truth", delegate=True)
    run_queued("evaluate_masklets", images)
    assert images.get_evaluation_info("model_eval").config.protocol == "gres"


def test_the_form_lists_the_protocols_of_images(images):
    shown = form("evaluate_masklets", images)
    assert [choice["value"] for choice in shown["protocol"]["view"]["choices"]] == list(IMAGE_PROTOCOLS)
    with pytest.raises(ExecutionError, match=reason("protocol")):
        execute("evaluate_masklets", images, gt_field="truth", protocol="mevis")


def test_two_models_are_compared_by_the_iou(images):
    for key, field in (("old", "model"), ("new", "truth")):
        rv.evaluate(images, field, gt_field="truth" if field == "model" else "model", eval_key=key)
    shown = form("compare_models", images)
    assert [choice["value"] for choice in shown["measure"]["view"]["choices"]] == ["iou"]
    result = execute("compare_models", images, old_key="old", new_key="new").result
    assert (result["measure"], result["ties"]) == ("IoU", 6)  # the IoU is the same both ways
