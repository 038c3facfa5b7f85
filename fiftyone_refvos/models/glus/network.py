"""The networks of GLUS: CLIP and projector, LLaMA, the [SEG] projection, SAM2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, DynamicCache, LlamaModel

from fiftyone_refvos.models.clip_tower import ClipView, clip_processor, patch_features
from fiftyone_refvos.models.glus.config import GlusConfig
from fiftyone_refvos.models.llama import embed_prompt
from fiftyone_refvos.models.sam2 import LanguageSam2
from fiftyone_refvos.video import Frame

POOLING = 4  # visual tokens are means of 4 neighbouring patches of a row


@dataclass(frozen=True)
class PrefixCache:
    """Keys and values of the tokens that every prompt of a video begins with.

    Attributes:
        embeds: `(1, P, D)` input embeddings
        layers: keys and values `(1, heads, P, head_dim)` of every layer
    """

    embeds: Tensor
    layers: list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Answers:
    """What the language model says to B prompts.

    Attributes:
        embeds: input embeddings of the suffix of each prompt, `(length, D)`
        hidden: final-norm hidden states of the suffix of each prompt, `(length, D)`
        logits: `(B, vocabulary)` of the next token
        next_token: `(B,)` the most likely next token
    """

    embeds: list[Tensor]
    hidden: list[Tensor]
    logits: Tensor
    next_token: Tensor


class GlusNetwork(nn.Module):
    """GLUS on stock parts; `weights.load_network` gives it its weights.

    Args:
        config: sizes of the checkpoint
        clip: sizes of the CLIP vision tower, a model of its own

    Attributes:
        fingerprint: of the weights that it was loaded with, which tells checkpoints of the same sizes apart
    """

    fingerprint: str = ""

    def __init__(self, config: GlusConfig, clip: CLIPVisionConfig) -> None:
        super().__init__()
        hidden = config.llama.hidden_size
        self.config = config
        self.clip = CLIPVisionModel(clip)
        self.projector = nn.Linear(config.clip_width, hidden)
        self.llama = LlamaModel(config.llama)
        self.lm_head = nn.Linear(hidden, config.llama.vocab_size, bias=False)
        self.seg_projection = nn.Sequential(
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, config.prompt_dim),
            nn.Dropout(0.0),
        )
        self.sam = LanguageSam2(config.sam2)
        self._clip_processors = {view: clip_processor(clip.image_size, view) for view in get_args(ClipView)}

    @property
    def device(self) -> torch.device:
        """Where all parameters are."""
        return self.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of all parameters; in a training, of those that train."""
        return self.lm_head.weight.dtype

    @property
    def tokens_per_image(self) -> int:
        """Visual tokens that stand for one image in a prompt."""
        return (self.clip.config.image_size // self.clip.config.patch_size) ** 2 // POOLING

    def clip_pixels(self, frames: Sequence[Frame], view: ClipView) -> Tensor:
        """Preprocesses RGB frames for CLIP, `(F, 3, 224, 224)`: their middle, or all of them squashed."""
        pixels = self._clip_processors[view](images=list(frames), return_tensors="pt")["pixel_values"]
        return pixels.to(self.device, self.dtype)

    def clip_features(self, pixels: Tensor) -> Tensor:
        """Patch features of the last but one layer, without the class token: `(F, patches, clip_width)`."""
        return patch_features(self.clip, pixels, self.config.clip_layer)

    def pool(self, features: Tensor) -> Tensor:
        """Means of 4 consecutive patches in row-major order: `(F, patches/4, clip_width)`."""
        return F.avg_pool1d(features.transpose(1, 2), POOLING).transpose(1, 2)

    def visual_tokens(self, frames: Sequence[Frame], view: ClipView) -> Tensor:
        """The visual tokens of RGB frames as CLIP sees them, `(F, tokens, D)`."""
        return self.projector(self.pool(self.clip_features(self.clip_pixels(frames, view))))

    def sam_pixels(self, frame: Frame) -> Tensor:
        """Preprocesses one RGB frame for SAM2, `(1, 3, S, S)`."""
        return self.sam.preprocess(torch.tensor(frame)[None])

    def embed(self, ids: Sequence[int], images: Sequence[Tensor]) -> Tensor:
        """Input embeddings of ids in which each `IMAGE_ID` is replaced by the visual tokens of one image.

        Args:
            ids: of one prompt
            images: `(tokens, D)` for each `IMAGE_ID`, in their order

        Returns:
            `(length, D)`
        """
        return embed_prompt(self.llama, ids, images)

    def prefill(self, embeds: Tensor) -> PrefixCache:
        """Runs the language model over the shared beginning `(P, D)` of all prompts of a video."""
        cache = DynamicCache(config=self.config.llama)
        self.llama(inputs_embeds=embeds[None], past_key_values=cache, use_cache=True)
        return PrefixCache(embeds[None], [(layer.keys, layer.values) for layer in cache.layers])

    def answer(self, prefix: PrefixCache, suffixes: Sequence[Tensor]) -> Answers:
        """Predicts one token after each of B prompts that share a beginning.

        Args:
            prefix: of `prefill`
            suffixes: input embeddings `(length, D)` of the rest of each prompt
        """
        cache = DynamicCache(config=self.config.llama)
        for number, (keys, values) in enumerate(prefix.layers):
            shape = (len(suffixes), -1, -1, -1)
            cache.update(keys.expand(shape), values.expand(shape), number)
        # Padding on the right needs no mask: causal attention never looks at what comes later.
        embeds = nn.utils.rnn.pad_sequence(list(suffixes), batch_first=True)
        states = self.llama(inputs_embeds=embeds, past_key_values=cache, use_cache=True).last_hidden_state
        hidden = [state[: len(suffix)] for state, suffix in zip(states, suffixes, strict=True)]
        logits = self.lm_head(torch.stack([state[-1] for state in hidden]))
        return Answers(list(suffixes), hidden, logits, logits.argmax(-1))
