"""The operator that describes objects, through FiftyOne's real executor."""

from __future__ import annotations

import json
from functools import partial

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError

from tests import operating
from tests.chats import chat_server, said
from tests.fields_data import write_video
from tests.operating import outputs, texts, uri

describe = partial(operating.execute, "describe_objects")
form = partial(operating.form, "describe_objects")


@pytest.fixture
def video(dataset, tmp_path) -> fo.Dataset:
    """One video with a mask that has no text."""
    sample = fo.Sample(filepath=str(write_video(tmp_path / "a.mp4", num_frames=2, size=(24, 32))))
    mask = np.ones((12, 8), dtype=bool)
    for number in (1, 2):
        thing = fo.Detection(label="car", bounding_box=[0.25, 0.25, 0.25, 0.5], mask=mask, object_id="7")
        sample.frames[number] = fo.Frame(ground_truth=fo.Detections(detections=[thing]))
    dataset.add_sample(sample)
    return dataset


def test_a_run_describes_and_reports(video):
    with chat_server(
        said("a car"), said("A car."), said("CONSISTENT"), said("the car"), (400, "too large")
    ) as server:
        result = describe(video, server=server.address, model="m", result="all").result
        assert result["num_failed"] == 1
        assert result["failures"][0]["file"].endswith("a.mp4, object 7")
        assert "too large" in result["failures"][0]["reason"]
        assert "0 expressions written of 0 objects" in texts(outputs("describe_objects", result))
        server.script[:] = [said("the car that waits")]
        result = describe(video, server=server.address, model="m", result="all").result
    json.dumps(result)
    assert (result["num_expressions"], result["num_objects"], result["failures"]) == (3, 1, [])
    assert "3 expressions written of 1 objects" in texts(outputs("describe_objects", result))
    video.reload()
    found = {each.stage: each.label for each in video.first().expressions.detections}
    assert found == {"object": "a car", "scene": "the car", "video": "the car that waits"}


def test_from_python(video):
    with chat_server(said("consistent")) as server:
        operator = foo.get_operator(uri("describe_objects"))
        result = operator(video, "m", server=server.address, result="object", max_tokens=2000).result
    assert result["num_expressions"] == 1
    assert [body["max_tokens"] for _, _, body in server.requests] == [2000] * 3


def test_the_form_says_where_pictures_go(video):
    shown = form(video)
    assert shown["field"]["default"] == "ground_truth"
    assert shown["result"]["default"] == "video"
    assert shown["max_tokens"]["default"] == 512
    assert "privacy" not in shown
    assert "key_variable" not in shown
    shown = form(video, server="https://example.org/v1")
    assert "will be sent to https://example.org/v1" in texts(shown["privacy"])
    assert "key_variable" in shown
    assert shown["server"]["invalid"] is False
    refused = form(video, server="https://me:s3cret@example.org/v1")["server"]
    assert refused["invalid"] is True
    assert "key_variable" in refused["error_message"]


def test_a_target_without_masks(dataset):
    dataset.add_sample(fo.Sample(filepath="/videos/a.mp4"))
    assert "has no masks" in texts(form(dataset)["field"])
    with pytest.raises(ExecutionError, match="has no masks"):
        describe(dataset, model="m")


def test_a_model_that_is_not_there(video):
    with pytest.raises(ExecutionError, match="neither a folder nor a repository"):
        describe(video, model="/nowhere")
