"""The conversations that MLLMSeg is trained on: what is asked about an image, and answered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fiftyone_refvos.models.conversation import check_text
from fiftyone_refvos.models.internvl_tokenizer import ChatTokenizer
from fiftyone_refvos.models.mllmseg.prompt import REJ_TOKEN, SEG_TOKEN, Prompt, PromptWriter, normalise
from fiftyone_refvos.training.config import Wording
from fiftyone_refvos.training.mllmseg.sources import ImageExpression

QUESTIONS = (
    "\nCan you segment {} in this image?",
    "\nPlease segment {} in this image.",
    "\nWhat are {} in this image? Please respond with segmentation masks.",
    "\nWhat are {} in this image? Please output segmentation masks.",
)
# How an answer begins, and what it says of each expression: the two belong together.
ANSWERS = (
    ("The segmentation results are", "{} {}"),
    ("Sure, they are", "{}:{}"),
    ("Sure,", "the mask of {} is {}"),
    ("Sure,", "the segmentation of {} is {}"),
    ("Sure,", "the referred {} is {}"),
)


class ImageConversationWriter:
    """Writes the conversations of a training run.

    Args:
        tokenizer: of the network that is trained
        wording: "random" draws question and answer, "inference" takes those of inference
        tokens_per_image: visual tokens that stand for the image
        max_length: most positions that the language model knows
    """

    def __init__(self, tokenizer: ChatTokenizer, wording: Wording, *, tokens_per_image: int, max_length: int) -> None:
        self.prompts = PromptWriter(tokenizer, tokens_per_image=tokens_per_image, max_length=max_length)
        self._wording = wording

    def draw(self, rng: np.random.Generator, expressions: Sequence[ImageExpression], *, what: str) -> Prompt:
        """Draws how expressions are asked about together, and the answer, which has [REJ] for those without target.

        As published, a question is in lower case and its answer as the dataset writes it. Where the published program
        turns every "SEG" of such an expression into "REJ", its text stays here.

        Raises:
            ValueError: for a text that is empty or holds a reserved token, and a conversation that is longer than the
                model knows; `what` is how the message calls the image
        """
        for expression in expressions:
            text = normalise(expression.text)
            check_text(text, self.prompts.tokenizer, what=f"expression {expression.id!r} of {what}")
        prompt = self._draw(rng, expressions)
        length = len(self.prompts.expanded(prompt.prefix + prompt.suffix))
        if length > self.prompts.max_length:
            raise ValueError(
                f"the {len(expressions)} expressions of {what} are too long: their conversation has {length} tokens, "
                f"the model knows {self.prompts.max_length}; shorten them, or train on fewer at once"
            )
        return prompt

    def _draw(self, rng: np.random.Generator, expressions: Sequence[ImageExpression]) -> Prompt:
        texts = [expression.text.strip() for expression in expressions]
        if self._wording == "inference":
            return self.prompts.write(texts, [not expression.has_target for expression in expressions])
        question = QUESTIONS[rng.integers(len(QUESTIONS))]
        start, item = ANSWERS[rng.integers(len(ANSWERS))]
        tokens = [SEG_TOKEN if expression.has_target else REJ_TOKEN for expression in expressions]
        items = [item.format(text, token) for text, token in zip(texts, tokens, strict=True)]
        return self.prompts.converse(
            question.format(", ".join(text.lower() for text in texts)), f"{start} {', '.join(items)}."
        )
