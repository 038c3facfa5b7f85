"""The conversations that GLUS is trained on: what is asked and answered, as text, ids and labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fiftyone_refvos.models.conversation import SYSTEM, check_text
from fiftyone_refvos.models.glus.prompt import (
    IMAGE,
    OPEN_ANSWER,
    QUESTION,
    SEG_TOKEN,
    context,
    normalise,
)
from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID, LlamaTokenizer
from fiftyone_refvos.training.config import SamplingConfig, Wording

IGNORED = -100  # the label of what is not to be predicted

QUESTIONS = (
    QUESTION,
    "Please segment the {} in this frame.",
    "What is {} in this frame? Please respond with segmentation mask.",
    "What is {} in this frame? Please output segmentation mask.",
)
ANSWERS = (
    f"It is {SEG_TOKEN}.",
    f"Sure, {SEG_TOKEN}.",
    f"Sure, it is {SEG_TOKEN}.",
    f"{OPEN_ANSWER}{SEG_TOKEN}.",
    f"{SEG_TOKEN}.",
)
NO_TARGET_ANSWER = f"{OPEN_ANSWER}empty."


@dataclass(frozen=True, slots=True)
class Round:
    """Question and answer about one query frame; `{}` in the question stands for the expression."""

    question: str = QUESTION
    answer: str = f"{OPEN_ANSWER}{SEG_TOKEN}."


@dataclass(frozen=True, slots=True)
class Conversation:
    """A row of the language model's batch.

    Attributes:
        text: as it reads
        ids: `IMAGE_ID` stands for the visual tokens of one image
        labels: the id of every token of an answer, `IGNORED` elsewhere; where an expression has no target, what
            is said instead of each [SEG]
        seg_positions: where [SEG] is in `ids`, once a round; only there a label counts in the loss
        open_answers: whether the token before each [SEG] is the space in which an open answer ends at inference;
            the prompts of later rounds do not have it, so nothing that follows may see it
    """

    text: str
    ids: list[int]
    labels: list[int]
    seg_positions: list[int]
    open_answers: bool = False


def draw_rounds(rng: np.random.Generator, count: int, wording: Wording) -> tuple[Round, ...]:
    """Draws question and answer for each of `count` query frames."""
    if wording == "inference":
        return (Round(),) * count
    return tuple(
        Round(QUESTIONS[rng.integers(len(QUESTIONS))], ANSWERS[rng.integers(len(ANSWERS))]) for _ in range(count)
    )


class ConversationWriter:
    """Writes the conversations of a training run.

    Args:
        tokenizer: of the checkpoint that is trained
        sampling: says how many frames there are, and whether the wording is that of inference
        tokens_per_image: visual tokens that stand for one image
        max_length: most positions that the language model knows
    """

    def __init__(
        self, tokenizer: LlamaTokenizer, sampling: SamplingConfig, *, tokens_per_image: int, max_length: int
    ) -> None:
        self.tokenizer = tokenizer
        self.sampling = sampling
        self.seg_id = tokenizer.token_id(SEG_TOKEN)
        self.no_target_id = _no_target_id(tokenizer)
        self._tokens_per_image = tokens_per_image
        self._max_length = max_length
        # LLaMA's own tokenizer makes a token of the space in which an open answer ends; not every one does
        space_is_token = len(self._encode(OPEN_ANSWER)) > len(self._encode(OPEN_ANSWER.rstrip()))
        self._opens_answers = sampling.wording == "inference" and space_is_token

    def write(self, text: str, rounds: Sequence[Round], *, has_target: bool = True, what: str) -> Conversation:
        """Writes the conversation about one expression.

        Args:
            text: of the expression, as written
            rounds: one per query frame
            has_target: whether the expression means any object; without one the ids are the same, because at
                inference [SEG] stays in the history where nothing was found, too
            what: how errors call the expression

        Raises:
            ValueError: for a text that is empty, holds a reserved token, or makes a conversation that is longer
                than the model knows
        """
        check_text(text, self.tokenizer, what=what)
        expression = normalise(text).strip()
        parts: list[str] = []
        ids = [self.tokenizer.bos_id]
        labels = [IGNORED]
        for number, turn in enumerate(rounds):
            asked = f"USER: {context(self.sampling.contexts) if number == 0 else ''}"
            asked += f"{IMAGE}\n{turn.question.format(expression)} ASSISTANT: "
            if number == 0:
                asked = f"{SYSTEM} {asked}"
            parts.append(f"{asked}{turn.answer}</s>")
            round_ids = self._round_ids(asked, turn.answer)
            # the space after "ASSISTANT:" belongs to the first word of the answer
            answer_start = len(self._encode(asked.rstrip()))
            ids += round_ids
            labels += [IGNORED] * answer_start + round_ids[answer_start:]
        seg_positions = [position for position, token in enumerate(ids) if token == self.seg_id]
        if not has_target:
            for position in seg_positions:
                labels[position] = self.no_target_id
        self._check_length(ids, what)
        return Conversation("".join(parts), ids, labels, seg_positions, self._opens_answers)

    def _round_ids(self, asked: str, answer: str) -> list[int]:
        if not self._opens_answers:
            return self._encode(f"{asked}{answer}</s>")
        # At inference [SEG] is predicted from the space of the open answer, which is a token of its own there;
        # in a text that is tokenised as a whole, [SEG] swallows the space.
        before, after = answer.split(SEG_TOKEN)
        return [*self._encode(asked + before), self.seg_id, *self._encode(f"{after}</s>")]

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)[1:]

    def _check_length(self, ids: Sequence[int], what: str) -> None:
        length = len(ids) + list(ids).count(IMAGE_ID) * (self._tokens_per_image - 1)
        if length > self._max_length:
            raise ValueError(
                f"{what} is too long: its conversation has {length} tokens, the model knows {self._max_length}; "
                f"shorten the text, or train with fewer query or context frames"
            )


def _no_target_id(tokenizer: LlamaTokenizer) -> int:
    """The first token of the answer that there is no object, after what is said in any case."""
    said = tokenizer.encode(OPEN_ANSWER.rstrip())
    return tokenizer.encode(NO_TARGET_ANSWER)[len(said)]
