"""The conversation of MLLMSeg as text and as ids (published evaluation script), with the answer given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.conversation import check_length, check_text
from fiftyone_refvos.models.internvl_tokenizer import ChatTokenizer
from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID

SEG_TOKEN = "[SEG]"
REJ_TOKEN = "[REJ]"
IGNORED = -100  # label of a position that is not learned

SYSTEM = "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
# The blanks (one after the line break, none before "in") are part of what the published evaluation asks.
QUESTION = "\n What are {}in this image? Please output segmentation masks."
ANSWER = "Sure,{}."
_END = "<|im_end|>"
_HEAD = f"<|im_start|>system\n{SYSTEM}{_END}\n<|im_start|>user\n<img>"


@dataclass(frozen=True)
class Prompt:
    """The ids of one conversation; `IMAGE_ID` stands for the visual tokens of the image.

    Attributes:
        prefix: up to the end of the image: the same whatever is asked
        question: from there to the answer
        answer: with one [SEG] or [REJ] per expression, and the end of the turn
        decisions: where these are in `suffix`
    """

    prefix: list[int]
    question: list[int]
    answer: list[int]
    decisions: list[int]

    @property
    def suffix(self) -> list[int]:
        """All that comes after the prefix."""
        return self.question + self.answer

    @property
    def read(self) -> list[int]:
        """The part of the suffix that masks depend on: up to the token before the last [SEG]."""
        return self.suffix[: self.decisions[-1]]


def normalise(text: str) -> str:
    """An expression as the published evaluation asks about it."""
    return text.strip().lower().strip(".")


class PromptWriter:
    """Writes the prompts of a checkpoint.

    Args:
        tokenizer: of the checkpoint
        tokens_per_image: visual tokens that stand for the image
        max_length: most positions that the language model knows
    """

    def __init__(self, tokenizer: ChatTokenizer, *, tokens_per_image: int, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.tokens_per_image = tokens_per_image
        self.max_length = max_length
        self.seg_id = tokenizer.token_id(SEG_TOKEN)
        self.rej_id = tokenizer.token_id(REJ_TOKEN)
        end = tokenizer.encode("</img>")
        self.prefix = [*tokenizer.start, *tokenizer.encode(_HEAD), IMAGE_ID, *end]

    def write(self, texts: Sequence[str], absent: Sequence[bool] = ()) -> Prompt:
        """The prompt about several expressions, with the answer that all of them are there.

        Args:
            texts: of expressions
            absent: True for each that the answer says not to be there
        """
        names = [normalise(text) for text in texts]
        tokens = [REJ_TOKEN if each else SEG_TOKEN for each in absent or [False] * len(names)]
        items = [f"{name}:{token}" for name, token in zip(names, tokens, strict=True)]
        return self.converse(QUESTION.format(", ".join(names)), ANSWER.format(", ".join(items)))

    def converse(self, question: str, answer: str) -> Prompt:
        """The ids of what is asked after the image, and of what is answered."""
        asked = self.tokenizer.encode(f"{question}{_END}\n<|im_start|>assistant\n")
        answered = self.tokenizer.encode(f"{answer}{_END}\n")
        decisions = [n for n, each in enumerate(answered, len(asked)) if each in (self.seg_id, self.rej_id)]
        return Prompt(self.prefix, asked, answered, decisions)

    def expanded(self, ids: Sequence[int]) -> list[int]:
        """Ids with the token <IMG_CONTEXT> as often as there are visual tokens, as the published program has them."""
        context = self.tokenizer.token_id("<IMG_CONTEXT>")
        return [own for each in ids for own in ([context] * self.tokens_per_image if each == IMAGE_ID else [each])]

    def labels(self, prompt: Prompt) -> list[int]:
        """What is learned at each expanded position: the answer and its end, without the last line break."""
        before = len(self.expanded(prompt.prefix + prompt.question))
        return [IGNORED] * before + prompt.answer[:-1] + [IGNORED]

    def check(self, expression: Expression) -> None:
        """Refuses what cannot be asked.

        Raises:
            ValueError: for an empty expression, one that holds a reserved token as text, or one so long that the
                prompt has more positions than the model knows
        """
        what = f"expression {expression.id!r}"
        check_text(normalise(expression.text), self.tokenizer, what=what)
        self.check_length([expression])

    def check_length(self, expressions: Sequence[Expression]) -> None:
        """Refuses expressions that are too long, or too many, for one prompt.

        Raises:
            ValueError: if the prompt has more positions than the model knows
        """
        prompt = self.write([expression.text for expression in expressions])
        length = len(prompt.prefix) + self.tokens_per_image - 1 + len(prompt.suffix)
        if len(expressions) == 1:
            check_length(expressions[0], length, max_length=self.max_length)
        elif length > self.max_length:
            raise ValueError(
                f"{len(expressions)} expressions in one prompt make {length} tokens, the model knows "
                f"{self.max_length}; ask with prompting='single', or about fewer at once"
            )
