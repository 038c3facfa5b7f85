"""The one interface behind which any chat model can stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fiftyone_refvos.video import Frame

MAX_TOKENS = 512
"""Of an answer, unless a user says else."""
_EXCERPT = 200  # characters


class ChatError(RuntimeError):
    """A chat model gave no answer that can be used; the message says which one, and why."""


def excerpt(text: str) -> str:
    """The beginning of what somebody has said, for messages."""
    return repr(text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…")


class ChatModel(Protocol):
    """Answers a question about pictures."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What tells it from others, as plain values for run records; never a secret."""
        ...

    def ask(self, images: Sequence[Frame], text: str) -> str:
        """The answer to a question, as the model gave it.

        Args:
            images: `(H, W, 3) uint8` RGB, of any sizes, in the order in which the text speaks of them; may be none
            text: the question

        Raises:
            ChatError: if there is no answer
        """
        ...
