"""The conversations that the selector is trained on: what is asked and answered, as text, ids and labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fiftyone_refvos.models.conversation import check_text
from fiftyone_refvos.models.glus import prompt as glus
from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID, LlamaTokenizer
from fiftyone_refvos.models.selector.prompt import (
    ANSWER,
    LONG_REQUEST,
    SCORE_TOKEN,
    SHORT_REQUEST,
    Words,
    is_question,
    normalise,
    write_conversation,
)
from fiftyone_refvos.training.config import Wording
from fiftyone_refvos.training.conversation import IGNORED

SHORT_REQUESTS = (SHORT_REQUEST, SHORT_REQUEST.replace("Please respond with a", "Please output"))
LONG_REQUESTS = (LONG_REQUEST,)
ANSWERS = (
    ANSWER,
    f"Sure, {SCORE_TOKEN}.",
    f"Sure, it is {SCORE_TOKEN}.",
    f"Sure, the prediction result is {SCORE_TOKEN}.",
)


@dataclass(frozen=True, slots=True)
class Turn:
    """Request and answer about one target image; `{}` in the request stands for the expression."""

    request: str
    answer: str = ANSWER


@dataclass(frozen=True, slots=True)
class ScoreConversation:
    """A row of the language model's batch.

    Attributes:
        text: as it reads
        ids: `IMAGE_ID` stands for the visual tokens of one image
        labels: the id of every token of the answer and its end, `IGNORED` elsewhere
        score_index: where [SCORE] is in `ids`
    """

    text: str
    ids: list[int]
    labels: list[int]
    score_index: int


def draw_turn(rng: np.random.Generator, text: str, wording: Wording) -> Turn:
    """Draws how an expression is asked about, and the answer."""
    requests = LONG_REQUESTS if is_question(text) else SHORT_REQUESTS
    if wording == "inference":
        return Turn(requests[0])
    return Turn(requests[rng.integers(len(requests))], ANSWERS[rng.integers(len(ANSWERS))])


class ScoreConversationWriter:
    """Writes the conversations of a training run.

    Args:
        tokenizer: of the network that is trained, with [SCORE]
        wording: "inference" writes expressions as they are read at inference, "random" as they stand in the dataset
        tokens_per_image: visual tokens that stand for one image
        max_length: most positions that the language model knows
        words: how the network is asked; as GLUS there is but one request and one answer
    """

    def __init__(
        self,
        tokenizer: LlamaTokenizer,
        wording: Wording,
        *,
        tokens_per_image: int,
        max_length: int,
        words: Words = "published",
    ) -> None:
        self._tokenizer = tokenizer
        self._words: Words = words
        self.wording: Wording = wording
        self._score_id = tokenizer.token_id(SCORE_TOKEN)
        self._tokens_per_image = tokens_per_image
        self._max_length = max_length

    def write(self, text: str, turn: Turn, num_context: int, *, what: str) -> ScoreConversation:
        """Writes the conversation about one expression and one target image, after `num_context` context images.

        Raises:
            ValueError: for a text that is empty, holds a reserved token, or makes a conversation that is longer
                than the model knows; `what` is how the message calls it
        """
        check_text(text, self._tokenizer, what=what)
        expression = normalise(text) if self.wording == "inference" else text.strip()
        if self._words == "glus":
            opened = glus.conversation(expression, 1, num_context)
            whole = f"{opened}{SCORE_TOKEN}.</s>"
            ids = [*self._tokenizer.encode(opened), self._score_id, *self._tokenizer.encode(".</s>")[1:]]
        else:
            whole = write_conversation(turn.request.format(expression), num_context, turn.answer)
            ids = self._tokenizer.encode(whole)
        # the space after "ASSISTANT:" belongs to the first word of the answer
        asked = len(self._tokenizer.encode(whole[: whole.rindex("ASSISTANT:") + len("ASSISTANT:")]))
        length = len(ids) + ids.count(IMAGE_ID) * (self._tokens_per_image - 1)
        if length > self._max_length:
            raise ValueError(
                f"{what} is too long: its conversation has {length} tokens, the model knows {self._max_length}; "
                "shorten the text, or train with fewer context frames"
            )
        return ScoreConversation(whole, ids, [IGNORED] * asked + ids[asked:], ids.index(self._score_id))
