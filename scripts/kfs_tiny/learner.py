"""Scores of several frames for several expressions of a clip in one pass, as inference computes them.

The published recipe runs every conversation from its first word, for one label each. Here the clips' context is read
once; each target frame goes on from it, and each request from the frame, and none sees another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from fiftyone_refvos.metrics.correlation import spread
from fiftyone_refvos.models.branches import split_trunk
from fiftyone_refvos.models.clip_tower import clip_processor
from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID, LlamaTokenizer
from fiftyone_refvos.models.selector.network import SelectorNetwork
from fiftyone_refvos.models.selector.prompt import PromptWriter
from fiftyone_refvos.training.learner import Forgetful
from fiftyone_refvos.training.selector.sampling import draw_context
from fiftyone_refvos.training.selector.sources import LabelledExpression, LabelledVideo, LabelSource
from fiftyone_refvos.video import Frame

CONTEXT = (8, 11)
"""Fewest and most context frames; inference has 8 in videos of 24 frames, and never more than 11."""

_VARYING, _FLAT = 5.0, 1.0
"""How often expressions whose labels differ by much are drawn, and all others."""
_SPREAD = 0.2
_TRIES, _ENOUGH = 6, 3
"""Videos that are looked at before one with so many expressions of the former kind is found, or the last is taken."""

_ORDER_WEIGHT = 3.0


@dataclass(frozen=True)
class ScoresBatch:
    """V clips of C context frames; R = V * K rows, one for each of K targets, with E requests each.

    Attributes:
        pixels: `(V * C, 3, S, S)` of CLIP
        prefix: ids `(P,)` before the target, the same for all
        targets: `(R,)` which of all frames each row is about
        ids: `(R, L)` from the target image on: the trunk, then one request after the other
        positions: `(R, L)` in its prompt, images expanded, from the end of the prefix on
        requests: `(R, L)` 0 for the trunk, then the number of the request, -1 for padding
        read: `(R, E)` where scores are read in `ids`
        labels: `(R, E)`, NaN where there are fewer expressions
    """

    pixels: Tensor
    prefix: Tensor
    targets: Tensor
    ids: Tensor
    positions: Tensor
    requests: Tensor
    read: Tensor
    labels: Tensor

    def to(self, device: torch.device) -> ScoresBatch:
        """The same on a device."""
        return replace(self, **{each.name: getattr(self, each.name).to(device) for each in fields(self)})


class ScoresLearner(Forgetful):
    """A `Learner` of all of a selector but CLIP.

    The loss is the squared distance of scores and labels, so that a score is what can be expected; and again that of
    both from their means over the targets, which is the order of the frames.

    Args:
        network: trained in place
        tokenizer: of the same checkpoint
        source: videos with labels
        clips: per pass
        targets: of a clip
        expressions: most of a clip
    """

    def __init__(
        self,
        network: SelectorNetwork,
        tokenizer: LlamaTokenizer,
        source: LabelSource,
        *,
        clips: int = 2,
        targets: int = 6,
        expressions: int = 8,
    ) -> None:
        self._network, self._source = network, source
        self._clips, self._targets, self._expressions = clips, targets, expressions
        self._prompts = PromptWriter(
            tokenizer,
            max_images=CONTEXT[1] + 1,
            tokens_per_image=network.tokens_per_image,
            max_length=network.config.llama.max_position_embeddings,
            words=network.config.words,
        )
        self._processor = clip_processor(network.clip.config.image_size, network.config.clip_view)
        network.clip.requires_grad_(False)

    @property
    def network(self) -> nn.Module:
        return self._network

    def draw(self, rng: np.random.Generator) -> ScoresBatch:
        count = int(rng.integers(CONTEXT[0], CONTEXT[1] + 1))
        frames: list[Frame] = []
        drawn = []
        for number in range(self._clips):
            video = draw_video(self._source, rng)
            context = draw_context(len(video), count, rng)
            frames += video.read(context)
            targets = sorted(rng.permutation(count)[: self._targets].tolist())
            asked = draw_expressions(video.expressions, self._expressions, rng)
            drawn.append(([number * count + n for n in targets], [context[n] for n in targets], asked))
        return self.batch(frames, drawn, count)

    def batch(
        self,
        frames: Sequence[Frame],
        drawn: Sequence[tuple[Sequence[int], Sequence[int], Sequence[LabelledExpression]]],
        count: int,
    ) -> ScoresBatch:
        """Lays out clips.

        Args:
            frames: of all clips
            drawn: per clip its targets among all frames, the same as indices of the video, and its expressions
            count: context frames of a clip
        """
        rows: list[tuple[Tensor, ...]] = []
        for _, indices, asked in drawn:
            prompts = [self._prompts.write(each.text, count) for each in asked]
            layout = _lay_out([prompt.read for prompt in prompts], self._network.tokens_per_image)
            prefix = prompts[0].prefix
            rows += [(*layout, torch.tensor([each.labels[index] for each in asked])) for index in indices]
        ids, positions, requests, read, labels = (
            pad_sequence(list(each), batch_first=True, padding_value=value)
            for each, value in zip(zip(*rows, strict=True), (0, 0, -1, 0, torch.nan), strict=True)
        )
        return ScoresBatch(
            pixels=self._processor(images=list(frames), return_tensors="pt")["pixel_values"],
            prefix=torch.tensor(prefix),
            targets=torch.tensor([number for numbers, _, _ in drawn for number in numbers]),
            ids=ids,
            positions=positions,
            requests=requests,
            read=read,
            labels=labels,
        )

    def losses(self, batch: ScoresBatch, rng: np.random.Generator) -> Mapping[str, Tensor]:
        known = ~batch.labels.isnan()
        differences = torch.where(known, self.scores(batch) - batch.labels.nan_to_num(), 0)
        by_clip = differences.unflatten(0, (-1, self._targets))
        count = known.sum()
        losses = {
            "value": differences.square().sum() / count,
            "order": _ORDER_WEIGHT * (by_clip - by_clip.mean(1, keepdim=True)).square().sum() / count,
        }
        return losses | {"total": torch.stack(list(losses.values())).sum()}

    def scores(self, batch: ScoresBatch) -> Tensor:
        """`(R, E)`; without meaning where there is no expression."""
        network = self._network
        with torch.no_grad():
            merged = network.merge(network.clip_features(batch.pixels)).tokens
        images = network.project(merged)
        clips = len(batch.targets) // self._targets
        context = images.unflatten(0, (clips, -1))
        beginning = torch.stack([network.embed(batch.prefix.tolist(), list(each)) for each in context])
        cache = self._beginnings(beginning, torch.arange(clips).repeat_interleave(self._targets))
        later, earlier = batch.requests[:, :, None], batch.requests[:, None]
        order = torch.arange(batch.ids.shape[1], device=images.device)
        mask = ((earlier == 0) | (earlier == later)) & (order[:, None] >= order)
        before = mask.new_ones(*mask.shape[:2], beginning.shape[1])
        states = network.llama(
            inputs_embeds=self._embed(batch, images[batch.targets]),
            attention_mask=torch.cat([before, mask], dim=2)[:, None],
            position_ids=batch.positions + beginning.shape[1],
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return network.score(states[torch.arange(len(states))[:, None], batch.read])

    def _embed(self, batch: ScoresBatch, images: Tensor) -> Tensor:
        """`(R, L, D)`, the target's visual tokens at the places of its image."""
        places = batch.ids == IMAGE_ID
        words = self._network.llama.embed_tokens(batch.ids.masked_fill(places, 0))
        return words.masked_scatter(places[..., None], images.to(words))

    def _beginnings(self, beginning: Tensor, clips: Tensor) -> DynamicCache:
        """Keys and values of the context for each row, computed once per clip."""
        config = self._network.config.llama
        of_clips, of_rows = DynamicCache(config=config), DynamicCache(config=config)
        self._network.llama(inputs_embeds=beginning, past_key_values=of_clips, use_cache=True)
        for number, layer in enumerate(of_clips.layers):
            of_rows.update(layer.keys[clips], layer.values[clips], number)
        return of_rows

    def sample_ids(self, batch: ScoresBatch) -> Sequence[str]:
        return [f"{len(batch.targets)} frames of demo clips"]


