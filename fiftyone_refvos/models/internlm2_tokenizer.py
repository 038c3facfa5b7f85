"""InternLM2's tokenisation from its SentencePiece model, without the code that its folders would have run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.llama_tokenizer import IMAGE_TOKEN, SENTENCEPIECE_SPECIALS, load_sentencepiece


class InternLM2Tokenizer:
    """Text to ids like the slow InternLM2 tokenizer: added tokens are cut out first, each rest is encoded on its own.

    White space is kept everywhere, and no piece gets SentencePiece's dummy space, unless the model file asks for it.

    Args:
        folder: holds tokenizer.model, and tokenizer_config.json or added_tokens.json, which name the added tokens

    Attributes:
        start: the ids that a prompt begins with
        added_tokens: ids of the added tokens, SentencePiece's own specials among them; they go before the pieces of
            the same ids

    Raises:
        CheckpointError: if a file is missing or damaged
    """

    def __init__(self, folder: Path) -> None:
        self._pieces = load_sentencepiece(folder / "tokenizer.model")
        specials = {name: self._pieces.piece_to_id(name) for name in SENTENCEPIECE_SPECIALS}
        self.added_tokens: dict[str, int] = specials | _read_added_tokens(folder)
        self.start: tuple[int, ...] = (self._pieces.bos_id(),)
        self._texts = {number: token for token, number in self.added_tokens.items()}
        longest_first = sorted(self.added_tokens, key=len, reverse=True)
        self._splitter = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    @property
    def end_id(self) -> int:
        """The id that ends every answer."""
        return int(self._pieces.eos_id())

    @property
    def reserved(self) -> tuple[str, ...]:
        """The strings that stand for one special id or an image, and so must not occur in a user's text."""
        return (*self.added_tokens, IMAGE_TOKEN)

    def token_id(self, token: str) -> int:
        """The id of an added token.

        Raises:
            CheckpointError: if the tokenizer has no such token
        """
        if token not in self.added_tokens:
            raise CheckpointError(
                f"the tokenizer has no token {token!r} in tokenizer_config.json or added_tokens.json"
            )
        return self.added_tokens[token]

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without those of `start`."""
        ids: list[int] = []
        for position, part in enumerate(self._splitter.split(text)):
            if position % 2:
                ids.append(self.added_tokens[part])
            elif part:
                ids.extend(self._pieces.encode(part, out_type=int))
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, added tokens included."""
        parts: list[str] = []
        pieces: list[int] = []
        for number in [*ids, None]:
            if number is not None and number not in self._texts:
                pieces.append(number)
                continue
            if pieces:
                parts.append(self._pieces.decode(pieces))
                pieces = []
            if number is not None:
                parts.append(self._texts[number])
        return "".join(parts)


def _read_added_tokens(folder: Path) -> dict[str, int]:
    """The added tokens of both files; where they differ, tokenizer_config.json has the last word."""
    paths = [folder / "added_tokens.json", folder / "tokenizer_config.json"]
    if not any(path.is_file() for path in paths):
        raise CheckpointError(
            f"{folder} has no tokenizer_config.json; it holds the ids of the tokens that were added"
        )
    tokens: dict[str, int] = {}
    for path in paths:
        content = _read_object(path)
        try:
            if path == paths[0]:
                tokens |= {str(token): int(number) for token, number in content.items()}
            else:
                decoder = content.get("added_tokens_decoder", {})
                tokens |= {str(token["content"]): int(number) for number, token in decoder.items()}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} should say the ids of added tokens: {error!r}") from error
    if not tokens:
        raise CheckpointError(f"the tokenizer in {folder} has no added tokens; download its files again")
    return tokens


def _read_object(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} should hold a JSON object")
    return content
