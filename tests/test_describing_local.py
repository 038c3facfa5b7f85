"""`TransformersChat`, with a tiny LLaVA: alone, and through all stages of a description."""

from __future__ import annotations

import json
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import fiftyone_refvos as rv
from fiftyone_refvos.describing import ChatError
from fiftyone_refvos.describing.local import TransformersChat
from tests.described import add_videos, expressions, records
from tests.small_llava import WORDS, saying, write_llava


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_llava(tmp_path_factory.mktemp("llava"))


def picture(value: int) -> np.ndarray:
    return np.full((20, 40, 3), value, dtype=np.uint8)


def test_it_answers_with_and_without_pictures(folder) -> None:
    chat = saying(TransformersChat(folder, device="cpu", max_new_tokens=4), *["a red dog </s>", "it </s>", "a </s>"])
    answers = [chat.ask(images, "what is it") for images in ([], [picture(0)], [picture(0), picture(255)])]
    assert answers == ["a red dog", "it", "a"]  # as many tokens as may be, the end included, in the first
    assert chat.identity == {"chat": "transformers", "model": str(folder)}


def test_an_answer_that_does_not_end_is_an_error_that_names_the_limit(folder) -> None:
    with pytest.raises(ValueError, match="max_new_tokens is 0; it must be positive"):
        TransformersChat(folder, max_new_tokens=0)
    chat = saying(TransformersChat(folder, device="cpu", max_new_tokens=3), "a red dog")
    with pytest.raises(ChatError, match="does not end within 3 tokens: raise max_new_tokens .* 'a red dog'"):
        chat.ask([], "what is it")
    free = TransformersChat(folder, device="cpu", max_new_tokens=3)
    messages = set()
    for _ in range(2):
        with pytest.raises(ChatError) as caught:
            free.ask([picture(0)], "what is it")
        messages.add(str(caught.value))
    assert len(messages) == 1  # the most likely answer, not a sampled one


def test_pictures_and_question_reach_the_model(folder) -> None:
    chat = saying(TransformersChat(folder, device="cpu", max_new_tokens=1), "</s>")
    seen: dict[str, torch.Tensor] = {}
    chat.model.register_forward_pre_hook(lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True)
    tower = chat.model.get_submodule("model.vision_tower")
    tower.register_forward_pre_hook(lambda _, args: seen.update(pixel_values=args[0]))
    chat.ask([picture(0), picture(255)], "what is it")
    ids = seen["input_ids"][0].tolist()
    assert ids.count(WORDS.index("<image>")) == 2 * 4  # two pictures of 2x2 patches
    assert [WORDS[id_] for id_ in ids if id_ != 4] == ["USER", "what", "is", "it", "SAYS"]
    first, second = seen["pixel_values"]
    assert first.max() < 0 < second.min()


def copy(folder: Path, to: Path) -> Path:
    to.mkdir()
    for file in folder.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_missing_weights_are_no_random_ones(folder, tmp_path) -> None:
    broken = copy(folder, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    gone = next(name for name in weights if "language_model" in name and "q_proj" in name)
    save_file({n: w for n, w in weights.items() if n != gone}, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(ChatError, match="lacks weights of its model, such as .*q_proj"):
        TransformersChat(broken, device="cpu")


def test_code_of_a_checkpoint_is_never_run(folder, tmp_path) -> None:
    foreign = copy(folder, tmp_path / "foreign")
    config = json.loads((foreign / "config.json").read_text())
    names = {"AutoConfig": "evil.C", "AutoModelForImageTextToText": "evil.M"}
    (foreign / "config.json").write_text(json.dumps(config | {"model_type": "evil", "auto_map": names}))
    (foreign / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ChatError, match="cannot be loaded as an image-text-to-text model"):
        TransformersChat(foreign, device="cpu")
    assert not (tmp_path / "ran").exists()


def test_what_is_no_model(tmp_path) -> None:
    with pytest.raises(ChatError, match="neither a folder nor a repository"):
        TransformersChat(tmp_path / "nothing")
    with pytest.raises(ChatError, match="cannot be loaded"):
        TransformersChat(tmp_path)


def test_a_checkpoint_without_chat_template(folder, tmp_path) -> None:
    mute = copy(folder, tmp_path / "mute")
    (mute / "chat_template.jinja").unlink()
    with pytest.raises(ChatError, match="has no chat template"):
        TransformersChat(mute, device="cpu")


@pytest.fixture
def video(dataset, tmp_path) -> fo.DatasetView:
    """A video with two objects that nobody has named."""
    return add_videos(dataset, tmp_path).limit(1)


def test_random_weights_describe_nothing_and_that_is_recorded(folder, video) -> None:
    report = rv.describe_objects(video, TransformersChat(folder, device="cpu", max_new_tokens=4))
    assert [each.object_id for each in report.failures] == ["2", "3"]
    for record in records(video.first()).values():
        assert (record.label, record.stage_answers) == ("failed", [])
        assert "does not end within 4 tokens" in record.error
    assert len(expressions(video)) == 1


def test_a_local_model_goes_through_all_stages_and_on_after_junk(folder, video) -> None:
    junk = [*["a dog </s>", "a red dog </s>"], *["it is a dog </s>"] * 3]
    report = rv.describe_objects(video, saying(TransformersChat(folder, device="cpu"), *junk * 2))
    assert [each.object_id for each in report.failures] == ["2", "3"]
    assert "got no answer that begins with CONSISTENT or CONFLICT in 3 attempts" in report.failures[0].error
    assert "the last was 'it is a dog'" in report.failures[0].error
    assert [each["answer"] for each in records(video.first())["2"].stage_answers] == ["a dog", "a red dog"]

    more = TransformersChat(folder, device="cpu", max_new_tokens=8)  # a longer answer is no other model
    rest = ["CONSISTENT </s>", "a dog what is red </s>", "it is a red dog </s>"]
    report = rv.describe_objects(video, saying(more, *rest * 2), stages=["object", "scene", "video"])
    assert (report.num_objects, report.num_expressions, report.failures) == (2, 6, [])
    assert [each.label for each in expressions(video)[1:4]] == ["a dog", "a dog what is red", "it is a red dog"]
    assert records(video.first())["2"].label == "described"
