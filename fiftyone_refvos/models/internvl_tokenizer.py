"""The tokenizers of InternVL checkpoints: one interface for both families of language models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from transformers import Qwen2Tokenizer

from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.internlm2_tokenizer import InternLM2Tokenizer
from fiftyone_refvos.models.internvl_config import LanguageFamily
from fiftyone_refvos.models.llama_tokenizer import IMAGE_TOKEN


class ChatTokenizer(Protocol):
    """Text to ids and back, special tokens included."""

    @property
    def start(self) -> tuple[int, ...]:
        """The ids that a prompt begins with; Qwen2 has none."""
        ...

    @property
    def reserved(self) -> tuple[str, ...]:
        """The strings that stand for one special id or an image, and so must not occur in a user's text."""
        ...

    def token_id(self, token: str) -> int:
        """The id of an added token; a CheckpointError if there is no such token."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without those of `start`."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, added tokens included."""
        ...


class Qwen2ChatTokenizer(ChatTokenizer):
    """The stock Qwen2 tokenizer.

    Args:
        folder: holds tokenizer.json, or vocab.json and merges.txt, and tokenizer_config.json

    Raises:
        CheckpointError: if a file is missing or damaged
    """

    def __init__(self, folder: Path) -> None:
        for names in (("tokenizer_config.json",), ("tokenizer.json", "vocab.json")):
            if not any((folder / name).is_file() for name in names):
                raise CheckpointError(f"{folder} has no {' or '.join(names)}, which its tokenizer needs")
        try:
            self._words = Qwen2Tokenizer.from_pretrained(str(folder), local_files_only=True)
        except (OSError, ValueError, TypeError, KeyError, json.JSONDecodeError) as error:
            raise CheckpointError(f"the tokenizer in {folder} cannot be read ({error}); download it again") from error

    @property
    def start(self) -> tuple[int, ...]:
        """Nothing."""
        return ()

    @property
    def reserved(self) -> tuple[str, ...]:
        """The strings that stand for one special id or an image."""
        return (*self._words.get_added_vocab(), IMAGE_TOKEN)

    def token_id(self, token: str) -> int:
        """The id of an added token."""
        added = self._words.get_added_vocab()
        if token not in added:
            raise CheckpointError(f"the tokenizer has no token {token!r} in tokenizer_config.json or tokenizer.json")
        return int(added[token])

    def encode(self, text: str) -> list[int]:
        """Ids of a text."""
        ids: list[int] = self._words.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, added tokens included."""
        text: str = self._words.decode(list(ids), clean_up_tokenization_spaces=False)
        return text


def load_tokenizer(folder: Path, family: LanguageFamily) -> ChatTokenizer:
    """The tokenizer of a checkpoint folder.

    Raises:
        CheckpointError: if a file is missing or damaged
    """
    return InternLM2Tokenizer(folder) if family == "internlm2" else Qwen2ChatTokenizer(folder)
