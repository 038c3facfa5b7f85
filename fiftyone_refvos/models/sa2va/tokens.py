"""The tokenizer of a Sa2VA checkpoint, read from its files by concrete classes that run no code of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.internlm2_tokenizer import InternLM2Tokenizer
from fiftyone_refvos.models.internvl_tokenizer import ChatTokenizer

SEG_TOKEN = "[SEG]"


class Sa2vaTokenizer(ChatTokenizer, Protocol):
    """Text to ids and back, and where answers end."""

    @property
    def end_id(self) -> int | None:
        """The id that ends every answer."""
        ...


def load_tokenizer(folder: Path) -> Sa2vaTokenizer:
    """Reads the tokenizer of a checkpoint folder.

    Raises:
        CheckpointError: if the files are missing or damaged, or lack the token [SEG]
    """
    files = ("tokenizer.json", "vocab.json", "tokenizer.model")
    found = next((name for name in files if (folder / name).is_file()), None)
    if found is None:
        raise CheckpointError(f"{folder} holds no tokenizer; expected one of {', '.join(files)}")
    tokenizer = InternLM2Tokenizer(folder) if found == "tokenizer.model" else FastTokenizer(folder)
    tokenizer.token_id(SEG_TOKEN)
    return tokenizer


class FastTokenizer:
    """A tokenizer in the files of the `tokenizers` library, or in those of Qwen.

    Args:
        folder: holds tokenizer.json, or vocab.json and merges.txt

    Raises:
        CheckpointError: if a file is missing or damaged
    """

    def __init__(self, folder: Path) -> None:
        kind = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else Qwen2Tokenizer
        self._folder = folder
        try:
            self._tokenizer: Any = kind.from_pretrained(folder)
        except Exception as error:  # the tokenizers library raises nothing narrower for damaged files
            raise CheckpointError(f"the tokenizer in {folder} cannot be read: {error}") from error

    @property
    def start(self) -> tuple[int, ...]:
        """The ids that a prompt begins with."""
        return tuple(self._tokenizer.encode(""))

    @property
    def end_id(self) -> int | None:
        """The id that ends every answer."""
        return self._tokenizer.eos_token_id

    @property
    def reserved(self) -> tuple[str, ...]:
        """The strings that stand for one id, and so must not occur in a user's text."""
        return ("<image>", *self._tokenizer.get_added_vocab())

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
        """Ids of a text, without those of `start`."""
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, special tokens included."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def chat(self, messages: Sequence[dict[str, Any]]) -> str:
        """The prompt of a question, and what came before it, in the checkpoint's own chat template.

        Raises:
            CheckpointError: if there is no template beside the tokenizer
        """
        if self._tokenizer.chat_template is None:
            raise CheckpointError(
                f"{self._folder} holds no chat_template.jinja, in which Qwen-VL prompts are written"
            )
        return str(self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
