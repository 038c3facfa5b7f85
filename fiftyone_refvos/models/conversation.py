"""What the prompts of LLaVA-era models have in common, and which texts they refuse."""

from __future__ import annotations

from typing import Protocol

from fiftyone_refvos.masklet import Expression

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)


class Tokenizer(Protocol):
    """A tokenizer that knows which strings are not text to it."""

    @property
    def reserved(self) -> tuple[str, ...]:
        """The strings that stand for one special id."""
        ...


def check_text(text: str, tokenizer: Tokenizer, *, what: str) -> None:
    """Refuses a text that is empty (or one full stop) or holds a reserved token; `what` is how errors call it.

    Raises:
        ValueError: for such a text
    """
    if not text.removesuffix(".").strip():
        raise ValueError(f"{what} is empty; say what is meant")
    reserved = [token for token in tokenizer.reserved if token.lower() in text.lower()]
    if reserved:
        raise ValueError(
            f"{what} holds {reserved[0]!r}, which stands for a special token of the model; "
            f"remove it from the text {_quote(text)}"
        )


def check_length(expression: Expression, length: int, *, max_length: int) -> None:
    """Refuses an expression whose prompt has more positions than the model knows.

    Raises:
        ValueError: if `length` is above `max_length`
    """
    if length > max_length:
        raise ValueError(
            f"expression {expression.id!r} is too long: {len(expression.text)} characters make a prompt of "
            f"{length} tokens, the model knows {max_length}; shorten the text {_quote(expression.text)}"
        )


def _quote(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
