"""A SentencePiece model of a few hundred words: those of prompts and of the demo world, and bytes for all others."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import sentencepiece

from fiftyone_refvos.demo.rendered import MAX_PER_KIND
from fiftyone_refvos.demo.video import generate
from fiftyone_refvos.demo.world import DemoConfig, video_seed
from fiftyone_refvos.models.conversation import SYSTEM
from fiftyone_refvos.models.glus.prompt import SEG_TOKEN, context
from fiftyone_refvos.models.llama_tokenizer import IMAGE_TOKEN
from fiftyone_refvos.training.conversation import ANSWERS, NO_TARGET_ANSWER, QUESTIONS
from scripts.glus_tiny.statements import COLUMNS, NOTHING, NOWHERE, QUESTION, ROWS

VOCABULARY = 640
ADDED = ("<im_patch>", "<im_start>", "<im_end>", SEG_TOKEN)

_VIDEOS = 200
_REPEATED = 200  # prompts are said over and over: each of their words is to be one piece


def write_tokenizer(folder: Path) -> None:
    """Trains the tokenizer and writes its files, in the layout of the published ones.

    White space at the end of a text is dropped, unlike in LLaMA's own tokenizer: so [SEG] is predicted from the same
    token at inference, where the open answer ends with a space, as in training.
    """
    texts = {
        expression.text
        for index in range(_VIDEOS)
        for expression in generate(video_seed("train", index), DemoConfig(max_per_kind=MAX_PER_KIND)).expressions
    }
    with tempfile.TemporaryDirectory() as temporary:
        corpus = Path(temporary, "corpus.txt")
        corpus.write_text("\n".join([*sorted(texts), *_prompts() * _REPEATED]), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus),
            model_prefix=str(folder / "tokenizer"),
            vocab_size=VOCABULARY,
            model_type="bpe",
            byte_fallback=True,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=True,
            split_digits=True,
            pad_id=-1,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    (folder / "tokenizer.vocab").unlink()
    added = {token: VOCABULARY + number for number, token in enumerate(ADDED)}
    (folder / "added_tokens.json").write_text(json.dumps(added, indent=2) + "\n")
    config = {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_bos_token": True, "add_eos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _prompts() -> list[str]:
    """Everything that is said around an expression, without images."""
    asked = [f"USER: {question} ASSISTANT: {answer}" for question in QUESTIONS for answer in ANSWERS]
    places = [f"at {column} {row}, {NOWHERE}." for column, row in zip(COLUMNS, ROWS, strict=True)]
    said = [SYSTEM, context(4), *asked, QUESTION, f"{NOTHING}. {NO_TARGET_ANSWER}", *places]
    return [text.replace(IMAGE_TOKEN, " ").replace(SEG_TOKEN, " ").replace("\n", " ") for text in said]
