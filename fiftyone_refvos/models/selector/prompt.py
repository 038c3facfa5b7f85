"""The conversation in which the selector scores a frame, as text and as ids (published evaluation script)."""

from __future__ import annotations

from dataclasses import dataclass

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.conversation import SYSTEM, check_length, check_text
from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID, IMAGE_TOKEN, LlamaTokenizer

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


def request(text: str) -> str:
    """What is asked about an expression: whole questions get the longer wording."""
    text = normalise(text)
    return (LONG_REQUEST if text.endswith("?") else SHORT_REQUEST).format(text)


def conversation(text: str, num_context: int) -> str:
    """The whole conversation about one expression and one target image, after `num_context` context images."""
    context = ", ".join(f"({number}){IMAGE_TOKEN}" for number in range(num_context))
    question = f"Reference Video: {context} \nTarget Image: {IMAGE_TOKEN} \n{request(text)}"
    return f"{SYSTEM} USER: {question} ASSISTANT: {ANSWER}</s>"


class PromptWriter:
    """Writes the prompts of a checkpoint.

    Args:
        tokenizer: of the checkpoint
        max_images: most images in a prompt, the target included
        tokens_per_image: visual tokens that stand for one image
        max_length: most positions that the language model knows
    """

    def __init__(self, tokenizer: LlamaTokenizer, *, max_images: int, tokens_per_image: int, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_images = max_images
        self.tokens_per_image = tokens_per_image
        self.max_length = max_length
        self.score_id = tokenizer.token_id(SCORE_TOKEN)

    def write(self, text: str, num_context: int) -> ScorePrompt:
        """The prompt about one expression, after `num_context` context images."""
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