def draw_video(source: LabelSource, rng: np.random.Generator) -> LabelledVideo:
    """A video, if possible one in which the labels of several expressions differ by much."""
    for _ in range(_TRIES):
        video = source.video(int(rng.integers(len(source))))
        if sum(map(_varies, video.expressions)) >= _ENOUGH:
            break
    return video


def draw_expressions(
    expressions: Sequence[LabelledExpression], count: int, rng: np.random.Generator
) -> list[LabelledExpression]:
    """At most `count`, those whose labels differ by much more often."""
    rates = np.array([_VARYING if _varies(each) else _FLAT for each in expressions])
    chosen = rng.choice(len(rates), min(count, len(rates)), replace=False, p=rates / rates.sum())
    return [expressions[number] for number in chosen]


def _varies(expression: LabelledExpression) -> bool:
    return spread([label for label in expression.labels if label is not None]) >= _SPREAD


def _lay_out(reads: Sequence[list[int]], per_image: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One row: ids, positions, requests, and the end of each request; see `ScoresBatch`."""
    trunk, leaves = split_trunk(list(reads))
    trunk = [id_ for each in trunk for id_ in ([each] * per_image if each == IMAGE_ID else [each])]
    ids, positions, requests, ends = [*trunk], [*range(len(trunk))], [0] * len(trunk), []
    for number, leaf in enumerate(leaves, 1):
        ids += leaf
        positions += range(len(trunk), len(trunk) + len(leaf))
        requests += [number] * len(leaf)
        ends.append(len(ids) - 1)
    return torch.tensor(ids), torch.tensor(positions), torch.tensor(requests), torch.tensor(ends)
