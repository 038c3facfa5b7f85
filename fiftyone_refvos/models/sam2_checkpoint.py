"""Loading SAM2 itself, from a weight file of its publication."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fiftyone_refvos.models.checkpoint import CheckpointError, is_state, load_strictly, read_pickle
from fiftyone_refvos.models.sam2_tracking import TrackingSam2


def load_tracking_sam2(
    weights: Path, config: Mapping[str, Any], *, device: torch.device, dtype: torch.dtype
) -> TrackingSam2:
    """Loads SAM2 2.0 as a tracker of masks, in eval mode.

    Args:
        weights: the published `.pt` file
        config: SAM2 configuration in the official yaml layout
        device: where to run
        dtype: precision of all parameters

    Raises:
        CheckpointError: if the file is missing or damaged, would run code, or does not fit the configuration
    """
    if not weights.is_file():
        raise CheckpointError(f"{weights} is no file; pass the weights of SAM2, such as sam2_hiera_large.pt")
    content = read_pickle(weights)
    state = content.get("model") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not is_state(state):
        raise CheckpointError(f"{weights} should hold tensors under the name 'model', as SAM2 publishes them")
    tracker = TrackingSam2(dict(config))
    if tracker.sam2.no_obj_embed_spatial is not None:  # its memories of absence differ
        raise CheckpointError(f"the configuration of {weights} is one of SAM2 2.1; pass weights and yaml of SAM2 2.0")
    load_strictly(tracker.sam2, state.items(), where=str(weights), device=device, dtype=dtype)
    tracker.to(device)  # constants that no checkpoint holds
    # SAM2 multiplies this matrix with a grid that it always makes in float32
    tracker.sam2.sam_prompt_encoder.pe_layer.float()
    return tracker.requires_grad_(False).eval()
