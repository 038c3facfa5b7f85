"""Loading a model by its name, onto a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from fiftyone_refvos.models.devices import resolve_device, resolve_dtype
from fiftyone_refvos.models.registry import MODELS
from fiftyone_refvos.models.request import LoadRequest
from fiftyone_refvos.models.segmenter import Segmenter
from fiftyone_refvos.models.sources import find_checkpoint


def load_segmenter(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    settings: Mapping[str, Any] | None = None,
    **sources: str | Path | None,
) -> Segmenter:
    """Loads a model by its name.

    Args:
        name: one of `MODELS`
        checkpoint: a folder to load instead of the published weights
        revision: commit, branch or tag of the published weights, instead of the pinned one
        device: by default the GPU where there is one
        dtype: by default bfloat16 on a GPU and float32 elsewhere
        settings: how to run it, by field name of the system's settings (`GlusInference`, `Sa2vaInference`,
            `MllmsegVideoInference`)
        sources: further files of some systems. `clip_path`: a CLIP folder to load instead of the checkpoint's own,
            or of the published one (GLUS). `sam_config`: a SAM2 yaml, for a SAM2 that is not Hiera-L and whose sizes
            the checkpoint does not record (GLUS, MLLMSeg). `tracker`: the weight file of SAM2 (MLLMSeg). `adapter`: a
            folder with what a training changed of this model, to be merged into it (GLUS)

    Raises:
        ValueError: for an unknown name or setting, and files that the system has no use for
        CheckpointError: for a folder that is no checkpoint of this system, and an adapter of other sizes
        AdapterError: for a folder that is no adapter, and one of another model
        HubError: if the weights cannot be downloaded
        DeviceError: if the device is not there
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; the models are {', '.join(MODELS)}")
    resolved = resolve_device(device)
    files = {option: Path(path) for option, path in sources.items() if path is not None}
    request = LoadRequest(name, resolved, resolve_dtype(dtype, resolved), dict(settings or {}), files)
    load = _prepare(request)  # before anything large is downloaded or loaded
    return load(find_checkpoint(name, checkpoint, revision=revision))


def _prepare(request: LoadRequest) -> Callable[[Path], Segmenter]:
    # imported here: transformers and sam2 take seconds, and a list of names should not
    system = import_module(f"fiftyone_refvos.models.{MODELS[request.name].system}.loading")
    prepare: Callable[[LoadRequest], Callable[[Path], Segmenter]] = system.prepare
    return prepare(request)
