"""A chat model of `transformers`, tiny and with random weights: LLaVA, made here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
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

from fiftyone_refvos.describing.local import TransformersChat

WORDS = [
    *("<pad>", "<s>", "</s>", "<unk>", "<image>", "USER", "SAYS"),
    *("what", "is", "it", "a", "red", "dog", "CONSISTENT"),
]
TEMPLATE = (
    "{% for message in messages %}USER {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }} {% endif %}{% endfor %}{% endfor %}SAYS"
)


def write_llava(path: Path) -> Path:
    """A checkpoint of a few kilobytes as `save_pretrained` writes it."""
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


def saying(chat: TransformersChat, *answers: str) -> TransformersChat:
    """Makes a model say these words, one answer after another, and then nothing more; "</s>" ends an answer."""
    says: Iterator[str] = (word for answer in answers for word in answer.split())

    def say(_: torch.nn.Module, __: object, logits: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor(WORDS.index(next(says))), logits.shape[-1]).expand_as(logits)

    chat.model.lm_head.register_forward_hook(say)
    return chat
