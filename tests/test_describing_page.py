"""docs/describing.md: its Python runs as it stands, and what it says of the interface is so."""

from __future__ import annotations

import re
from typing import Any, get_args

import fiftyone as fo
import numpy as np
import pytest

import fiftyone_refvos as rv
from fiftyone_refvos.cli import main
from fiftyone_refvos.describing import ServerChat
from fiftyone_refvos.describing.chat import MAX_TOKENS
from fiftyone_refvos.describing.prompts import OWN, STEPS
from fiftyone_refvos.fields.descriptions import State
from tests.chats import chat_server, said
from tests.conftest import REPOSITORY
from tests.fields_data import write_video

PAGE = (REPOSITORY / "docs" / "describing.md").read_text(encoding="utf-8")


def thing() -> fo.Detection:
    return fo.Detection(label="car", bounding_box=[0.25, 0.25, 0.25, 0.5], mask=np.ones((12, 8), dtype=bool), index=1)


def test_the_page_runs_as_it_stands(dataset, tmp_path, monkeypatch, capsys):
    sample = fo.Sample(filepath=str(write_video(tmp_path / "a.mp4", num_frames=3, size=(24, 32))))
    for number in (1, 2, 3):
        sample.frames[number] = fo.Frame(
            ground_truth=fo.Detections(detections=[thing()]), other_masks=fo.Detections(detections=[thing()])
        )
    dataset.add_sample(sample)
    text = OWN.read_text(encoding="utf-8").replace("name: refvos-en", "name: mine")
    (tmp_path / "my_prompts.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"rv": rv, "fo": fo, "dataset": dataset}
    with chat_server(said("CONSISTENT")) as server:
        for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
            exec(block.replace("http://127.0.0.1:8000/v1", server.address), names)
    assert len(server.requests) == 2 * len(STEPS)
    assert "1 expressions of 1 objects in 'frames.ground_truth' of 1 videos" in capsys.readouterr().out
    assert names["written"].count("expressions.detections") == 2  # of both fields: a view looks anew
    assert names["rejected"].count("ground_truth_descriptions.detections") == 0
    assert names["report"].num_expressions == 1
    (first, _) = dataset.first().expressions.detections
    assert first.stage_answers[0]["prompt"] == "mine/crop"
    dataset.delete()


def test_tables_and_defaults():
    steps = re.findall(r"^\| (?:`\w+` )?\| `(\w+)` \|", PAGE, flags=re.MULTILINE)
    assert tuple(steps) == STEPS
    assert all(f"`{state}`" in PAGE for state in get_args(State))
    chat = ServerChat("http://host/v1", "m")
    said_of = {
        name: int(number) for name, number in re.findall(r"`(\w+)=`[^`(]*\((\d+)\)", PAGE.split("- `ServerChat")[1])
    }
    assert said_of == {
        "timeout": chat.timeout,
        "attempts": chat.attempts,
        "backoff": chat.backoff,
        "max_tokens": chat.max_tokens,
        "max_new_tokens": MAX_TOKENS,
    }


def test_the_command_describes(dataset, tmp_path, capsys):
    sample = fo.Sample(filepath=str(write_video(tmp_path / "a.mp4", num_frames=2, size=(24, 32))))
    sample.frames[1] = fo.Frame(ground_truth=fo.Detections(detections=[thing()]))
    dataset.add_sample(sample)
    with chat_server(said("CONSISTENT")) as server:
        command = ["describe", dataset.name, "some-model", "--server", server.address]
        assert main([*command, "--stage", "object", "--stage", "scene", "--max-tokens", "2000"]) == 0
    assert [body["max_tokens"] for _, _, body in server.requests] == [2000] * 4
    assert "2 expressions of 1 objects" in capsys.readouterr().out
    assert main(["describe", dataset.name, "some-model", "--server", server.address, "--device", "cpu"]) == 1
    assert "leave out the device" in capsys.readouterr().err
    assert main(["describe", dataset.name, "some-model", "--key-variable", "KEY"]) == 1
    assert "a key is for a server" in capsys.readouterr().err
    options = re.findall(r"--[a-z-]+", "".join(re.findall(r"^refvos describe .*$", PAGE, flags=re.MULTILINE)))
    with pytest.raises(SystemExit, match="0"):
        main(["describe", "--help"])
    shown = capsys.readouterr().out
    assert options
    assert all(option in shown for option in options)
