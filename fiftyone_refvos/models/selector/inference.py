"""The language key frame selector over a video: every frame scored for all expressions together.

What the published program asks per (frame, expression) is one prompt: at most 11 context frames, every `step`-th
one so that the target is among them, the target once more, and the request; it runs each from its first word.
Frames whose indices leave the same rest by `step` have the same context, so prompts of such a class begin alike.
For a video of T frames and E expressions, in R = step classes, this module runs

- CLIP and token merging T times, not T * E * (context + 1) times;
- the beginning of a prompt, up to the target image, R times, not T * E times;
- the target image, and the words that all requests begin with, T times, not T * E times;
- the rest of each request T * E times, up to the token where the score is read; what follows is never run.

`Work` counts it. A video of up to 11 frames, be it a single one, is its own context as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from fiftyone_refvos.masklet import Expression, FloatArray
from fiftyone_refvos.models.branches import Branches, split_trunk
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.models.segmenter import check_request
from fiftyone_refvos.models.selector.config import RESOURCES, SelectorInference
from fiftyone_refvos.models.selector.network import SelectorNetwork
from fiftyone_refvos.models.selector.prompt import PromptWriter, ScorePrompt
from fiftyone_refvos.models.selector.protocol import FrameSelector
from fiftyone_refvos.sampling import residue_classes
from fiftyone_refvos.video import FrameSource

Item = TypeVar("Item")

_HOST = torch.device("cpu")


@dataclass
class Work:
    """What was computed so far.

    Attributes:
        clip_encodes: frames that went through CLIP and token merging
        prefills: shared beginnings that went through the language model
        forwards: runs of the language model, the shared beginnings included
        positions: positions that went through the language model
    """

    clip_encodes: int = 0
    prefills: int = 0
    forwards: int = 0
    positions: int = 0


@dataclass(frozen=True)
class Answer:
    """What the selector says of one expression in one frame.

    Attributes:
        expression: what was looked for
        frame: index of the target frame
        context: indices of the context frames
        prompt: ids of the prompt
        hidden: `(layers, D)` hidden states where the score is read, the last after the final norm; only that
            one if not every layer was asked for
        score: of the frame, higher is better
    """

    expression: Expression
    frame: int
    context: list[int]
    prompt: ScorePrompt
    hidden: Tensor
    score: float


class VideoScorer:
    """Scores the frames of one video; what depends on the frames alone is computed once, and kept.

    The merged tokens stay in host memory: of the published size 224 KiB per frame in bfloat16.

    Args:
        network: with its weights
        prompts: of the same checkpoint
        settings: how to run it
        frames: of one video, which are read once, in order

    Attributes:
        work: what was computed so far
        contexts: indices of the frames that are each other's context; each frame is in one
    """

    def __init__(
        self, network: SelectorNetwork, prompts: PromptWriter, settings: SelectorInference, frames: FrameSource
    ) -> None:
        self.work = Work()
        self._network = network
        self._prompts = prompts
        self._settings = settings
        self._num_frames = len(frames)
        self.contexts = residue_classes(len(frames), settings.max_images - 1)
        self._merged = self._encode(frames)

    def answers(self, expressions: Sequence[Expression], *, every_layer: bool = False) -> Iterator[Answer]:
        """Streams the answers, each (frame, expression) once, class after class.

        Args:
            expressions: what to look for
            every_layer: give the hidden states before and after every layer
        """
        for context in self.contexts:
            yield from self._ask_class(context, expressions, every_layer)

    @torch.inference_mode()
    def visual_tokens(self, indices: Sequence[int]) -> list[Tensor]:
        """The visual tokens `(tokens, D)` of some frames."""
        return list(self._network.project(self._merged[list(indices)]))

    @torch.inference_mode()
    def _encode(self, frames: FrameSource) -> Tensor:
        """`(T, tokens, C)` merged tokens of all frames, on the host."""
        network, seed = self._network, self._settings.noise_seed
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        merged: list[Tensor] = []
        for batch in _batched(frames.read(range(self._num_frames)), self._settings.frame_batch):
            features = network.clip_features(network.clip_pixels(batch))
            noise = None
            if generator is not None:  # frame by frame, so that the batch size does not matter
                noise = torch.stack([torch.rand(network.tokens_merged, generator=generator) for _ in batch])
            merged.append(network.merge(features, noise).tokens.to(_HOST, network.dtype))
            self.work.clip_encodes += len(batch)
        return torch.cat(merged)

    @torch.inference_mode()
    def _ask_class(
        self, context: list[int], expressions: Sequence[Expression], every_layer: bool
    ) -> Iterator[Answer]:
        """All frames of a context as targets, for all expressions."""
        network = self._network
        prompts = [self._prompts.write(expression.text, len(context)) for expression in expressions]
        tokens = dict(zip(context, self.visual_tokens(context), strict=True))
        embeds = network.embed(prompts[0].prefix, list(tokens.values()))
        prefix = network.prefill(embeds)
        self.work.prefills += 1
        self._count(len(embeds))
        for group in self._groups(prompts):
            trunk, leaves = split_trunk([prompts[number].read for number in group])
            embedded = [network.embed(leaf, []) for leaf in leaves]
            tree = len(trunk) - 1 + network.tokens_per_image + sum(map(len, leaves))
            for targets in _batched(context, max(1, self._settings.token_batch // tree)):
                trunks = torch.stack([network.embed(trunk, [tokens[target]]) for target in targets])
                hidden = network.read(prefix, Branches(trunks, embedded), every_layer=every_layer)
                self._count(len(targets) * tree)
                scores = network.score(hidden[-1]).tolist()
                for row, target in enumerate(targets):
                    for column, number in enumerate(group):
                        state, score = hidden[:, row, column], scores[row][column]
                        yield Answer(expressions[number], target, context, prompts[number], state, score)

    def _groups(self, prompts: Sequence[ScorePrompt]) -> Iterator[list[int]]:
        """Numbers of prompts that go through the language model together for one target."""
        group: list[int] = []
        length = image = self._network.tokens_per_image
        for number, prompt in enumerate(prompts):
            own = len(prompt.read) - 1
            if group and length + own > self._settings.token_batch:
                yield group
                group, length = [], image
            group.append(number)
            length += own
        yield group

    def _count(self, positions: int) -> None:
        self.work.forwards += 1
        self.work.positions += positions


class LanguageFrameSelector(FrameSelector):
    """Key frame selection by a language model that scores every frame (GLUS paper, section 4.4 and appendix B.4).

    Scores of frames with different contexts are comparable only approximately: they depend on the context.

    Args:
        network: with its weights
        tokenizer: of the same checkpoint
        settings: how to run it
    """

    def __init__(self, network: SelectorNetwork, tokenizer: LlamaTokenizer, settings: SelectorInference) -> None:
        self.network = network
        smoothing = network.config.smoothing if settings.smoothing is None else settings.smoothing
        self.settings = replace(settings, smoothing=smoothing)
        self.prompts = PromptWriter(
            tokenizer,
            max_images=settings.max_images,
            tokens_per_image=network.tokens_per_image,
            max_length=network.config.llama.max_position_embeddings,
            words=network.config.words,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """The settings that the scores depend on, as plain values; batch sizes are none of them."""
        values = {name: value for name, value in asdict(self.settings).items() if name not in RESOURCES}
        if not self.settings.smoothing:  # key frames are older than this setting, and go on without it
            del values["smoothing"]
        return values

    def check(self, expression: Expression) -> None:
        """Raises a ValueError for an expression that is empty, too long, or holds a reserved token."""
        self.prompts.check(expression)

    def open(self, frames: FrameSource) -> VideoScorer:
        """Encodes the frames of a video, about which any number of expressions can be asked then."""
        return VideoScorer(self.network, self.prompts, self.settings, frames)

    def scores(self, frames: FrameSource, expressions: Sequence[Expression]) -> dict[str, FloatArray]:
        """The scores `(T,)` of every frame per expression id; higher is better, and there are no bounds.

        They are the answers' scores, smoothed over time as the settings say; the first and the last frame stand for
        those that a video lacks.
        """
        check_request(frames, expressions)
        for expression in expressions:
            self.check(expression)
        scores = {expression.id: np.empty(len(frames), dtype=np.float32) for expression in expressions}
        for answer in self.open(frames).answers(expressions):
            scores[answer.expression.id][answer.frame] = answer.score
        if not self.settings.smoothing:
            return scores
        smooth = partial(gaussian_filter1d, sigma=self.settings.smoothing, mode="nearest")
        # One score that is no number would spoil its neighbours: then the error is to name that frame alone.
        return {id_: smooth(each) if np.isfinite(each).all() else each for id_, each in scores.items()}


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch
