"""Which frames and expressions of which video become a sample, and what goes through the network together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fiftyone_refvos.models.clip_tower import ClipView, clip_processor
from fiftyone_refvos.training.batch import PAD_ID
from fiftyone_refvos.training.conversation import IGNORED
from fiftyone_refvos.training.mixture import SourceMixture
from fiftyone_refvos.training.selector.config import SelectorTrainingConfig
from fiftyone_refvos.training.selector.conversation import ScoreConversation, ScoreConversationWriter, Turn, draw_turn
from fiftyone_refvos.training.selector.sources import LabelledExpression, LabelledVideo, LabelSource
from fiftyone_refvos.video import Frame


@dataclass(frozen=True, slots=True)
class ScoreClip:
    """Context and target of a video, and all that is asked about them.

    Attributes:
        names: what errors call the rows
        conversations: one per expression
        frames: the context, `(H, W, 3) uint8` each
        target: which of them is the target, which comes once more as the last image
        labels: of each expression in the target
    """

    names: tuple[str, ...]
    conversations: tuple[ScoreConversation, ...]
    frames: tuple[Frame, ...]
    target: int
    labels: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ScoreBatch:
    """V clips with R expressions together; it can be moved to a device.

    Attributes:
        names: what errors call the rows
        row_video: `(R,)` number of the clip of each
        input_ids, labels: `(R, L)`, padded on the right
        lengths: `(R,)` of the conversations
        score_positions: `(R,)` where [SCORE] is in `input_ids`
        clip_pixels: `(F, 3, s, s)` CLIP's input, each frame of a clip once
        starts: per clip the number of its first frame, and F
        targets: per clip the number of its target among all frames
        scores: `(R,)` the pseudo-labels
    """

    names: tuple[str, ...]
    row_video: Tensor
    input_ids: Tensor
    labels: Tensor
    lengths: Tensor
    score_positions: Tensor
    clip_pixels: Tensor
    starts: tuple[int, ...]
    targets: tuple[int, ...]
    scores: Tensor

    def to(self, device: torch.device | str) -> ScoreBatch:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            each.name: value.to(device, non_blocking=True)
            for each in fields(self)
            if isinstance(value := getattr(self, each.name), Tensor)
        }
        return replace(self, **moved)


class LabelMixture:
    """Draws clips from several sources.

    Args:
        sources: at least one
        rates: how often each is drawn from, in relation to the others
        writer: of the conversations
        config: of the training

    Raises:
        ValueError: for no source, for an empty one, or for rates that are no weights of the sources
    """

    def __init__(
        self,
        sources: Sequence[LabelSource],
        rates: Sequence[float],
        writer: ScoreConversationWriter,
        config: SelectorTrainingConfig,
    ) -> None:
        self._sources, self._writer, self._config = SourceMixture(sources, rates), writer, config

    def draw(self, rng: np.random.Generator) -> ScoreClip:
        """Draws a source by its rate, one of its videos, expressions and frames of it, and the wording."""
        source = self._sources.draw(rng)
        video = source.video(int(rng.integers(len(source))))
        count = min(self._config.sampling.expressions, len(video.expressions))
        drawn = [video.expressions[n] for n in rng.choice(len(video.expressions), count, replace=False)]
        fewest, most = self._config.context_frames
        context = draw_context(len(video), int(rng.integers(fewest, most + 1)), rng)
        expressions, context, target = known_together(drawn, context, rng)
        turns = [draw_turn(rng, expression.text, self._writer.wording) for expression in expressions]
        return make_clip(source.name, video, expressions, turns, context=context, target=target, writer=self._writer)


def draw_context(num_frames: int, count: int, rng: np.random.Generator) -> list[int]:
    """Indices of one random frame from each of `count` segments; all frames of a shorter video."""
    if num_frames <= count:
        return list(range(num_frames))
    bounds = _bounds(num_frames, count)
    return [int(rng.integers(first, end)) for first, end in pairwise(bounds)]


def known_together(
    expressions: Sequence[LabelledExpression], context: Sequence[int], rng: np.random.Generator
) -> tuple[list[LabelledExpression], list[int], int]:
    """Those of the drawn expressions that have a label in a common context frame, the context, and the target.

    Where the first expression has no label in any context frame, a frame with one takes the place of the nearest.
    """
    context = list(context)
    known = expressions[0].known
    if not known & set(context):
        target = sorted(known)[int(rng.integers(len(known)))]
        context[min(range(len(context)), key=lambda n: abs(context[n] - target))] = target
        context.sort()
    kept: list[LabelledExpression] = []
    common = set(context)
    for expression in expressions:
        if left := common & expression.known:
            kept, common = [*kept, expression], left
    possible = [n for n, index in enumerate(context) if index in common]
    return kept, context, possible[int(rng.integers(len(possible)))]


def make_clip(
    source: str,
    video: LabelledVideo,
    expressions: Sequence[LabelledExpression],
    turns: Sequence[Turn],
    *,
    context: Sequence[int],
    target: int,
    writer: ScoreConversationWriter,
) -> ScoreClip:
    """Reads the frames of a sample, and writes its conversations.

    Args:
        source: its name
        video, expressions, turns: what was drawn
        context: indices of frames
        target: which of them is the target
        writer: of the conversations

    Raises:
        ValueError: for a text that cannot be asked, and a target without a label
    """
    names = tuple(f"{source}/{video.name}/{expression.id}" for expression in expressions)
    labels = []
    for name, expression in zip(names, expressions, strict=True):
        label = expression.labels[context[target]]
        if label is None:
            raise ValueError(f"{name} has no pseudo-label in frame {context[target]}, and cannot learn from it")
        labels.append(float(label))
    conversations = tuple(
        writer.write(expression.text, turn, len(context), what=f"expression {name}")
        for name, expression, turn in zip(names, expressions, turns, strict=True)
    )
    return ScoreClip(names, conversations, tuple(video.read(context)), target, tuple(labels))


class ScoreCollator:
    """Makes a batch of clips, with CLIP's preprocessing.

    Args:
        clip_side: side of CLIP's square input, in pixels
        clip_view: what CLIP sees of a frame
    """

    def __init__(self, clip_side: int, clip_view: ClipView) -> None:
        self._processor = clip_processor(clip_side, clip_view)

    def __call__(self, clips: Sequence[ScoreClip]) -> ScoreBatch:
        """Makes a batch of at least one clip."""
        conversations = [conversation for clip in clips for conversation in clip.conversations]
        frames = [frame for clip in clips for frame in clip.frames]
        starts = np.cumsum([0, *(len(clip.frames) for clip in clips)]).tolist()
        return ScoreBatch(
            names=tuple(name for clip in clips for name in clip.names),
            row_video=torch.tensor([n for n, clip in enumerate(clips) for _ in clip.conversations]),
            input_ids=_padded([conversation.ids for conversation in conversations], PAD_ID),
            labels=_padded([conversation.labels for conversation in conversations], IGNORED),
            lengths=torch.tensor([len(conversation.ids) for conversation in conversations]),
            score_positions=torch.tensor([conversation.score_index for conversation in conversations]),
            clip_pixels=self._processor(images=frames, return_tensors="pt")["pixel_values"],
            starts=tuple(starts),
            targets=tuple(start + clip.target for start, clip in zip(starts, clips, strict=False)),
            scores=torch.tensor([label for clip in clips for label in clip.labels]),
        )


def _bounds(num_frames: int, count: int) -> list[int]:
    return [int(bound) for bound in np.linspace(0, num_frames, count + 1)]


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)
