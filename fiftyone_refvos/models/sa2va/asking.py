"""Asking the language model of Sa2VA: several questions about the same images, answered together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from fiftyone_refvos.models.sa2va.families import IMAGE, Family, Turn, Visual
from fiftyone_refvos.models.sa2va.language import Generation, LanguageModel, Prefix
from fiftyone_refvos.models.sa2va.stopping import StopRule
from fiftyone_refvos.models.sa2va.tokens import SEG_TOKEN

_PHRASE = re.compile(r"<p>(.*?)</p>")
_TAGS = re.compile(r"</?p>|\[SEG\]|<\|im_end\|>|<\|endoftext\|>|<\|end\|>|</s>")


@dataclass(frozen=True)
class Answer:
    """What the language model says to one question.

    Attributes:
        prompt: ids of the question
        text: of the answer, special tokens included
        generation: ids and states of the answer
        seg_states: `(S, D)` one for each [SEG] in the answer
        prompt_embeddings: `(S, d)` what SAM2 is prompted with for each
    """

    prompt: list[int]
    text: str
    generation: Generation
    seg_states: Tensor
    prompt_embeddings: Tensor

    @property
    def caption(self) -> str:
        """The answer as plain text."""
        return " ".join(_TAGS.sub(" ", self.text).split())

    @property
    def phrases(self) -> list[str]:
        """The phrases of a grounded caption; the i-th belongs to the i-th [SEG]."""
        return [phrase.strip() for phrase in _PHRASE.findall(self.text)]

    def labels(self, otherwise: str) -> list[str]:
        """What each [SEG] shows: its phrase, or `otherwise` for one without."""
        phrases = self.phrases
        return [phrases[n] if n < len(phrases) else otherwise for n in range(len(self.prompt_embeddings))]


class Asker:
    """Answers questions about images.

    Args:
        family: with its network
        max_new_tokens: longest answer
        batch: most questions that are answered together
    """

    def __init__(self, family: Family, *, max_new_tokens: int, batch: int) -> None:
        self.family = family
        self.language = LanguageModel(family.network.mllm, states_before_norm=family.states_before_norm)
        self._stop = StopRule(family.tokenizer.decode, family.tokenizer.end_id, family.stop_words)
        self._seg_id = family.tokenizer.token_id(SEG_TOKEN)
        self._max_new_tokens = max_new_tokens
        self._batch = batch

    def ask(self, questions: Sequence[str], visual: Visual | None, history: Sequence[Turn] = ()) -> Iterator[Answer]:
        """Answers questions about the same images, whose visual tokens go through the language model once.

        Args:
            questions: each a chat of its own
            visual: what is seen; it comes where the first question of a chat says `<image>`
            history: what all chats begin with

        Raises:
            ValueError: if the images do not come after the same text in all of them, a prompt is longer than the
                model knows, or a later question of a chat says `<image>`
        """
        later = [*(turn.question for turn in history[1:]), *questions] if history else []
        if any(IMAGE in question for question in later):
            raise ValueError(f"the images of a chat come with its first question: {IMAGE} cannot stand in another")
        prompts = [self._encode(question, visual, history) for question in questions]
        beginnings = {tuple(prompt[: self.family.cut(prompt)]) for prompt in prompts}
        if len(beginnings) > 1:
            raise ValueError("questions that are asked together must have the same text before <image>")
        yield from self._answer(self.prefill(prompts[0], visual), prompts, [self.suffix(each) for each in prompts])

    def ask_of_each(self, question: str, visual: Visual, marked: Sequence[Visual]) -> Iterator[Answer]:
        """Asks the same about an image with one marking after another; what these share goes through once.

        Args:
            question: with `<image>`
            visual: the image without any
            marked: the same with each, as `Family.mark` makes them
        """
        shared = len(visual.tokens)
        prompts = [self._encode(question, each, ()) for each in marked]
        cut = [n for n, each in enumerate(prompts[0]) if each == self.family.image_id][shared - 1] + 1
        prefix = self.language.prefill(self.family.inputs(prompts[0][:cut], visual))
        suffixes = [
            self.family.inputs(prompt[cut:], replace(each, tokens=each.tokens[shared:])).embeds
            for prompt, each in zip(prompts, marked, strict=True)
        ]
        yield from self._answer(prefix, prompts, suffixes)

    def _encode(self, question: str, visual: Visual | None, history: Sequence[Turn]) -> list[int]:
        prompt = self.family.encode(question, visual, history)
        most = self.family.network.config.text.max_position_embeddings
        if len(prompt) > most:
            raise ValueError(f"the question is too long: a prompt of {len(prompt)} tokens, the model knows {most}")
        return prompt

    def _answer(self, prefix: Prefix, prompts: list[list[int]], suffixes: list[Tensor]) -> Iterator[Answer]:
        for start in range(0, len(prompts), self._batch):
            rows = slice(start, start + self._batch)
            generations = self.language.answer(
                prefix, suffixes[rows], self._stop, max_new_tokens=self._max_new_tokens
            )
            for prompt, generation in zip(prompts[rows], generations, strict=True):
                yield self.conclude(prompt, generation)

    def prefill(self, prompt: Sequence[int], visual: Visual | None) -> Prefix:
        """Runs what all prompts about the same images begin with, of which one is given."""
        return self.language.prefill(self.family.inputs(prompt[: self.family.cut(prompt)], visual))

    def suffix(self, prompt: Sequence[int]) -> Tensor:
        """Input embeddings `(length, D)` of the rest of a prompt."""
        return self.family.inputs(prompt[self.family.cut(prompt) :], None).embeds

    def conclude(self, prompt: list[int], generation: Generation) -> Answer:
        """The answer that ids and states amount to."""
        tokenizer, network = self.family.tokenizer, self.family.network
        states = generation.states_at(self._seg_id)
        text = tokenizer.decode(generation.ids).strip()
        return Answer(prompt, text, generation, states, network.seg_projection(states))
