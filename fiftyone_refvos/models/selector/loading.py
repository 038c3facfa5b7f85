"""Key frame selectors by name or from a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.devices import resolve_device, resolve_dtype
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.models.registry import SELECTORS, SHIPPED
from fiftyone_refvos.models.request import read_settings
from fiftyone_refvos.models.selector.config import SelectorConfig, SelectorInference
from fiftyone_refvos.models.selector.inference import LanguageFrameSelector
from fiftyone_refvos.models.selector.weights import load_network
from fiftyone_refvos.models.sources import find_clip


def load_selector(
    folder: str | Path,
    *,
    clip_path: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    settings: Mapping[str, Any] | None = None,
) -> LanguageFrameSelector:
    """Loads a key frame selector.

    Args:
        folder: a merged checkpoint in the published layout
        clip_path: a CLIP folder to load instead of the checkpoint's own, or of the published one
        device: by default the GPU where there is one
        dtype: by default bfloat16 on a GPU and float32 elsewhere; the score head is always float32
        settings: how to run it, by field name of `SelectorInference`

    Raises:
        ValueError: for an unknown or wrong setting
        CheckpointError: for a folder that is no selector checkpoint
        HubError: if CLIP cannot be downloaded
        DeviceError: if the device is not there
    """
    resolved = resolve_device(device)
    options = read_settings(SelectorInference, settings or {}, system="the selector")
    folder = Path(folder)
    config = SelectorConfig.read(folder)
    tokenizer = LlamaTokenizer.as_configured(folder)
    clip = find_clip(folder, clip_path)
    network = load_network(folder, clip, config, device=resolved, dtype=resolve_dtype(dtype, resolved))
    return LanguageFrameSelector(network, tokenizer, options)


def load_named_selector(name: str, *, checkpoint: str | Path | None = None, **options: Any) -> LanguageFrameSelector:
    """Loads a key frame selector of the zoo.

    Args:
        name: one of `SELECTORS`
        checkpoint: a folder to load; needed where no weights were published
        options: of `load_selector`

    Raises:
        ValueError: for an unknown name, and as `load_selector`
        CheckpointError: for weights that nobody has published, and as `load_selector`
    """
    if name not in SELECTORS:
        raise ValueError(f"unknown selector {name!r}; the selectors are {', '.join(SELECTORS)}")
    folder = Path(checkpoint) if checkpoint is not None else SHIPPED / name
    if checkpoint is None and not folder.is_dir():
        raise CheckpointError(
            f"the weights of {name!r} were never published: pass checkpoint= with a folder that "
            "fiftyone_refvos.train_selector has written, or another copy"
        )
    return load_selector(folder, **options)
