"""What goes through the network together: clips of several videos, with all expressions of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fiftyone_refvos.models.clip_tower import ClipView, clip_processor
from fiftyone_refvos.training.conversation import IGNORED, Conversation
from fiftyone_refvos.training.sources import TrainingExpression
from fiftyone_refvos.video import Frame

PAD_ID = 0


@dataclass(frozen=True, slots=True)
class Clip:
    """The frames of a video that make one sample, and all that is said about them.

    Attributes:
        source, video: where it comes from
        contrastive: whether the contrastive loss applies
        expressions: E of the video
        conversations: one per expression
        frames: the distinct frames, `(H, W, 3) uint8` each
        context, query: positions in `frames`; a frame may be both
        frame_names: of the Q query frames
        targets: `(E, Q, h, w) uint8` how many objects of the expression cover a pixel; of any size
    """

    source: str
    video: str
    contrastive: bool
    expressions: tuple[TrainingExpression, ...]
    conversations: tuple[Conversation, ...]
    frames: tuple[Frame, ...]
    context: tuple[int, ...]
    query: tuple[int, ...]
    frame_names: tuple[str, ...]
    targets: NDArray[np.uint8]


class Row(NamedTuple):
    """Which expression a row of a batch is.

    Attributes:
        source, video, expression: names and ids; `str()` of a row is what errors call it
        objects: sorted ids of the objects that are meant; none for an expression without a target
        frames: names of the query frames
        contrastive: whether the contrastive loss applies
    """

    source: str
    video: str
    expression: str
    objects: tuple[str, ...]
    frames: tuple[str, ...]
    contrastive: bool

    def __str__(self) -> str:
        return f"{self.source}/{self.video}/{self.expression}"


class TargetGroup(NamedTuple):
    """Targets of one size.

    Attributes:
        rows: `(r,)` whose they are, as positions in `Batch.target_rows`
        masks: `(r, Q, h, w) uint8`
    """

    rows: Tensor
    masks: Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """V clips with R expressions and Q query frames each; it can be pickled, and moved to a device.

    Attributes:
        rows: which expression each row is
        row_video: `(R,)` number of its clip
        input_ids, labels, attention_mask: `(R, L)`, padded on the right
        seg_positions: `(R, Q)` where [SEG] is in `input_ids`
        open_answers: whether the token before each [SEG] is seen by nothing that follows
        clip_pixels: `(F, 3, s, s)` CLIP's input, each distinct frame of a clip once
        images: `(V, C + Q)` which of them the images of a conversation are, context first
        query_frames: per clip `(Q, H, W, 3) uint8`
        target_rows: `(T,)` rows whose expression has a target, ascending
        targets: theirs, those of one size together
    """

    rows: tuple[Row, ...]
    row_video: Tensor
    input_ids: Tensor
    labels: Tensor
    attention_mask: Tensor
    seg_positions: Tensor
    open_answers: bool
    clip_pixels: Tensor
    images: Tensor
    query_frames: tuple[Tensor, ...]
    target_rows: Tensor
    targets: tuple[TargetGroup, ...]

    @property
    def sample_ids(self) -> list[str]:
        """What errors call the rows."""
        return [str(row) for row in self.rows]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        return replace(self, **{field.name: _moved(getattr(self, field.name), device) for field in fields(self)})


class Collator:
    """Makes a batch of clips, with CLIP's preprocessing, so that workers can do it.

    Args:
        clip_side: side of CLIP's square input, in pixels
        clip_view: what CLIP sees of a frame, as the checkpoint records it
    """

    def __init__(self, clip_side: int, clip_view: ClipView) -> None:
        self._processor = clip_processor(clip_side, clip_view)

    def __call__(self, clips: Sequence[Clip]) -> Batch:
        """Makes a batch of at least one clip; all have the same numbers of query and of context frames."""
        conversations = [conversation for clip in clips for conversation in clip.conversations]
        input_ids = _padded([conversation.ids for conversation in conversations], PAD_ID)
        rows = tuple(row for clip in clips for row in _rows(clip))
        frames = [frame for clip in clips for frame in clip.frames]
        starts = np.cumsum([0, *(len(clip.frames) for clip in clips)])
        images = [
            [start + n for n in (*clip.context, *clip.query)] for start, clip in zip(starts, clips, strict=False)
        ]
        target_rows = [n for n, row in enumerate(rows) if row.objects]
        return Batch(
            rows=rows,
            row_video=torch.tensor([n for n, clip in enumerate(clips) for _ in clip.expressions]),
            input_ids=input_ids,
            labels=_padded([conversation.labels for conversation in conversations], IGNORED),
            attention_mask=input_ids != PAD_ID,
            seg_positions=torch.tensor([conversation.seg_positions for conversation in conversations]),
            open_answers=all(conversation.open_answers for conversation in conversations),
            clip_pixels=self.pixels(frames),
            images=torch.tensor(np.array(images)),
            query_frames=tuple(torch.from_numpy(np.stack([clip.frames[n] for n in clip.query])) for clip in clips),
            target_rows=torch.tensor(target_rows, dtype=torch.int64),
            targets=_grouped_targets(clips),
        )

    def pixels(self, frames: Sequence[Frame]) -> Tensor:
        """CLIP's input `(F, 3, s, s)` of RGB frames."""
        pixels: Tensor = self._processor(images=list(frames), return_tensors="pt")["pixel_values"]
        return pixels


def _rows(clip: Clip) -> list[Row]:
    return [
        Row(
            source=clip.source,
            video=clip.video,
            expression=expression.id,
            objects=tuple(sorted(expression.object_ids)),
            frames=clip.frame_names,
            contrastive=clip.contrastive,
        )
        for expression in clip.expressions
    ]


def _grouped_targets(clips: Sequence[Clip]) -> tuple[TargetGroup, ...]:
    """The targets of expressions that have one, by their size."""
    groups: dict[tuple[int, int], tuple[list[int], list[NDArray[np.uint8]]]] = {}
    count = 0
    for clip in clips:
        with_target = [n for n, expression in enumerate(clip.expressions) if expression.object_ids]
        height, width = clip.targets.shape[-2:]
        rows, masks = groups.setdefault((height, width), ([], []))
        rows += range(count, count + len(with_target))
        masks.append(clip.targets[with_target])
        count += len(with_target)
    return tuple(
        TargetGroup(torch.tensor(rows), torch.from_numpy(np.concatenate(masks)))
        for rows, masks in groups.values()
        if rows
    )


def _padded(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=value)


def _moved(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, TargetGroup):
        return TargetGroup(*(part.to(device, non_blocking=True) for part in value))
    if isinstance(value, tuple) and not isinstance(value, Row):
        return tuple(_moved(part, device) for part in value)
    return value
