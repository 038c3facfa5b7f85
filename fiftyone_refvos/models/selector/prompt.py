"""The conversation in which the selector scores a frame, as text and as ids (published evaluation script)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.conversation import SYSTEM, check_length, check_text
from fiftyone_refvos.models.glus import prompt as glus
from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID, IMAGE_TOKEN, LlamaTokenizer

Words = Literal["published", "glus"]
"""How a selector is asked: as published, or as GLUS for a mask, for a selector that is made of a GLUS."""

SCORE_TOKEN = "[SCORE]"
# The grammar ("the the dog") is part of what the model was trained on.
SHORT_REQUEST = (
    "Does the Target Image provide enough information for localizing and segmenting the {} in the Reference Video? "
    "Please respond with a confidence score."
)
LONG_REQUEST = (
    "Please decide whether the Target Image provide enough information for localizing and segmenting the {} in the "
    "Reference Video."
)
ANSWER = f"It is {SCORE_TOKEN}."


@dataclass(frozen=True)
class ScorePrompt:
    """The ids of one prompt; `IMAGE_ID` stands for the visual tokens of one image.

    Attributes:
        prefix: up to the target image: the same for all expressions and all targets of a context
        suffix: from the target image to the end, the answer included: the same for all contexts
        score_index: where [SCORE] is in `ids`
    """

    prefix: list[int]
    suffix: list[int]
    score_index: int

    @property
    def ids(self) -> list[int]:
        """All ids."""
        return self.prefix + self.suffix

    @property
    def num_images(self) -> int:
        """Context images and target image."""
        return self.ids.count(IMAGE_ID)

    @property
    def read(self) -> list[int]:
        """The part of the suffix that a score depends on: up to the token before [SCORE], where it is read."""
        return self.suffix[: self.score_index - len(self.prefix)]


def normalise(text: str) -> str:
    """An expression as the model knows it: in lower case, with single spaces."""
    return " ".join(text.lower().split())


def is_question(text: str) -> bool:
    """Whether an expression is a whole question, which gets the longer wording."""
    return text.strip().endswith("?")


def request(text: str) -> str:
    """What is asked about an expression at inference."""
    text = normalise(text)
    return (LONG_REQUEST if is_question(text) else SHORT_REQUEST).format(text)


def conversation(text: str, num_context: int) -> str:
    """The whole conversation of inference about one expression and one target image."""
    return write_conversation(request(text), num_context, ANSWER)


def write_conversation(asked: str, num_context: int, answer: str) -> str:
    """A conversation about one target image, after `num_context` context images."""
    context = ", ".join(f"({number}){IMAGE_TOKEN}" for number in range(num_context))
    question = f"Reference Video: {context} \nTarget Image: {IMAGE_TOKEN} \n{asked}"
    return f"{SYSTEM} USER: {question} ASSISTANT: {answer}</s>"


class PromptWriter:
    """Writes the prompts of a checkpoint.

    Args:
        tokenizer: of the checkpoint
        max_images: most images in a prompt, the target included
        tokens_per_image: visual tokens that stand for one image
        max_length: most positions that the language model knows
        words: how the checkpoint is asked
    """

    def __init__(
        self,
        tokenizer: LlamaTokenizer,
        *,
        max_images: int,
        tokens_per_image: int,
        max_length: int,
        words: Words = "published",
    ) -> None:
        self.tokenizer = tokenizer
        self.words: Words = words
        self.max_images = max_images
        self.tokens_per_image = tokens_per_image
        self.max_length = max_length
        self.score_id = tokenizer.token_id(SCORE_TOKEN)

    def write(self, text: str, num_context: int) -> ScorePrompt:
        """The prompt about one expression, after `num_context` context images."""
        if self.words == "glus":  # where GLUS would answer [SEG]
            ids = [*self.tokenizer.encode(glus.conversation(text, 1, num_context)), self.score_id]
        else:
            ids = self.tokenizer.encode(conversation(text, num_context))
        target = len(ids) - 1 - ids[::-1].index(IMAGE_ID)
        return ScorePrompt(prefix=ids[:target], suffix=ids[target:], score_index=ids.index(self.score_id))

    def length(self, prompt: ScorePrompt) -> int:
        """Positions of a prompt, its images expanded."""
        return len(prompt.ids) + prompt.num_images * (self.tokens_per_image - 1)

    def read_position(self, prompt: ScorePrompt) -> int:
        """The position, images expanded, whose hidden state is scored: the one before [SCORE]."""
        return prompt.score_index - 1 + prompt.num_images * (self.tokens_per_image - 1)

    def check(self, expression: Expression) -> None:
        """Refuses what cannot be asked.

        Raises:
            ValueError: for an empty expression, one that holds a reserved token as text, or one so long that
                the longest prompt has more positions than the model knows
        """
        check_text(expression.text, self.tokenizer, what=f"expression {expression.id!r}")
        longest = self.length(self.write(expression.text, self.max_images - 1))
        check_length(expression, longest, max_length=self.max_length)
