"""SAM2 prompted by language: image features, the mask decoder with a text embedding, and the memory bank.

The order of operations is that of the published GLUS program (paper, section 3.3), which differs from
stock SAM2 in three places: memories carry no temporal position and no object pointers, the memory
encoder sees the memory-conditioned feature map, and the object score is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor, nn

from fiftyone_refvos.models.sam2_config import build_sam2
from fiftyone_refvos.sampling import memory_positions

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageFeatures:
    """What SAM2's image encoder gives for F images; with an image size of 1024 the sides are 64, 128, 256.

    Attributes:
        top: `(F, d, h, w)` stride 16, before any memory
        stride8: `(F, d/4, 2h, 2w)` after the decoder's conv_s1
        stride4: `(F, d/8, 4h, 4w)` after the decoder's conv_s0
    """

    top: Tensor
    stride8: Tensor
    stride4: Tensor

    @property
    def nbytes(self) -> int:
        """Size of the three maps in bytes."""
        return sum(level.numel() * level.element_size() for level in (self.top, self.stride8, self.stride4))

    def select(self, images: Tensor) -> ImageFeatures:
        """The maps of the given images `(B,)`, any of them as often as it is named."""
        return ImageFeatures(self.top[images], self.stride8[images], self.stride4[images])

    def to(self, device: torch.device) -> ImageFeatures:
        """The same maps on another device."""
        return ImageFeatures(self.top.to(device), self.stride8.to(device), self.stride4.to(device))


@dataclass(frozen=True)
class DecodedMasks:
    """What the mask decoder gives for B prompts; all logits are at a quarter of the image size.

    Attributes:
        low_res: `(B, 1, 4h, 4w)` selected mask logits; above 0 is inside
        iou: `(B,)` predicted IoU of the selected mask, in [0, 1]
        iou_all: `(B, 4)` predicted IoU of the single mask and of the three alternatives
        object_score: `(B,)` logit of the object being there (the method does not use it)
        stability: `(B,)` stability of the single mask, below 0.98 of which the best alternative is taken
    """

    low_res: Tensor
    iou: Tensor
    iou_all: Tensor
    object_score: Tensor
    stability: Tensor

    def of(self, index: int) -> DecodedMasks:
        """The mask of one prompt, with the batch axis kept."""
        part = slice(index, index + 1)
        return DecodedMasks(
            self.low_res[part],
            self.iou[part],
            self.iou_all[part],
            self.object_score[part],
            self.stability[part],
        )


@dataclass
class MemoryBank:
    """The memories of one expression in one direction, by pass position; keeps only what can be read again.

    Attributes:
        stride: every stride-th position is kept as a long-term memory (paper, supplement B: 3)
        slots: most memories that one frame attends to
    """

    stride: int
    slots: int
    entries: dict[int, Tensor] = field(default_factory=dict)

    def select(self, position: int) -> tuple[list[int], list[int]]:
        """Positions to attend to from `position`, oldest first: those that are there, and those missing."""
        wanted = memory_positions(position, self.stride, self.slots)
        return [p for p in wanted if p in self.entries], [p for p in wanted if p not in self.entries]

    def add(self, position: int, memory: Tensor) -> None:
        """Stores the memory `(1, m, h, w)` of a position."""
        self.entries[position] = memory

    def forget(self, next_position: int) -> None:
        """Drops what no frame from `next_position` on can select."""
        oldest = ((next_position - 2) // self.stride - (self.slots - 2)) * self.stride
        self.entries = {
            p: memory
            for p, memory in self.entries.items()
            if p == next_position - 1 or (p % self.stride == 0 and p >= oldest)
        }

    def fork(self) -> MemoryBank:
        """A bank with the same memories, for the other direction."""
        return MemoryBank(self.stride, self.slots, dict(self.entries))


class LanguageSam2(nn.Module):
    """SAM2 whose only prompt is a text embedding.

    Args:
        config: SAM2 configuration in the official yaml layout
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.sam2: SAM2Base = build_sam2(config)

    @property
    def image_size(self) -> int:
        """Side of the square input, in pixels."""
        return int(self.sam2.image_size)

    @property
    def num_memories(self) -> int:
        """Most memories that one frame attends to."""
        return int(self.sam2.num_maskmem)

    @property
    def prompt_dim(self) -> int:
        """Length of a text embedding."""
        return int(self.sam2.hidden_dim)

    @property
    def parameter(self) -> nn.Parameter:
        """Any parameter, to ask for device and dtype."""
        return self.sam2.no_mem_embed

    @property
    def no_mask_embedding(self) -> Tensor:
        """The dense prompt `(1, d, 1, 1)`, the same at every pixel, of a prompt without a mask."""
        return self.sam2.sam_prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)

    def preprocess(self, frames: Tensor) -> Tensor:
        """Squashes RGB frames `(F, H, W, 3) uint8` to the normalised input `(F, 3, S, S)`.

        The aspect ratio is not kept; bilinear with antialiasing on floats in [0, 1], as torchvision does.
        """
        device = self.parameter.device
        image = frames.to(device).permute(0, 3, 1, 2).float() / 255
        size = (self.image_size, self.image_size)
        image = F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)
        mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (_IMAGENET_MEAN, _IMAGENET_STD))
        return ((image - mean) / std).to(self.parameter.dtype)

    def encode_image(self, pixels: Tensor) -> ImageFeatures:
        """Encodes normalised images `(F, 3, S, S)`."""
        stride4, stride8, top = self.sam2.forward_image(pixels)["backbone_fpn"]
        dtype = self.parameter.dtype  # the neck adds its levels in float32
        return ImageFeatures(top=top.to(dtype), stride8=stride8.to(dtype), stride4=stride4.to(dtype))

    def condition(self, top: Tensor, memories: Sequence[Sequence[Tensor]]) -> Tensor:
        """Conditions a frame's top map on the memories of B expressions.

        Args:
            top: `(1, d, h, w)`
            memories: for each of B expressions the same number of memories `(1, m, h, w)`, oldest first;
                with none, SAM2's no-memory embedding is added instead

        Returns:
            `(B, d, h, w)`
        """
        batched = [torch.cat(of_all) for of_all in zip(*memories, strict=True)]
        return self.attend(top.expand(len(memories), -1, -1, -1), batched)

    def attend(self, top: Tensor, memories: Sequence[Tensor]) -> Tensor:
        """Conditions each of B top maps on its own memories.

        Args:
            top: `(B, d, h, w)`
            memories: each `(B, m, h, w)`, oldest first; with none, SAM2's no-memory embedding is added instead

        Returns:
            `(B, d, h, w)`
        """
        if not memories:
            return top + self.sam2.no_mem_embed.view(1, -1, 1, 1)
        batch, _, height, width = top.shape
        position = self.memory_position(memories[0])
        conditioned = self.sam2.memory_attention(
            curr=_flatten(top),
            curr_pos=_flatten(self._top_position(top[:1])).expand(-1, batch, -1),
            memory=torch.cat([_flatten(memory) for memory in memories]),
            memory_pos=_flatten(position).repeat(len(memories), batch, 1),
            num_obj_ptr_tokens=0,
        )
        return conditioned.permute(1, 2, 0).reshape(batch, -1, height, width)

    def decode(self, conditioned: Tensor, features: ImageFeatures, prompts: Tensor) -> DecodedMasks:
        """Decodes one mask per prompt.

        Args:
            conditioned: `(B, d, h, w)` top maps after memory
            features: of the one frame of all prompts, or of B images, for the two finer levels
            prompts: `(B, d)` text embeddings, each the only sparse prompt of its mask
        """
        decoder, encoder = self.sam2.sam_mask_decoder, self.sam2.sam_prompt_encoder
        batch, (height, width) = len(prompts), conditioned.shape[-2:]
        logits, iou_all, _, object_score = decoder.predict_masks(
            image_embeddings=conditioned,
            image_pe=encoder.get_dense_pe().to(conditioned.dtype),
            sparse_prompt_embeddings=prompts[:, None],
            dense_prompt_embeddings=self.no_mask_embedding.expand(batch, -1, height, width),
            repeat_image=False,
            high_res_features=[features.stride4, features.stride8],
        )
        # the fall-back is an inference-time rule; training supervises the single mask
        if self.training or not decoder.dynamic_multimask_via_stability:
            low_res, iou = logits[:, :1], iou_all[:, :1]
        else:
            low_res, iou = decoder._dynamic_multimask_via_stability(logits, iou_all)
        return DecodedMasks(
            low_res=low_res,
            iou=iou[:, 0],
            iou_all=iou_all,
            object_score=object_score[:, 0],
            stability=decoder._get_stability_scores(logits[:, :1])[:, 0],
        )

    def remember(self, conditioned: Tensor, low_res: Tensor) -> Tensor:
        """Encodes B new memories `(B, m, h, w)` from the conditioned maps and the mask logits.

        Stock SAM2 gives the memory encoder the raw map; the published system gives the conditioned one.
        """
        size = (self.image_size, self.image_size)
        masks = F.interpolate(low_res.float(), size=size, mode="bilinear", align_corners=False).sigmoid()
        masks = masks * self.sam2.sigmoid_scale_for_mem_enc + self.sam2.sigmoid_bias_for_mem_enc
        encoded = self.sam2.memory_encoder(conditioned, masks.to(conditioned.dtype), skip_mask_sigmoid=True)
        return encoded["vision_features"]

    def memory_position(self, memory: Tensor) -> Tensor:
        """The spatial position encoding `(1, m, h, w)` of a memory; the only one that is added."""
        return self.sam2.memory_encoder.position_encoding(memory[:1]).to(memory.dtype)

    def _top_position(self, top: Tensor) -> Tensor:
        return self.sam2.image_encoder.neck.position_encoding(top).to(top.dtype)


def masks_at_size(low_res: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask logits `(B, 1, h, w)` up-sampled to the size (H, W) of a frame, `(B, H, W) float32`; above 0 is inside."""
    return F.interpolate(low_res.float(), size=size, mode="bilinear", align_corners=False)[:, 0]


def _flatten(maps: Tensor) -> Tensor:
    """`(B, C, h, w)` to the `(h*w, B, C)` of SAM2's attention."""
    return maps.flatten(2).permute(2, 0, 1)
