"""The operator and the verb that ask a model, through FiftyOne's real executor and the real command line."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError
from PIL import Image

from fiftyone_refvos.cli import main
from fiftyone_refvos.models.registry import ANSWERING
from tests import operating
from tests.operating import outputs, reason, texts, uri
from tests.scripted_sa2va import small_checkpoint
from tests.small import noise_video

SAID = "Sure, ."  # what the golden network says, without [SEG]

ask = partial(operating.execute, "ask_model")
form = partial(operating.form, "ask_model")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("sa2va") / "checkpoint")


@pytest.fixture
def images(dataset: fo.Dataset, tmp_path: Path) -> fo.Dataset:
    """A picture of noise with a box."""
    (picture,) = noise_video(1).frames
    Image.fromarray(picture).save(tmp_path / "0.png")
    boxes = fo.Detections(detections=[fo.Detection(label="box", bounding_box=[0.25, 0.25, 0.5, 0.5])])
    dataset.add_sample(fo.Sample(str(tmp_path / "0.png"), boxes=boxes))
    return dataset


def test_each_task_writes_what_the_library_writes_and_is_reported(images: fo.Dataset, checkpoint: Path) -> None:
    options = {"checkpoint": str(checkpoint), "device": "cpu", "run_now": True}
    result = ask(images, question="Where is it?", label_field="where", **options).result
    json.dumps(result)
    assert (result["field"], result["num_answers"], result["num_failed"]) == ("answer", 1, 0)
    images.reload()
    assert images.values("answer") == [SAID]
    assert images.distinct("where.detections.label") == ["Where is it?"]
    assert images.get_run_info("answers_answer").config.model["name"] == ANSWERING[0]
    assert "1 texts written into 'answer'" in texts(outputs("ask_model", result))
    captioned = foo.get_operator(uri("ask_model"))(
        images, ANSWERING[0], task="regions", regions_field="boxes", checkpoint=str(checkpoint), device="cpu"
    )
    assert captioned.result["field"] == "boxes.detections.caption"
    images.reload()
    assert images.values("boxes.detections.caption") == [[SAID]]
    described = ask(images, task="caption", field="said", **options).result
    assert described["field"] == "said"
    images.reload()
    assert images.values("said") == [SAID]
    assert images.has_sample_field("things")


def test_the_form_shows_what_a_task_needs(images: fo.Dataset) -> None:
    shown = form(images)
    assert shown["model"]["type"]["values"] == list(ANSWERING)
    assert shown["model"]["default"] == ANSWERING[0]
    assert shown["question"]["required"]
    assert "regions_field" not in shown
    regions = form(images, task="regions")
    assert regions["regions_field"]["default"] == "boxes"
    assert "question" not in regions
    assert "label_field" not in regions
    images.delete_sample_field("boxes")
    assert "no images with Detections or Keypoints" in texts(form(images, task="regions")["regions_field"])


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, reason("question") + "Required property"),
        (
            {"question": "What?", "model": "glus"},
            reason("model") + "'glus' is none of the models",
        ),
        ({"question": "What?", "field": "no field"}, reason("field") + "'no field' cannot be a field"),
        ({"task": "caption", "label_field": "1"}, reason("label_field") + "'1' cannot be a field"),
    ],
)
def test_invalid_choices_are_named(images: fo.Dataset, params: dict[str, str], message: str) -> None:
    with pytest.raises(ExecutionError, match=message):
        ask(images, **params)


def test_the_verb_does_each_task(images: fo.Dataset, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--checkpoint", str(checkpoint), "--device", "cpu"]
    assert main(["ask", images.name, "--question", "What is it?", "--field", "what", *options]) == 0
    assert "1 answers about 1 samples written to 'what'" in capsys.readouterr().out
    assert main(["ask", images.name, "--regions-field", "boxes", "--field", "words", *options]) == 0
    assert main(["ask", images.name, "--describe", "--field", "said", "--label-field", "shown", *options]) == 0
    images.reload()
    assert (images.values("what"), images.values("said")) == ([SAID], [SAID])
    assert images.values("boxes.detections.words") == [[SAID]]
    assert all(np.any(each.mask) for each in images.first().shown.detections)
    assert main(["ask", images.name, "--describe", "--field", "other", *options]) == 1
    assert "--describe needs --label-field" in capsys.readouterr().err


def test_the_app_shows_texts_and_masks(images: fo.Dataset, checkpoint: Path) -> None:
    options = {"checkpoint": str(checkpoint), "device": "cpu", "run_now": True}
    for params, shown in (
        ({"question": "Where is it?", "label_field": "where"}, ["answer", "where"]),
        ({"task": "regions", "regions_field": "boxes"}, ["boxes"]),
    ):
        sent = operating.messages("ask_model", images, **params, **options)
        assert [each for name, each in sent if name == "set_active_fields"] == [
            {"fields": sorted([*shown, "frames.ground_truth"])}
        ]
