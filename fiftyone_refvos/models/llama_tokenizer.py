"""LLaMA's legacy SentencePiece tokenisation, as LLaVA-era checkpoints were trained with it.

Current `transformers` tokenizers give other ids for the same files (they keep line breaks next to
added tokens, and add no dummy prefix after special tokens), so this works on `sentencepiece` itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

import sentencepiece

from fiftyone_refvos.models.checkpoint import CheckpointError

IMAGE_TOKEN = "<image>"
IMAGE_ID = -200  # stands for the visual tokens of one image, never an index into the embeddings

SENTENCEPIECE_SPECIALS = ("<s>", "</s>", "<unk>")
_SPACE = "\u2581"  # how SentencePiece writes a space


class LlamaTokenizer:
    """Text to ids like the slow LLaMA tokenizer of transformers 4.31.

    Args:
        folder: holds tokenizer.model and added_tokens.json
        legacy: whether text after a special or added token begins with SentencePiece's dummy space, too
        new_tokens: to be added to those of the folder, if they are not there; it need not have any then

    Raises:
        CheckpointError: if a file is missing or damaged
    """

    def __init__(self, folder: Path, *, legacy: bool = True, new_tokens: Sequence[str] = ()) -> None:
        self.legacy = legacy
        self._pieces = load_sentencepiece(folder / "tokenizer.model")
        without = new_tokens and not (folder / "added_tokens.json").exists()
        self.added_tokens = {} if without else _load_added_tokens(folder / "added_tokens.json")
        for token in new_tokens:
            last = max([self._pieces.get_piece_size() - 1, *self.added_tokens.values()])
            self.added_tokens.setdefault(token, last + 1)
        self.bos_id: int = self._pieces.bos_id()
        specials = {name: self._pieces.piece_to_id(name) for name in SENTENCEPIECE_SPECIALS}
        self._specials = specials | self.added_tokens
        longest_first = sorted(self._specials, key=len, reverse=True)
        self._splitter = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    @classmethod
    def as_configured(cls, folder: Path, *, new_tokens: Sequence[str] = ()) -> LlamaTokenizer:
        """The tokenizer of a folder whose tokenizer_config.json says whether it is legacy; it is by default."""
        path = folder / "tokenizer_config.json"
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; it says which tokenisation the checkpoint was trained with")
        try:
            legacy = json.loads(path.read_text(encoding="utf-8")).get("legacy")
        except (UnicodeDecodeError, json.JSONDecodeError, AttributeError) as error:
            raise CheckpointError(f"{path} should hold a JSON object: {error}") from error
        return cls(folder, legacy=legacy is None or bool(legacy), new_tokens=new_tokens)

    @property
    def reserved(self) -> tuple[str, ...]:
        """The strings that stand for one special id, and so must not occur in a user's text."""
        return (*self._specials, IMAGE_TOKEN)

    def encode(self, text: str) -> list[int]:
        """Ids of a prompt: one BOS, the text, and `IMAGE_ID` for every `<image>`."""
        ids = [self.bos_id]
        for number, chunk in enumerate(text.split(IMAGE_TOKEN)):
            if number > 0:
                ids.append(IMAGE_ID)
            ids.extend(self._encode_chunk(chunk))
        return ids

    def token_id(self, token: str) -> int:
        """The id of an added token.

        Raises:
            CheckpointError: if the tokenizer has no such token
        """
        if token not in self.added_tokens:
            raise CheckpointError(f"the tokenizer has no token {token!r} in added_tokens.json")
        return self.added_tokens[token]

    def _encode_chunk(self, chunk: str) -> list[int]:
        parts = self._splitter.split(chunk if self.legacy else chunk.replace(_SPACE, " "))
        ids: list[int] = []
        for position, part in enumerate(parts):
            if position % 2:
                ids.append(self._specials[part])
                continue
            if position > 0 and parts[position - 1] in self.added_tokens:
                part = part.lstrip()
            if position + 1 < len(parts) and parts[position + 1] in self.added_tokens:
                part = part.rstrip()
            if part:
                ids.extend(self._encode_part(part, dummy_space=self.legacy or position == 0))
        return ids

    def _encode_part(self, part: str, *, dummy_space: bool) -> list[int]:
        if dummy_space or part.startswith(" "):
            return self._pieces.encode(part, out_type=int)
        pieces: list[str] = self._pieces.encode(part, out_type=str)
        if pieces:
            pieces[0] = pieces[0].removeprefix(_SPACE)
        return [self._pieces.piece_to_id(piece) for piece in pieces if piece]


def load_sentencepiece(path: Path) -> sentencepiece.SentencePieceProcessor:
    """Reads a SentencePiece model.

    Raises:
        CheckpointError: if the file is missing or damaged
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; the checkpoint folder must hold the SentencePiece model")
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.Load(str(path))
    except (RuntimeError, OSError) as error:
        raise CheckpointError(f"{path} is no SentencePiece model ({error}); download it again") from error
    return processor


def _load_added_tokens(path: Path) -> dict[str, int]:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; it holds the ids of the tokens that were added to LLaMA's")
    try:
        added = json.loads(path.read_text(encoding="utf-8"))
        return {str(token): int(number) for token, number in added.items()}
    except (UnicodeDecodeError, json.JSONDecodeError, AttributeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} should map tokens to ids: {error}") from error
