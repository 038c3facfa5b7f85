"""The language model of Sa2VA: the beginning that all prompts of a video share, and greedy answers to each.

prompt = prefix (up to the last visual token; once per video) + suffix (the question; once per expression)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from fiftyone_refvos.models.sa2va.stopping import StopRule


@dataclass(frozen=True)
class PromptInputs:
    """A part of a prompt as the language model takes it.

    Attributes:
        embeds: `(L, D)`
        positions: `(axes, L)` rotary positions: one axis, or time, height and width
        visual: `(L,) bool` where visual tokens are; None where nothing is added to them inside of the network
        deepstack: for the first layers, what is added to the visual tokens after each, `(tokens, D)`
    """

    embeds: Tensor
    positions: Tensor
    visual: Tensor | None = None
    deepstack: Sequence[Tensor] = ()


@dataclass(frozen=True)
class Prefix:
    """Keys and values of the beginning that all prompts of a video share.

    Attributes:
        layers: keys and values `(1, heads, P, head_dim)` of every layer
        length: P
        next_position: rotary position of the first token after it
    """

    layers: list[tuple[Tensor, Tensor]]
    length: int
    next_position: int


@dataclass(frozen=True)
class Generation:
    """One greedy answer.

    Attributes:
        ids: of the answer, the token that ended it included
        hidden: `(len(ids), D)` states at the last token of the prompt and at each token of the answer but the last
    """

    ids: list[int]
    hidden: Tensor

    def states_at(self, token: int) -> Tensor:
        """The states `(S, D)` where a token of the answer went in; the last token of an answer never does."""
        rows = [position + 1 for position, each in enumerate(self.ids[:-1]) if each == token]
        return self.hidden[rows]


class LanguageModel:
    """Runs the language model of a stock multimodal model on embeddings.

    Args:
        mllm: with `model.language_model` and `lm_head`
        states_before_norm: whether [SEG] is read before the last norm, as Qwen3-VL checkpoints were trained
    """

    def __init__(self, mllm: PreTrainedModel, *, states_before_norm: bool) -> None:
        self._decoder = mllm.model.language_model
        self._head = mllm.lm_head
        self._states_before_norm = states_before_norm
        self._axes = 1 if mllm.config.model_type == "internvl" else 3

    def prefill(self, inputs: PromptInputs) -> Prefix:
        """Runs the beginning of all prompts of a video, which may be empty."""
        cache = DynamicCache(config=self._decoder.config)
        length = len(inputs.embeds)
        if length == 0:
            return Prefix([], 0, 0)
        extra = {}
        if inputs.deepstack:
            assert inputs.visual is not None
            extra = {"visual_pos_masks": inputs.visual[None], "deepstack_visual_embeds": list(inputs.deepstack)}
        self._decoder(
            inputs_embeds=inputs.embeds[None],
            position_ids=self._axed(inputs.positions[:, None]),
            past_key_values=cache,
            use_cache=True,
            **extra,
        )
        layers = [(layer.keys, layer.values) for layer in cache.layers]
        return Prefix(layers, length, int(inputs.positions.max()) + 1)

    def answer(
        self, prefix: Prefix, suffixes: Sequence[Tensor], stop: StopRule, *, max_new_tokens: int
    ) -> list[Generation]:
        """Answers B prompts greedily.

        Args:
            prefix: which all share
            suffixes: input embeddings `(length, D)` of the rest of each, at least one token
            stop: when an answer ends
            max_new_tokens: when it ends at the latest
        """
        batch = _Batch(self, prefix, suffixes)
        states = [[state] for state in batch.states]
        answers: list[list[int]] = [[] for _ in suffixes]
        running = set(range(len(suffixes)))
        while True:
            tokens = self._head(batch.normed).argmax(-1)
            for row, token in enumerate(tokens.tolist()):
                if row in running:
                    answers[row].append(token)
                    if stop.ends(answers[row]) or len(answers[row]) == max_new_tokens:
                        running.discard(row)
            if not running:
                break
            batch.feed(self._decoder.embed_tokens(tokens)[:, None])
            for row in running:
                states[row].append(batch.states[row])
        return [Generation(ids, torch.stack(rows)) for ids, rows in zip(answers, states, strict=True)]

    def read(self, prefix: Prefix, suffix: Tensor) -> Tensor:
        """The states `(length, D)` along one prompt, of which `suffix` is the embeddings after the prefix."""
        return _Batch(self, prefix, [suffix]).all_states[0]

    def run(
        self, embeds: Tensor, positions: Tensor, mask: Tensor | None, cache: DynamicCache
    ) -> tuple[Tensor, Tensor]:
        """One step of B prompts `(B, L, D)`: the states that [SEG] is read from, and those after the last norm."""
        before: list[Tensor] = []
        hook = self._decoder.norm.register_forward_pre_hook(lambda _, inputs: before.append(inputs[0]))
        try:
            normed = self._decoder(
                inputs_embeds=embeds,
                position_ids=self._axed(positions[None].expand(self._axes, -1, -1)),
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state
        finally:
            hook.remove()
        return before[0] if self._states_before_norm else normed, normed

    def _axed(self, positions: Tensor) -> Tensor:
        """Positions `(axes, B, L)` in the form that the stock model takes."""
        return positions[0] if self._axes == 1 else positions


class _Batch:
    """B prompts behind one prefix, on their way through the language model.

    Suffixes are padded on their left, which is after the prefix, so that all rows end at the same place.
    """

    def __init__(self, model: LanguageModel, prefix: Prefix, suffixes: Sequence[Tensor]) -> None:
        self._model = model
        self._cache = DynamicCache(config=model._decoder.config)
        for number, (keys, values) in enumerate(prefix.layers):
            shape = (len(suffixes), -1, -1, -1)
            self._cache.update(keys.expand(shape), values.expand(shape), number)
        device, longest = suffixes[0].device, max(map(len, suffixes))
        pads = torch.tensor([longest - len(suffix) for suffix in suffixes], device=device)
        embeds = torch.nn.utils.rnn.pad_sequence(list(suffixes), batch_first=True, padding_side="left")
        positions = prefix.next_position + (torch.arange(longest, device=device)[None] - pads[:, None]).clamp(min=0)
        self._next = positions[:, -1:] + 1
        self._mask: Tensor | None = None
        if bool(pads.any()):
            own = torch.arange(longest, device=device)[None] >= pads[:, None]
            self._mask = torch.cat([own.new_ones(len(suffixes), prefix.length), own], dim=1).long()
        self.all_states, normed = model.run(embeds, positions, self._mask, self._cache)
        self.states, self.normed = self.all_states[:, -1], normed[:, -1]

    def feed(self, embeds: Tensor) -> None:
        """Feeds one more token `(B, 1, D)` to each."""
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], dim=1)
        states, normed = self._model.run(embeds, self._next, self._mask, self._cache)
        self._next = self._next + 1
        self.states, self.normed = states[:, -1], normed[:, -1]
