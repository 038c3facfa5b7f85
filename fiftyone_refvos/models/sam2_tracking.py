"""SAM2 that remembers as the stock video predictor does, prompted by language in its conditioning frames.

Unlike `LanguageSam2` memories carry temporal positions and object pointers, and are made of raw features.
Unlike the stock predictor a mask stays where the object score is negative: that score only chooses the pointer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from sam2.modeling.sam.mask_decoder import MaskDecoder
from torch import Tensor

from fiftyone_refvos.models.sam2 import ImageFeatures, LanguageSam2, masks_at_size

_CERTAIN = 10.0  # the logit of a mask that is given, not predicted


@dataclass(frozen=True)
class TrackedMasks:
    """The masks of B objects in one frame; logits are at a quarter of the image size.

    Attributes:
        low_res: `(B, 1, 4h, 4w)` mask logits; above 0 is inside
        alternatives: `(B, 3, 4h, 4w)` all masks, of which that is one; `(B, 1, 4h, 4w)` for a single mask
        ious: `(B, 3)` predicted IoU of the alternatives, of which the best was taken; `(B, 1)` for a single mask
        object_score: `(B,)` logit of the object being there
        pointer: `(B, d)` object pointer
    """

    low_res: Tensor
    alternatives: Tensor
    ious: Tensor
    object_score: Tensor
    pointer: Tensor


@dataclass
class TrackBank:
    """What B objects of a video are remembered by, per frame, in the layout of the stock package.

    Attributes:
        num_frames: length of the video
        conditioning: memories of the prompted frames, which every frame attends to
        tracked: memories of other frames, the last ones only
    """

    num_frames: int
    conditioning: dict[int, dict[str, Any]] = field(default_factory=dict)
    tracked: dict[int, dict[str, Any]] = field(default_factory=dict)

    def add(self, frame: int, memory: Tensor, position: Tensor, pointer: Tensor, *, prompted: bool) -> None:
        """Stores a memory `(B, m, h, w)`, its position encoding, and the object pointers `(B, d)` of a frame."""
        target = self.conditioning if prompted else self.tracked
        target[frame] = {"maskmem_features": memory, "maskmem_pos_enc": [position], "obj_ptr": pointer}

    def forget(self, before: int) -> None:
        """Drops what was tracked in frames before the given one."""
        self.tracked = {frame: entry for frame, entry in self.tracked.items() if frame >= before}


class TrackingSam2(LanguageSam2):
    """SAM2 with its stock memory, and a text embedding as prompt.

    Args:
        config: SAM2 configuration in the official yaml layout
        tuned_decoder: whether there is a second mask decoder, tuned for text embeddings
    """

    def __init__(self, config: dict[str, Any], *, tuned_decoder: bool = False) -> None:
        super().__init__(config)
        self.tuned_decoder: MaskDecoder | None = copy.deepcopy(self.sam2.sam_mask_decoder) if tuned_decoder else None

    @property
    def original_decoder(self) -> MaskDecoder:
        """The decoder of SAM2 itself; where there is no tuned one, that which was tuned in its place."""
        return self.sam2.sam_mask_decoder

    @property
    def language_decoder(self) -> MaskDecoder:
        """The decoder that was tuned for text embeddings."""
        return self.tuned_decoder or self.sam2.sam_mask_decoder

    def encode_for(self, pixels: Tensor, decoders: Sequence[MaskDecoder]) -> list[ImageFeatures]:
        """Encodes normalised images `(F, 3, S, S)` once, with the finer levels as each decoder takes them."""
        levels = self.sam2.image_encoder(pixels)["backbone_fpn"]
        return [self.levels_for(levels, decoder) for decoder in decoders]

    def levels_for(self, levels: Sequence[Tensor], decoder: MaskDecoder) -> ImageFeatures:
        """The three levels of the image encoder, the finest first, as a decoder takes them."""
        stride4, stride8, top = (level.to(self.parameter.dtype) for level in levels)
        return ImageFeatures(top, decoder.conv_s1(stride8), decoder.conv_s0(stride4))

    def decode_alone(self, decoder: MaskDecoder, features: ImageFeatures, prompts: Tensor) -> TrackedMasks:
        """Decodes the objects of text embeddings `(B, d)` in one frame, without any memory."""
        top = self.attend(features.top.expand(len(prompts), -1, -1, -1), [])
        return self._decode(decoder, top, features, prompts=prompts)

    def take_masks(self, features: ImageFeatures, masks: Tensor) -> TrackedMasks:
        """Takes given masks `(B, H, W) bool` of one frame as they are; the original decoder makes their pointers."""
        size = (self.image_size, self.image_size)
        given = masks[:, None].float()
        if given.shape[-2:] != size:
            given = F.interpolate(given, size=size, mode="bilinear", align_corners=False, antialias=True)
        given = (given >= 0.5).to(features.top.dtype)
        high_res = given.float() * 2 * _CERTAIN - _CERTAIN
        quarter = (self.image_size // 4, self.image_size // 4)
        low_res = F.interpolate(high_res, size=quarter, mode="bilinear", align_corners=False, antialias=True)
        top = features.top.expand(len(masks), -1, -1, -1)
        raw = self._decode(self.original_decoder, top, features, masks=self.sam2.mask_downsample(given))
        there = given.flatten(1).any(dim=1)
        return TrackedMasks(
            low_res=low_res,
            alternatives=low_res,
            ious=torch.ones_like(raw.ious),
            object_score=there * 2 * _CERTAIN - _CERTAIN,
            pointer=self._choose_pointer(raw.pointer, there),
        )

    def recall(self, features: ImageFeatures, frame: int, bank: TrackBank) -> Tensor:
        """Conditions the top map of a frame on what B objects are remembered by: `(B, d, h, w)`."""
        batch = len(next(iter(bank.conditioning.values()))["obj_ptr"])
        top = features.top.expand(batch, -1, -1, -1)
        return self.sam2._prepare_memory_conditioned_features(
            frame_idx=frame,
            is_init_cond_frame=False,
            current_vision_feats=[top.flatten(2).permute(2, 0, 1)],
            current_vision_pos_embeds=[self._top_position(top).flatten(2).permute(2, 0, 1)],
            feat_sizes=[tuple(top.shape[-2:])],
            output_dict={"cond_frame_outputs": bank.conditioning, "non_cond_frame_outputs": bank.tracked},
            num_frames=bank.num_frames,
        )

    def decode_recalled(self, decoder: MaskDecoder, conditioned: Tensor, features: ImageFeatures) -> TrackedMasks:
        """Decodes B objects from what `recall` gave, without a prompt."""
        return self._decode(decoder, conditioned, features)

    def memorise(
        self, bank: TrackBank, frame: int, features: ImageFeatures, masks: TrackedMasks, *, prompted: bool
    ) -> None:
        """Remembers the masks of a frame, and forgets what no later frame attends to."""
        top = features.top.expand(len(masks.low_res), -1, -1, -1)
        # published memories are bfloat16 whatever the precision of the network
        memory = self.remember(top, masks.low_res).to(torch.bfloat16).to(top.dtype)
        position = self.memory_position(memory).expand(len(memory), -1, -1, -1)
        bank.add(frame, memory, position, masks.pointer, prompted=prompted)
        if not prompted:
            bank.forget(frame + 1 - max(self.sam2.num_maskmem, self.sam2.max_obj_ptrs_in_encoder))

    def _decode(
        self,
        decoder: MaskDecoder,
        top: Tensor,
        features: ImageFeatures,
        *,
        prompts: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> TrackedMasks:
        """Decodes B objects: the best of three masks, or the single one where masks are the prompt."""
        batch, device = len(top), top.device
        nowhere = (torch.zeros(batch, 1, 2, device=device), -torch.ones(batch, 1, dtype=torch.int, device=device))
        encoder = self.sam2.sam_prompt_encoder
        sparse, dense = encoder(points=nowhere, boxes=None, masks=masks)
        if prompts is not None:
            sparse = torch.cat([sparse.to(prompts.dtype), prompts[:, None]], dim=1)
        low_res, ious, tokens, object_score = decoder(
            image_embeddings=top,
            image_pe=encoder.get_dense_pe().to(top.dtype),
            sparse_prompt_embeddings=sparse.to(top.dtype),
            dense_prompt_embeddings=dense,
            multimask_output=masks is None,
            repeat_image=False,
            high_res_features=[features.stride4, features.stride8],
        )
        rows = torch.arange(batch, device=device)
        best = ious.argmax(-1)
        token = tokens[rows, best] if tokens.shape[1] > 1 else tokens[:, 0]
        return TrackedMasks(
            low_res=low_res[rows, best][:, None].float(),
            alternatives=low_res.float(),
            ious=ious,
            object_score=object_score[:, 0],
            pointer=self._choose_pointer(self.sam2.obj_ptr_proj(token), object_score[:, 0] > 0),
        )

    def _choose_pointer(self, pointer: Tensor, there: Tensor) -> Tensor:
        """The pointer of an object `(B, d)` that is there, and the one for absence otherwise."""
        return torch.where(there[:, None], pointer, self.sam2.no_obj_ptr.to(pointer.dtype))


def masks_through_image(low_res: Tensor, image_size: int, size: tuple[int, int]) -> Tensor:
    """Masks `(B, H, W) bool` at the size of a frame, from logits `(B, 1, h, w)` by way of the square image."""
    square = F.interpolate(low_res.float(), size=(image_size, image_size), mode="bilinear", align_corners=False)
    return inside(masks_at_size(square, size))


def inside(logits: Tensor) -> Tensor:
    """Which logits mean that a pixel is inside."""
    # as published, not `> 0`: positive logits too small to lift the sigmoid above 0.5 are outside
    return logits.sigmoid() > 0.5
