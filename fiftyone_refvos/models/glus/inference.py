"""GLUS over a video: one streaming pass forward and one backward, all expressions together.

frames -> visual tokens and SAM2 features, once per frame -> per expression one [SEG] -> one mask;
each mask becomes a memory, and each direction is a `Track` of its own that starts at the key frame.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fiftyone_refvos.masklet import Expression, FrameResult
from fiftyone_refvos.models.glus.config import RESOURCES, GlusInference
from fiftyone_refvos.models.glus.frames import FrameEncoder
from fiftyone_refvos.models.glus.network import GlusNetwork, PrefixCache
from fiftyone_refvos.models.glus.prompt import Prompt, PromptWriter
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.models.sam2 import DecodedMasks, ImageFeatures, MemoryBank, masks_at_size
from fiftyone_refvos.models.segmenter import check_key_frames, check_request
from fiftyone_refvos.sampling import context_frames
from fiftyone_refvos.video import FrameSource

Direction = Literal["fwd", "bwd"]


@dataclass
class Track:
    """One expression in one direction; `position` counts the frames of the pass from 0 at its key frame."""

    expression: Expression
    key_frame: int
    direction: Direction
    bank: MemoryBank
    window: deque[Tensor]
    position: int = 0

    def backward(self) -> Track:
        """The same expression from its key frame towards the first frame, after the key frame itself."""
        return replace(self, direction="bwd", bank=self.bank.fork(), window=self.window.copy())


@dataclass
class Step:
    """Everything that happened to one expression in one frame.

    Attributes:
        expression: what was looked for
        direction: "fwd" from the key frame on, "bwd" from the key frame back
        position: of the frame in its pass, from 0
        frame: index of the frame in the video, from 0
        prompt: ids of the prompt
        prefix, suffix: `(length, D)` input embeddings of the two parts of the prompt
        hidden: `(suffix, D)` final-norm hidden states
        logits: `(vocabulary,)` of the next token
        next_token: the most likely next token
        found: whether that token is [SEG]
        prompt_embedding: `(d,)` projected state that predicts [SEG]
        memory_positions, missing_positions: pass positions attended to, and those without a memory
        features: of the frame, None if nothing was found in it
        conditioned: `(1, d, h, w)` top map after memory, None if not found
        masks: of this expression alone, None if not found
        memory: `(1, m, h, w)` new memory, None if not found, or without a memory bank
    """

    expression: Expression
    direction: Direction
    position: int
    frame: int
    prompt: Prompt
    prefix: Tensor
    suffix: Tensor
    hidden: Tensor
    logits: Tensor
    next_token: int
    found: bool
    prompt_embedding: Tensor
    memory_positions: list[int] = field(default_factory=list)
    missing_positions: list[int] = field(default_factory=list)
    features: ImageFeatures | None = None
    conditioned: Tensor | None = None
    masks: DecodedMasks | None = None
    memory: Tensor | None = None

    @property
    def embeds(self) -> Tensor:
        """`(prefix + suffix, D)` input embeddings of the whole prompt."""
        return torch.cat([self.prefix, self.suffix])


class GlusSegmenter:
    """Referring video object segmentation with GLUS (paper, section 3).

    Args:
        network: with its weights
        tokenizer: of the same checkpoint
        settings: how to run it
        adapter: the digest of the adapter that was merged into the network, if one was
    """

    def __init__(
        self,
        network: GlusNetwork,
        tokenizer: LlamaTokenizer,
        settings: GlusInference,
        *,
        adapter: str | None = None,
    ) -> None:
        self.network = network
        self.settings = settings
        self.adapter = adapter
        self.run_settings = network.config.run_settings(settings)
        self.prompts = PromptWriter(
            tokenizer,
            window=self.run_settings.window,
            context_frames=self.run_settings.context_frames,
            tokens_per_image=network.tokens_per_image,
            max_length=network.config.llama.max_position_embeddings,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that the masks depend on, as plain values; memory and batch sizes are none of them."""
        settings = asdict(self.settings) | asdict(self.run_settings)
        merged = {} if self.adapter is None else {"adapter_digest": self.adapter}
        # masklets are older than this setting, and go on without it
        unsaid = () if self.settings.propagation != "glus" else ("propagation",)
        return {**{name: value for name, value in settings.items() if name not in (*RESOURCES, *unsaid)}, **merged}

    def check(self, expression: Expression) -> None:
        """Raises a ValueError for an expression that is empty, too long, or holds a reserved token."""
        self.prompts.check(expression)

    def segment(
        self,
        frames: FrameSource,
        expressions: Sequence[Expression],
        *,
        key_frames: Mapping[str, int] | None = None,
    ) -> Iterator[FrameResult]:
        """Streams the masks of all expressions: forward from the first key frame, then backward from the last.

        A frame for which the language model does not answer [SEG] gets a zero mask, `found=False`, and
        leaves no memory. Before its key frame a mask is that of the backward pass, from it on that of the
        forward pass.

        Raises:
            ValueError: for a video without frames, expressions that cannot be asked, ids given twice, or key
                frames outside of the video
        """
        return self._results(frames, self.steps(frames, expressions, key_frames=key_frames))

    def steps(
        self,
        frames: FrameSource,
        expressions: Sequence[Expression],
        *,
        key_frames: Mapping[str, int] | None = None,
    ) -> Iterator[Step]:
        """Streams every step with all its intermediate results; `segment` is this and the masks at frame size.

        The key frame is a step of both directions, computed once and given for the forward one.
        """
        keys = self._checked_key_frames(frames, expressions, key_frames or {})
        return self._steps(frames, expressions, keys)

    def _checked_key_frames(
        self, frames: FrameSource, expressions: Sequence[Expression], key_frames: Mapping[str, int]
    ) -> dict[str, int]:
        check_request(frames, expressions)
        for expression in expressions:
            self.prompts.check(expression)
        check_key_frames(frames, expressions, key_frames)
        return {expression.id: key_frames.get(expression.id, 0) for expression in expressions}

    @torch.inference_mode()
    def _steps(self, frames: FrameSource, expressions: Sequence[Expression], keys: dict[str, int]) -> Iterator[Step]:
        encoder = FrameEncoder(
            self.network,
            frames,
            context=context_frames(len(frames), self.settings.context_mode, self.run_settings.context_frames),
            clip_view=self.run_settings.clip_view,
            last_key=max(keys.values()),
            cache_bytes=self.settings.feature_cache_bytes,
        )
        first = self.prompts.write(expressions[0], 1).prefix
        prefix = self.network.prefill(self.network.embed(first, encoder.context_tokens))
        forward = [self._new_track(expression, keys[expression.id]) for expression in expressions]
        backward: list[Track] = []
        for frame in encoder.walk(range(min(keys.values()), len(frames))):
            active = [track for track in forward if track.key_frame <= frame]
            yield from self._advance(active, frame, encoder, prefix)
            backward += [track.backward() for track in active if track.key_frame == frame and frame > 0]
        forward.clear()
        for frame in encoder.walk(range(max(keys.values()) - 1, -1, -1)):
            active = [track for track in backward if track.key_frame > frame]
            yield from self._advance(active, frame, encoder, prefix)

    def _new_track(self, expression: Expression, key_frame: int) -> Track:
        bank = MemoryBank(stride=self.settings.memory_stride, slots=self.network.sam.num_memories)
        return Track(expression, key_frame, "fwd", bank, deque(maxlen=self.run_settings.window))

    def _advance(
        self, tracks: Sequence[Track], frame: int, encoder: FrameEncoder, prefix: PrefixCache
    ) -> Iterator[Step]:
        """Takes all tracks one frame further, a batch of expressions at a time."""
        for start in range(0, len(tracks), self.settings.expression_batch):
            batch = tracks[start : start + self.settings.expression_batch]
            for track in batch:
                track.window.append(encoder.tokens)
            steps = self._ask(batch, frame, prefix)
            found = [(track, step) for track, step in zip(batch, steps, strict=True) if step.found]
            for track, step in found if self.run_settings.memory_bank else ():
                step.memory_positions, step.missing_positions = track.bank.select(track.position)
            # Attention needs the same number of memories in a batch.
            found.sort(key=lambda pair: len(pair[1].memory_positions))
            for _, group in groupby(found, key=lambda pair: len(pair[1].memory_positions)):
                self._decode(list(group), encoder.features())
            for track in batch:
                track.position += 1
                track.bank.forget(track.position)
            yield from steps

    def _ask(self, tracks: Sequence[Track], frame: int, prefix: PrefixCache) -> list[Step]:
        """Asks the language model for the newest frame of every track."""
        prompts = [self.prompts.write(track.expression, len(track.window)) for track in tracks]
        suffixes = [
            self.network.embed(prompt.suffix, list(track.window))
            for prompt, track in zip(prompts, tracks, strict=True)
        ]
        answers = self.network.answer(prefix, suffixes)
        # The published programs take the state that predicts [SEG], not the state at [SEG].
        embeddings = self.network.seg_projection(torch.stack([hidden[-1] for hidden in answers.hidden]))
        tokens = answers.next_token.tolist()
        return [
            Step(
                expression=track.expression,
                direction=track.direction,
                position=track.position,
                frame=frame,
                prompt=prompts[n],
                prefix=prefix.embeds[0],
                suffix=suffixes[n],
                hidden=answers.hidden[n],
                logits=answers.logits[n],
                next_token=tokens[n],
                found=tokens[n] == self.prompts.seg_id,
                prompt_embedding=embeddings[n],
            )
            for n, track in enumerate(tracks)
        ]

    def _decode(self, pairs: Sequence[tuple[Track, Step]], features: ImageFeatures) -> None:
        """Decodes the masks of tracks with equally many memories, and remembers them where there is a bank."""
        sam = self.network.sam
        memories = [[track.bank.entries[p] for p in step.memory_positions] for track, step in pairs]
        conditioned = sam.condition(features.top, memories)
        prompts = torch.stack([step.prompt_embedding for _, step in pairs])
        masks = sam.decode(conditioned, features, prompts)
        new = sam.remember(conditioned, masks.low_res) if self.run_settings.memory_bank else None
        for n, (track, step) in enumerate(pairs):
            step.features = features
            step.conditioned = conditioned[n : n + 1]
            step.masks = masks.of(n)
            if new is not None:
                step.memory = new[n : n + 1].clone()
                track.bank.add(track.position, step.memory)

    def _results(self, frames: FrameSource, steps: Iterable[Step]) -> Iterator[FrameResult]:
        height, width = frames.size
        for step in steps:
            if step.masks is None:
                mask, score = np.zeros((1, height, width), dtype=bool), 0.0
            else:
                mask = (masks_at_size(step.masks.low_res, (height, width)) > 0).cpu().numpy()
                score = float(step.masks.iou[0])
            scores = np.array([score], dtype=np.float32)
            yield FrameResult(step.frame, step.expression.id, mask, scores, step.found)
