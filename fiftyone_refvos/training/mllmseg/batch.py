"""What one forward pass of an MLLMSeg training sees: images, conversations about them, and masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fiftyone_refvos.masklet import BoolArray
from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID
from fiftyone_refvos.models.mllmseg.prompt import IGNORED, Prompt, PromptWriter
from fiftyone_refvos.video import Frame

PAD_ID = 0


@dataclass(frozen=True)
class ImageConversation:
    """One image and what is said about it.

    Attributes:
        id: what errors call it
        image: `(H, W, 3) uint8` RGB
        prompt: with its answer
        masks: `(E, H, W) bool`, one per decision in the answer; all zero for one that is not there
    """

    id: str
    image: Frame
    prompt: Prompt
    masks: BoolArray


@dataclass(frozen=True)
class ImageBatch:
    """B conversations, padded on the right to L positions.

    Attributes:
        ids: of the samples, for errors
        images: of different sizes
        input_ids: `(B, L)`, visual tokens expanded
        first_image_position: where the visual tokens begin: at the same place, since all conversations begin alike
        attention_mask: `(B, L) bool`, False in the padding
        labels: `(B, L)` the token that is to be predicted *at* each position by the one before; `IGNORED` elsewhere
        decisions: of each conversation `(E,)` positions of [SEG] and [REJ]
        absent: of each conversation `(E,) bool`, True for [REJ]
        masks: of each conversation `(E, H, W)` float32
    """

    ids: tuple[str, ...]
    images: tuple[Frame, ...]
    input_ids: Tensor
    first_image_position: int
    attention_mask: Tensor
    labels: Tensor
    decisions: tuple[Tensor, ...]
    absent: tuple[Tensor, ...]
    masks: tuple[Tensor, ...]

    @property
    def position_ids(self) -> Tensor:
        """`(B, L)` places in the conversation; 0 in the padding."""
        return (self.attention_mask.cumsum(1) - 1) * self.attention_mask

    def to(self, device: torch.device) -> ImageBatch:
        """The same on a device; images stay where they are."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            labels=self.labels.to(device),
            decisions=tuple(each.to(device) for each in self.decisions),
            absent=tuple(each.to(device) for each in self.absent),
            masks=tuple(each.to(device) for each in self.masks),
        )


def collate(samples: Sequence[ImageConversation], writer: PromptWriter) -> ImageBatch:
    """Pads conversations to a batch.

    Labels of the padding are ignored; the published program has 0 there, and so learns to say token 0 after the end.
    """
    ids = [writer.expanded(sample.prompt.prefix + sample.prompt.suffix) for sample in samples]
    tensors = [torch.tensor(each) for each in ids]
    tokens = (writer.seg_id, writer.rej_id)
    decisions = [torch.tensor([n for n, each in enumerate(row) if each in tokens], dtype=torch.long) for row in ids]
    return ImageBatch(
        ids=tuple(sample.id for sample in samples),
        images=tuple(sample.image for sample in samples),
        input_ids=_pad(tensors, PAD_ID),
        first_image_position=writer.prefix.index(IMAGE_ID),
        attention_mask=_pad([torch.ones(len(each), dtype=torch.bool) for each in ids], 0),
        labels=_pad([torch.tensor(writer.labels(sample.prompt)) for sample in samples], IGNORED),
        decisions=tuple(decisions),
        absent=tuple(row[places] == writer.rej_id for row, places in zip(tensors, decisions, strict=True)),
        masks=tuple(torch.from_numpy(sample.masks.astype(np.float32)) for sample in samples),
    )


def _pad(rows: Sequence[Tensor], value: int) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=value)
