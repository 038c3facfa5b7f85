"""The networks of the language key frame selector: CLIP, token merging and projector, LLaMA, the score head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, DynamicCache, LlamaModel

from fiftyone_refvos.models.branches import Branches, run_branches
from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.clip_tower import clip_processor, patch_features
from fiftyone_refvos.models.llama import embed_prompt
from fiftyone_refvos.models.selector.clustering import MergedTokens, level_sizes, merge_levels
from fiftyone_refvos.models.selector.config import SelectorConfig
from fiftyone_refvos.video import Frame


class SelectorNetwork(nn.Module):
    """The selector on stock parts; `weights.load_network` gives it its weights.

    Args:
        config: sizes of the checkpoint
        clip: sizes of the CLIP vision tower, a model of its own

    Raises:
        CheckpointError: if a level of merging has more clusters than tokens
    """

    def __init__(self, config: SelectorConfig, clip: CLIPVisionConfig) -> None:
        super().__init__()
        hidden = config.llama.hidden_size
        self.config = config
        self.clip = CLIPVisionModel(clip)
        self.projector = nn.Linear(config.clip_width, hidden)
        self.llama = LlamaModel(config.llama)
        self.lm_head = nn.Linear(hidden, config.llama.vocab_size, bias=False)
        self.score_head = score_head(hidden, config.score_dim)
        self._clip_processor = clip_processor(clip.image_size, config.clip_view)
        self._levels = level_sizes(config.cluster_rates, (clip.image_size // clip.patch_size) ** 2)
        if any(after > before for before, after in zip(self._levels, self._levels[1:], strict=False)):
            raise CheckpointError(
                f"the cluster rates {config.cluster_rates} ask for more clusters than there are tokens: CLIP gives "
                f"{self._levels[0]} patches; pass clip_path= with a copy of {config.vision_tower}"
            )

    @property
    def device(self) -> torch.device:
        """Where all parameters are."""
        return self.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of all parameters but those of the score head, which is float32."""
        return self.lm_head.weight.dtype

    @property
    def tokens_per_image(self) -> int:
        """Visual tokens that stand for one image in a prompt."""
        return sum(self._levels[1:])

    @property
    def tokens_merged(self) -> int:
        """Tokens that the levels of merging are given for one image, for each of which there may be noise."""
        return sum(self._levels[:-1])

    def clip_pixels(self, frames: Sequence[Frame]) -> Tensor:
        """Preprocesses RGB frames for CLIP, `(F, 3, 224, 224)`: their middle, or all of them squashed."""
        pixels = self._clip_processor(images=list(frames), return_tensors="pt")["pixel_values"]
        return pixels.to(self.device, self.dtype)

    def clip_features(self, pixels: Tensor) -> Tensor:
        """Patch features of the last but one layer, without the class token: `(F, patches, clip_width)`."""
        return patch_features(self.clip, pixels, self.config.clip_layer)

    def merge(self, features: Tensor, noise: Tensor | None = None) -> MergedTokens:
        """Merges the patch features of each image; `noise` is `(F, tokens_merged)` in [0, 1)."""
        return merge_levels(features, self.config.cluster_rates, noise)

    def project(self, merged: Tensor) -> Tensor:
        """Merged tokens as visual tokens of the language model, `(F, tokens, D)`."""
        return self.projector(merged.to(self.device, self.dtype))

    def embed(self, ids: Sequence[int], images: Sequence[Tensor]) -> Tensor:
        """Input embeddings `(length, D)` of ids in which each `IMAGE_ID` stands for the tokens of one image."""
        return embed_prompt(self.llama, ids, images)

    def prefill(self, embeds: Tensor) -> DynamicCache:
        """Runs the language model over the shared beginning `(P, D)` of several prompts."""
        cache = DynamicCache(config=self.config.llama)
        self.llama(inputs_embeds=embeds[None], past_key_values=cache, use_cache=True)
        return cache

    def read(self, prefix: DynamicCache, branches: Branches, *, every_layer: bool = False) -> Tensor:
        """Runs the language model over branches after their shared beginning, and takes the end of each branch.

        Args:
            prefix: of `prefill`; left as it was
            branches: what comes after it
            every_layer: give the states before and after every layer, not only the last one

        Returns:
            `(layers, T, E, D)` hidden states, the last of them after the final norm
        """
        states = run_branches(self.llama, prefix, branches, every_layer=every_layer)
        last = branches.places()[2].to(self.device)
        return torch.stack([state[:, last] for state in states])

    def score(self, hidden: Tensor) -> Tensor:
        """The scores `(...)` of final hidden states `(..., D)`; they have no bounds."""
        return self.score_head(hidden.float())[..., 0]


def score_head(hidden: int, width: int) -> nn.Sequential:
    """From a hidden state to a score without bounds, with torch's initial weights, as published."""
    return nn.Sequential(
        nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.ReLU(), nn.Linear(width, 1)
    )
