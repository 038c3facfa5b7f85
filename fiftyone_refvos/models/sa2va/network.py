"""The networks of Sa2VA: a stock multimodal language model, the [SEG] projection, SAM2."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import (
    InternVLForConditionalGeneration,
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)

from fiftyone_refvos.models.sa2va.config import Sa2vaConfig
from fiftyone_refvos.models.sam2_tracking import TrackingSam2

_MODELS: dict[str, type[PreTrainedModel]] = {
    "internvl": InternVLForConditionalGeneration,
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
    "qwen3_vl": Qwen3VLForConditionalGeneration,
}


class Sa2vaNetwork(nn.Module):
    """All networks of Sa2VA.

    Args:
        config: their sizes
        tuned_decoder: whether SAM2 has its original mask decoder beside the tuned one, as in Sa2VA-i
    """

    def __init__(self, config: Sa2vaConfig, *, tuned_decoder: bool) -> None:
        super().__init__()
        hidden = config.text.hidden_size
        self.config = config
        self.mllm = _MODELS[config.family](config.mllm)
        self.seg_projection = nn.Sequential(
            nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, config.prompt_dim), nn.Dropout(0.0)
        )
        self.sam = TrackingSam2(config.sam2, tuned_decoder=tuned_decoder)

    @property
    def device(self) -> torch.device:
        """Where all parameters are."""
        return self.mllm.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of all parameters."""
        return self.mllm.lm_head.weight.dtype

    def embed_words(self, ids: Tensor) -> Tensor:
        """Input embeddings of ids, `(..., D)`."""
        return self.mllm.model.language_model.embed_tokens(ids)
