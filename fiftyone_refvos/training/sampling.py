"""Which frames and expressions of which video become a sample (published data sampling; paper, section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from fiftyone_refvos.training.batch import Clip
from fiftyone_refvos.training.config import SamplingConfig
from fiftyone_refvos.training.conversation import ConversationWriter, Round, draw_rounds
from fiftyone_refvos.training.mixture import SourceMixture
from fiftyone_refvos.training.sources import TrainingExpression, TrainingSource, TrainingVideo


class Mixture:
    """Draws clips from several sources.

    Args:
        sources: at least one
        rates: how often each is drawn from, in relation to the others
        writer: of the conversations; it knows how clips are sampled

    Raises:
        ValueError: for no source, for an empty one, or for rates that are no weights of the sources
    """

    def __init__(self, sources: Sequence[TrainingSource], rates: Sequence[float], writer: ConversationWriter) -> None:
        self._sources = SourceMixture(sources, rates)
        self._writer = writer
        self._sampling = writer.sampling

    def draw(self, rng: np.random.Generator) -> Clip:
        """Draws a source by its rate, one of its videos, expressions and frames of it, and the wording.

        Raises:
            ValueError: if no video of the source can be trained on, or a text cannot be asked
        """
        source = self._sources.draw(rng)
        video = self._draw_video(source, rng)
        expressions, starts = known_together(
            self._draw_expressions(video, rng), len(video), self._sampling.query_frames
        )
        query, context = draw_frames(len(video), self._sampling, rng, starts)
        rounds = [draw_rounds(rng, len(query), self._sampling.wording) for _ in expressions]
        return make_clip(source, video, expressions, query=query, context=context, rounds=rounds, writer=self._writer)

    def _draw_video(self, source: TrainingSource, rng: np.random.Generator) -> TrainingVideo:
        """The first video, in random order, that is long enough and has something to say."""
        for index in rng.permutation(len(source)):
            video = source.video(int(index))
            if len(video) >= fewest_frames(self._sampling) and self._drawable(video):
                return video
        raise ValueError(
            f"no video of the source {source.name!r} can be trained on: each needs "
            f"{fewest_frames(self._sampling)} frames and an expression"
            f"{'' if self._sampling.no_target else ' that means an object'}"
        )

    def _drawable(self, video: TrainingVideo) -> list[TrainingExpression]:
        return [e for e in video.expressions if e.object_ids or self._sampling.no_target]

    def _draw_expressions(self, video: TrainingVideo, rng: np.random.Generator) -> list[TrainingExpression]:
        drawable = self._drawable(video)
        if len(drawable) < self._sampling.expressions:
            return drawable
        return [drawable[n] for n in rng.choice(len(drawable), self._sampling.expressions, replace=False)]


def fewest_frames(sampling: SamplingConfig) -> int:
    """The length of the shortest video that can be sampled so."""
    return max(sampling.query_frames, sampling.contexts)


def known_together(
    expressions: Sequence[TrainingExpression], num_frames: int, query_frames: int
) -> tuple[list[TrainingExpression], list[int]]:
    """Those of the drawn expressions whose targets are known in common frames, and where a query may begin.

    Raises:
        ValueError: if none has frames for a query
    """
    kept: list[TrainingExpression] = []
    starts = list(range(num_frames - query_frames + 1))
    for expression in expressions:
        known = expression.frames
        left = [t for t in starts if known is None or known.issuperset(range(t, t + query_frames))]
        if left:
            kept, starts = [*kept, expression], left
    if not kept:
        raise ValueError(
            f"the target of expression {expressions[0].id!r} is not known in {query_frames} frames in a row; leave "
            "the expression out of the source"
        )
    return kept, starts


def draw_frames(
    num_frames: int, sampling: SamplingConfig, rng: np.random.Generator, starts: Sequence[int] | None = None
) -> tuple[list[int], list[int]]:
    """Indices of consecutive query frames, and of one context frame from each of as many segments.

    Args:
        num_frames: of the video
        sampling: how many frames of each kind
        rng: draws
        starts: where the query may begin; by default anywhere

    Raises:
        ValueError: for a video that is too short
    """
    if num_frames < fewest_frames(sampling):
        raise ValueError(f"the video has {num_frames} frames, a sample needs {fewest_frames(sampling)}")
    if starts is None:
        starts = range(num_frames - sampling.query_frames + 1)
    start = starts[int(rng.integers(len(starts)))]
    query = list(range(start, start + sampling.query_frames))
    # as the published code, by floats
    bounds = [int(bound) for bound in np.linspace(0, num_frames, sampling.contexts + 1)]
    return query, [int(rng.integers(first, end)) for first, end in pairwise(bounds)]


def make_clip(
    source: TrainingSource,
    video: TrainingVideo,
    expressions: Sequence[TrainingExpression],
    *,
    query: Sequence[int],
    context: Sequence[int],
    rounds: Sequence[Sequence[Round]],
    writer: ConversationWriter,
) -> Clip:
    """Reads the frames and targets of a sample, each frame once, and writes its conversations.

    Args:
        source, video, expressions: what was drawn
        query, context: indices of frames
        rounds: per expression one round per query frame
        writer: of the conversations

    Raises:
        ValueError: for a text that cannot be asked
    """
    indices = sorted({*query, *context})
    position = {index: n for n, index in enumerate(indices)}
    conversations = tuple(
        writer.write(
            expression.text,
            turns,
            has_target=bool(expression.object_ids),
            what=f"expression {expression.id!r} of video {video.name!r} in {source.name!r}",
        )
        for expression, turns in zip(expressions, rounds, strict=True)
    )
    return Clip(
        source=source.name,
        video=video.name,
        contrastive=source.contrastive,
        expressions=tuple(expressions),
        conversations=conversations,
        frames=tuple(video.read(indices)),
        context=tuple(position[index] for index in context),
        query=tuple(position[index] for index in query),
        frame_names=tuple(video.frame_name(index) for index in query),
        targets=np.stack([video.targets(expressions, index) for index in query], axis=1),
    )
