"""The conversation that GLUS answers, as text and as ids (published inference script)."""

from __future__ import annotations

from dataclasses import dataclass

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.conversation import SYSTEM, check_length, check_text
from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID, IMAGE_TOKEN, LlamaTokenizer
from fiftyone_refvos.sampling import CONTEXT_FRAMES

SEG_TOKEN = "[SEG]"

IMAGE = f"<im_start>{IMAGE_TOKEN}<im_end>"
# The grammar error is part of what the model was trained on.
_CONTEXT_SENTENCE = "\nPlease finished the following tasks on the context frames above.\n"
QUESTION = "Can you segment the {} in this frame?"
OPEN_ANSWER = "Sure, the segmentation result is "


@dataclass(frozen=True)
class Prompt:
    """The ids of one prompt, cut where the part ends that every prompt of a video shares.

    Attributes:
        prefix: system sentence, context images and context sentence, up to the first query image
        suffix: from the first query image to the open answer
    """

    prefix: list[int]
    suffix: list[int]

    @property
    def ids(self) -> list[int]:
        """All ids; `IMAGE_ID` stands for the visual tokens of one image."""
        return self.prefix + self.suffix


def normalise(text: str) -> str:
    """An expression as the model knows it: without one trailing full stop, in lower case."""
    return text.removesuffix(".").lower()


def context(num_frames: int) -> str:
    """What the first question begins with: the context images and the sentence about them, nothing without any."""
    return num_frames * IMAGE + _CONTEXT_SENTENCE if num_frames else ""


def conversation(text: str, num_queries: int, context_frames: int = CONTEXT_FRAMES) -> str:
    """The prompt text for a window of `num_queries` frames after the context, with the last answer left open."""
    question = f"{IMAGE}\n{QUESTION.format(normalise(text))}"
    rounds = [f"USER: {question} ASSISTANT: {OPEN_ANSWER}" for _ in range(num_queries)]
    rounds[0] = rounds[0].replace("USER: ", f"USER: {context(context_frames)}", 1)
    return f"{SYSTEM} " + f"{SEG_TOKEN}.</s>".join(rounds)


class PromptWriter:
    """Writes the prompts of a checkpoint.

    Args:
        tokenizer: of the checkpoint
        window: most query frames in a prompt
        context_frames: images that come before them
        tokens_per_image: visual tokens that stand for one image
        max_length: most positions that the language model knows
    """

    def __init__(
        self,
        tokenizer: LlamaTokenizer,
        *,
        window: int,
        context_frames: int = CONTEXT_FRAMES,
        tokens_per_image: int,
        max_length: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.window = window
        self.context_frames = context_frames
        self.tokens_per_image = tokens_per_image
        self.max_length = max_length
        self.seg_id = tokenizer.token_id(SEG_TOKEN)

    def write(self, expression: Expression, num_queries: int) -> Prompt:
        """The prompt for one expression and a window of `num_queries` frames."""
        ids = self.tokenizer.encode(conversation(expression.text, num_queries, self.context_frames))
        images = [position for position, token in enumerate(ids) if token == IMAGE_ID]
        cut = images[self.context_frames]
        return Prompt(prefix=ids[:cut], suffix=ids[cut:])

    def check(self, expression: Expression) -> None:
        """Refuses what cannot be asked.

        Raises:
            ValueError: for an empty expression, one that holds a reserved token as text, or one so long that
                the prompt of a full window has more positions than the model knows
        """
        check_text(expression.text, self.tokenizer, what=f"expression {expression.id!r}")
        ids = self.write(expression, self.window).ids
        length = len(ids) + ids.count(IMAGE_ID) * (self.tokens_per_image - 1)
        check_length(expression, length, max_length=self.max_length)
