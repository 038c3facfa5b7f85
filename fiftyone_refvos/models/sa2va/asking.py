"""Asking the language model of Sa2VA: several questions about the same images, answered together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from fiftyone_refvos.models.sa2va.families import Family, Visual
from fiftyone_refvos.models.sa2va.language import Generation, LanguageModel, Prefix
from fiftyone_refvos.models.sa2va.stopping import StopRule
from fiftyone_refvos.models.sa2va.tokens import SEG_TOKEN


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

    def ask(self, questions: Sequence[str], visual: Visual | None) -> Iterator[Answer]:
        """Answers questions about the same images, whose visual tokens go through the language model once.

        Raises:
            ValueError: if the images do not come after the same text in all of them
        """
        prompts = [self.family.encode(question, visual) for question in questions]
        beginnings = {tuple(prompt[: self.family.cut(prompt)]) for prompt in prompts}
        if len(beginnings) > 1:
            raise ValueError("questions that are asked together must have the same text before <image>")
        prefix = self.prefill(prompts[0], visual)
        for start in range(0, len(prompts), self._batch):
            batch = prompts[start : start + self._batch]
            suffixes = [self.suffix(prompt) for prompt in batch]
            generations = self.language.answer(prefix, suffixes, self._stop, max_new_tokens=self._max_new_tokens)
            for prompt, generation in zip(batch, generations, strict=True):
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
