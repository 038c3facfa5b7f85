"""When an answer of Sa2VA ends: at the tokenizer's own end, or where its text ends with a stop word."""

from __future__ import annotations

from collections.abc import Callable, Sequence

# A stop word has at most 13 characters, and so at most 13 tokens; a few more for line breaks in between.
_TAIL = 32


class StopRule:
    """Ends an answer.

    Args:
        decode: ids to text, special tokens included
        end_id: the token that always ends an answer
        words: texts that end one, too; as text, because in some templates a stop word is several tokens
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], end_id: int | None, words: Sequence[str]) -> None:
        self._decode = decode
        self._end_id = end_id
        self._words = tuple(words)

    def ends(self, ids: Sequence[int]) -> bool:
        """Whether an answer is complete; line breaks do not count."""
        if ids[-1] == self._end_id:
            return True
        if not self._words:
            return False
        text = self._decode(ids[-_TAIL:]).replace("\r", "").replace("\n", "")
        return text.endswith(self._words)
