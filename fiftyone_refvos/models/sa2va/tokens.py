"""The tokenizer of a Sa2VA checkpoint, read from its files by a concrete class that runs no code of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from fiftyone_refvos.models.checkpoint import CheckpointError

SEG_TOKEN = "[SEG]"
ADDED_TOKENS = (SEG_TOKEN, "<p>", "</p>", "<vp>", "</vp>")


class Sa2vaTokenizer:
    """Text to ids and back.

    Args:
        folder: holds tokenizer.json, or the vocab.json and merges.txt of a Qwen tokenizer

    Raises:
        CheckpointError: if the files are missing or damaged, or lack a token that Sa2VA adds
    """

    def __init__(self, folder: Path) -> None:
        self._tokenizer: Any = _load(folder)
        self._folder = folder
        self.seg_id = self.token_id(SEG_TOKEN)

    @property
    def end_id(self) -> int | None:
        """The id that ends every answer."""
        return self._tokenizer.eos_token_id

    @property
    def reserved(self) -> tuple[str, ...]:
        """The strings that stand for one id, and so must not occur in a user's text."""
        return ("<image>", *self._tokenizer.get_added_vocab())

    def __len__(self) -> int:
        return len(self._tokenizer)

    def token_id(self, token: str) -> int:
        """The id of an added token.

        Raises:
            CheckpointError: if the tokenizer has no such token
        """
        number = self._tokenizer.get_added_vocab().get(token)
        if number is None:
            raise CheckpointError(f"the tokenizer in {self._folder} has no token {token!r}; Sa2VA checkpoints do")
        return int(number)

    def encode(self, text: str) -> list[int]:
        """Ids of a whole prompt, with whatever the tokenizer begins every text with."""
        return list(self._tokenizer.encode(text))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens included."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def chat(self, content: Sequence[dict[str, str]]) -> str:
        """The prompt of one question in the checkpoint's own chat template.

        Raises:
            CheckpointError: if there is no template beside the tokenizer
        """
        if self._tokenizer.chat_template is None:
            raise CheckpointError(
                f"{self._folder} holds no chat_template.jinja, in which Qwen-VL prompts are written"
            )
        message = {"role": "user", "content": list(content)}
        return str(self._tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=True))


def _load(folder: Path) -> Any:
    try:
        if (folder / "tokenizer.json").is_file():
            return PreTrainedTokenizerFast.from_pretrained(folder)
        if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            return Qwen2Tokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"the tokenizer in {folder} cannot be read: {error}") from error
    raise CheckpointError(f"{folder} holds no tokenizer: neither tokenizer.json nor vocab.json and merges.txt")
