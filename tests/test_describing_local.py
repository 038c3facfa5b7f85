"""A chat model of `transformers`, tiny and with random weights: LLaVA, made here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from fiftyone_refvos.describing import ChatError
from fiftyone_refvos.describing.local import TransformersChat

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "what", "is", "it", "a", "red", "dog", "USER", "SAYS"]
TEMPLATE = (
    "{% for message in messages %}USER {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}SAYS"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A checkpoint of a few kilobytes as `save_pretrained` writes it."""
    path = tmp_path_factory.mktemp("llava")
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=4, image_token_id=4)
    LlavaForConditionalGeneration(config).save_pretrained(path)
    words = Tokenizer(WordLevel({word: n for n, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=TEMPLATE,
        image_token="<image>",
        num_additional_image_tokens=1,
    ).save_pretrained(path)
    return path


def picture(value: int) -> np.ndarray:
    return np.full((20, 40, 3), value, dtype=np.uint8)


def test_it_answers_with_and_without_pictures(folder) -> None:
    chat = TransformersChat(folder, device="cpu", max_new_tokens=4)
    answers = [chat.ask(images, "what is it") for images in ([], [picture(0)], [picture(0), picture(255)])]
    assert all(set(answer.split()) <= set(WORDS) for answer in answers)
    assert chat.ask([picture(0)], "what is it") == answers[1]  # the most likely one, not a sampled one
    assert max(len(answer.split()) for answer in answers) <= 4
    assert chat.identity == {"chat": "transformers", "model": str(folder), "max_new_tokens": 4}


def test_pictures_and_question_reach_the_model(folder) -> None:
    chat = TransformersChat(folder, device="cpu", max_new_tokens=1)
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
