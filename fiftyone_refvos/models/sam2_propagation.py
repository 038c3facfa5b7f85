"""Tracking by SAM2's own memory, as its video predictor does: masks of one frame, carried on in one direction."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor


class ImageMaps:
    """What SAM2 tracks in one image `(1, 3, S, S)`, for any number of objects."""

    def __init__(self, sam2: SAM2Base, pixels: Tensor) -> None:
        _, self._maps, self._positions, self.sizes = sam2._prepare_backbone_features(sam2.forward_image(pixels))

    def of(self, count: int) -> tuple[list[Tensor], list[Tensor]]:
        """The maps and their positions, `(h*w, count, d)` from the finest to the coarsest."""
        maps, positions = (
            [each.expand(-1, count, -1) for each in levels] for levels in (self._maps, self._positions)
        )
        return maps, positions


class Sam2Track:
    """N objects of a video that are tracked in one direction, from the masks that they have in one frame.

    What is remembered is what can be read again: the first frame, and the last ones of the way.

    Args:
        sam2: with its weights
        num_frames: of the video
        reverse: towards the first frame
    """

    def __init__(self, sam2: SAM2Base, num_frames: int, *, reverse: bool) -> None:
        self._sam2, self._num_frames, self._reverse = sam2, num_frames, reverse
        self._memory: dict[str, dict[int, Any]] = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
        self._count = 0

    def begin(self, frame: int, maps: ImageMaps, masks: Tensor) -> None:
        """Takes the masks `(N, 1, S, S)`, 0 or 1, of the first frame, at SAM2's size."""
        self._count = len(masks)
        output = self._step(frame, maps, masks)
        # the predictor remembers given masks at the size of its own ones
        size = masks.shape[-2:]
        large = F.interpolate(output["pred_masks"].float(), size=size, mode="bilinear", align_corners=False)
        output["maskmem_features"], output["maskmem_pos_enc"] = self._sam2._encode_new_memory(
            current_vision_feats=maps.of(self._count)[0],
            feat_sizes=maps.sizes,
            pred_masks_high_res=large,
            object_score_logits=output["object_score_logits"],
            is_mask_from_pts=False,
        )
        self._memory["cond_frame_outputs"][frame] = output

    def advance(self, frame: int, maps: ImageMaps) -> tuple[Tensor, Tensor]:
        """Finds the objects in the next frame: logits of masks `(N, 1, S/4, S/4)` and of being there `(N,)`."""
        output = self._step(frame, maps, None)
        kept = self._memory["non_cond_frame_outputs"]
        kept[frame] = output
        sam2 = self._sam2
        reach = max(sam2.num_maskmem * sam2.memory_temporal_stride_for_eval, sam2.max_obj_ptrs_in_encoder) + 1
        for old in [number for number in kept if abs(number - frame) > reach]:
            del kept[old]
        return output["pred_masks"], output["object_score_logits"][:, 0]

    def _step(self, frame: int, maps: ImageMaps, masks: Tensor | None) -> dict[str, Any]:
        levels, positions = maps.of(self._count)
        output: dict[str, Any] = self._sam2.track_step(
            frame_idx=frame,
            is_init_cond_frame=masks is not None,
            current_vision_feats=levels,
            current_vision_pos_embeds=positions,
            feat_sizes=maps.sizes,
            point_inputs=None,
            mask_inputs=masks,
            output_dict=self._memory,
            num_frames=self._num_frames,
            track_in_reverse=self._reverse,
            run_mem_encoder=masks is None,
        )
        del output["pred_masks_high_res"], output["mask_inputs"]
        return output


def masks_for_sam2(logits: Tensor, side: int) -> Tensor:
    """Mask logits `(N, 1, h, w)` as masks that `Sam2Track.begin` takes, `(N, 1, side, side)` of 0 and 1."""
    size = (side, side)
    large = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
    return (large > 0).float()


def precision(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """What SAM2's own tracking runs in, which mixes float32 with the parameters' type."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
