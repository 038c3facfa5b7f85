"""The CLIP vision tower of LLaVA-era checkpoints, a folder of its own in the layout of the hub."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from fiftyone_refvos.models.checkpoint import CheckpointError, iterate_tensors, load_strictly, read_config

logger = logging.getLogger(__name__)

ClipView = Literal["center_crop", "squash"]
"""How CLIP sees a frame that is no square: the published square in the middle, or all of it, squashed."""

VISION_PREFIX = "vision_model."
_POSITION_IDS = "embeddings.position_ids"
# A full CLIP model carries the text side too, which no segmenter uses.
_TEXT_SIDE = ("text_model.", "text_projection.", "visual_projection.", "logit_scale")


def clip_processor(side: int, view: ClipView = "center_crop") -> CLIPImageProcessorPil:
    """CLIP's preprocessing for square inputs of `side` pixels, which show a frame as `view` says."""
    # The PIL backend: bicubic resizing of uint8 images differs from torchvision's.
    square = {"height": side, "width": side}
    if view == "squash":
        return CLIPImageProcessorPil(size=square, do_center_crop=False)
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=square)


def patch_features(clip: CLIPVisionModel, pixels: Tensor, layer: int) -> Tensor:
    """Patch features of one hidden state, without the class token: `(F, patches, width)`."""
    return clip(pixel_values=pixels, output_hidden_states=True).hidden_states[layer][:, 1:]


def read_clip_config(folder: Path, *, width: int, vision_tower: str) -> CLIPVisionConfig:
    """Reads the sizes of a CLIP folder.

    Args:
        folder: a CLIP model, with or without its text side
        width: of the features that the checkpoint was trained with
        vision_tower: what errors say that the checkpoint was trained with

    Raises:
        CheckpointError: if it is no CLIP model, or one of another width
    """
    values = read_config(folder)
    if values.get("model_type") not in ("clip", "clip_vision_model"):
        raise CheckpointError(
            f"{folder} is no CLIP model (model type {values.get('model_type')!r}); pass clip_path= with a copy "
            f"of {vision_tower}"
        )
    vision = CLIPVisionConfig.from_pretrained(folder)
    if vision.hidden_size != width:
        raise CheckpointError(
            f"the CLIP model in {folder} is {vision.hidden_size} wide, the checkpoint needs {width}; "
            f"pass clip_path= with a copy of {vision_tower}"
        )
    return vision


def vision_name(name: str) -> str | None:
    """The name in `CLIPVisionModel` of a tensor of a full CLIP model; None for what the vision side does not use."""
    name = name.removeprefix(VISION_PREFIX)
    return None if name.startswith(_TEXT_SIDE) or name == _POSITION_IDS else name


def load_clip(clip: CLIPVisionModel, folder: Path, *, device: torch.device, dtype: torch.dtype | None) -> None:
    """Gives the vision tower, which may be on the meta device, the weights of a CLIP folder.

    Raises:
        CheckpointError: for missing, unexpected or wrongly shaped tensors of the vision side
    """
    unused: list[str] = []

    def vision_tensors() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in iterate_tensors(folder):
            ours = vision_name(name)
            if ours is None:
                unused.append(name)
            else:
                yield ours, tensor

    load_strictly(clip, vision_tensors(), where=str(folder), device=device, dtype=dtype)
    set_position_ids(clip, device)
    if unused:
        logger.info("%s: %d tensors of CLIP's text side are not used", folder, len(unused))


def set_position_ids(clip: CLIPVisionModel, device: torch.device) -> None:
    """Computes the constants of the tower, which a network on the meta device lacks."""
    embeddings = clip.embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions, device=device)[None]
