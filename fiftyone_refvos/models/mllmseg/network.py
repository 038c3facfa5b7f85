"""The networks of MLLMSeg: stock InternVL, and the mask decoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import DynamicCache, InternVLForConditionalGeneration

from fiftyone_refvos.models.llama import embed_prompt
from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID
from fiftyone_refvos.models.mllmseg.config import MllmsegConfig
from fiftyone_refvos.models.mllmseg.decoder import DecodedImage, MaskDecoder
from fiftyone_refvos.video import Frame

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class VisualFeatures:
    """What the vision tower gives for one image.

    Attributes:
        detail: `(P, W)` patches of its last layer
        tokens: `(P / 4, H)` visual tokens of the language model
    """

    detail: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class Prefix:
    """What all prompts about an image share, after the language model has seen it.

    Attributes:
        cache: keys and values of the shared beginning
        rows: `(P / 4, H)` states that the mask decoder takes for the image: those one position before each of its
            tokens, as the published program takes them
    """

    cache: DynamicCache
    rows: Tensor


class MllmsegNetwork(nn.Module):
    """MLLMSeg on stock parts; `weights.load_network` gives it its weights.

    Args:
        config: sizes of the checkpoint
    """

    def __init__(self, config: MllmsegConfig) -> None:
        super().__init__()
        vision, text = config.internvl.vision_config, config.internvl.text_config
        self.config = config
        self.internvl = InternVLForConditionalGeneration(config.internvl)
        self.mask_decoder = MaskDecoder(vision.hidden_size, text.hidden_size, config.patch_size)

    @property
    def language_model(self) -> Any:
        """The stock decoder without its head."""
        return self.internvl.model.language_model

    @property
    def device(self) -> torch.device:
        """Where all parameters are."""
        return self.internvl.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of all parameters."""
        return self.internvl.lm_head.weight.dtype

    @property
    def grid(self) -> tuple[int, int]:
        """(height, width) of the patches."""
        side = self.config.image_size // self.config.patch_size
        return side, side

    @property
    def tokens_per_image(self) -> int:
        """Visual tokens that stand for the image in a prompt."""
        return round(self.grid[0] * self.grid[1] * self.config.internvl.downsample_ratio**2)

    def pixels(self, image: Frame) -> Tensor:
        """Preprocesses an RGB image `(H, W, 3) uint8` to `(1, 3, S, S)`; its aspect ratio is not kept."""
        side = self.config.image_size
        squashed = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        values = torch.from_numpy(np.array(squashed)).to(self.device).permute(2, 0, 1).float() / 255
        mean, std = (torch.tensor(v, device=self.device).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
        return ((values - mean) / std)[None].to(self.dtype)

    def look(self, pixels: Tensor) -> VisualFeatures:
        """Encodes one preprocessed image `(1, 3, S, S)`."""
        output = self.internvl.model.get_image_features(pixels, return_dict=True)
        return VisualFeatures(output.last_hidden_state[0, 1:], output.pooler_output[0])

    def embed(self, ids: Sequence[int], images: Sequence[Tensor] = ()) -> Tensor:
        """Input embeddings `(length, H)` of ids in which each `IMAGE_ID` stands for the tokens of one image."""
        return embed_prompt(self.language_model, ids, images)

    def prefill(self, ids: Sequence[int], features: VisualFeatures) -> Prefix:
        """Runs the language model over the shared beginning of all prompts about an image."""
        embeds = self.embed(ids, [features.tokens])
        cache = DynamicCache(config=self.config.internvl.text_config)
        output = self.language_model(inputs_embeds=embeds[None], past_key_values=cache, use_cache=True)
        return Prefix(cache, self.image_rows(ids, output.last_hidden_state[0]))

    def image_rows(self, ids: Sequence[int], states: Tensor) -> Tensor:
        """The rows of the image in the states `(length, H)` of a prompt, shifted by one."""
        first = ids.index(IMAGE_ID) - 1
        return states[first : first + self.tokens_per_image]

    def decode_image(self, features: VisualFeatures, prefix: Prefix) -> DecodedImage:
        """What the mask decoder makes of an image alone."""
        return self.mask_decoder.image(features.detail, prefix.rows, self.grid)

    def logits(self, states: Tensor) -> Tensor:
        """Logits `(..., vocabulary)` of the tokens after states `(..., H)`."""
        return self.internvl.lm_head(states)
