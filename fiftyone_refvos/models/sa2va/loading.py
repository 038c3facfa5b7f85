"""Sa2VA by name or from a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fiftyone_refvos.models.devices import resolve_device, resolve_dtype
from fiftyone_refvos.models.request import LoadRequest, read_settings
from fiftyone_refvos.models.sa2va.config import Sa2vaConfig, Sa2vaInference
from fiftyone_refvos.models.sa2va.families import open_family
from fiftyone_refvos.models.sa2va.inference import Sa2vaSegmenter
from fiftyone_refvos.models.sa2va.tokens import load_tokenizer
from fiftyone_refvos.models.sa2va.weights import load_network
from fiftyone_refvos.models.sam2_config import Sam2Sizes
from fiftyone_refvos.models.segmenter import Segmenter


def prepare(request: LoadRequest) -> Callable[[Path], Segmenter]:
    """Checks a request, and gives the function that loads a checkpoint folder accordingly.

    Raises:
        ValueError: for unknown or wrong settings, and files that Sa2VA has no use for
    """
    read_settings(Sa2vaInference, request.settings, system="Sa2VA")
    request.take(system="Sa2VA")
    options: dict[str, Any] = {"device": request.device, "dtype": request.dtype, "settings": request.settings}
    return lambda folder: load_sa2va(folder, **options)


def load_sa2va(
    folder: str | Path,
    *,
    sam2: Sam2Sizes | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Sa2vaSegmenter:
    """Loads a Sa2VA checkpoint of any family.

    Args:
        folder: a checkpoint in the published layout; code in it is never run
        sam2: sizes of a SAM2 that is not Hiera-L, for checkpoints that do not record them
        device: by default the GPU where there is one
        dtype: by default bfloat16 on a GPU and float32 elsewhere
        settings: how to run it, by field name of `Sa2vaInference`

    Raises:
        ValueError: for an unknown or wrong setting, or a mode that the checkpoint has no weights for
        CheckpointError: for a folder that is no Sa2VA checkpoint, or one of an unknown family
        DeviceError: if the device is not there
    """
    resolved = resolve_device(device)
    options = read_settings(Sa2vaInference, settings or {}, system="Sa2VA")
    folder = Path(folder)
    config = Sa2vaConfig.read(folder, sam2=sam2)
    tokenizer = load_tokenizer(folder)
    network = load_network(folder, config, device=resolved, dtype=resolve_dtype(dtype, resolved))
    return Sa2vaSegmenter(open_family(network, tokenizer, folder), options)
