"""GLUS by name or from a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fiftyone_refvos.models.adapters import read_adapter
from fiftyone_refvos.models.glus.adapter import apply_adapter
from fiftyone_refvos.models.glus.config import GlusConfig, GlusInference
from fiftyone_refvos.models.glus.inference import GlusSegmenter
from fiftyone_refvos.models.glus.propagation import Sam2PropagationSegmenter
from fiftyone_refvos.models.glus.weights import load_network
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.models.request import LoadRequest, read_settings
from fiftyone_refvos.models.segmenter import Segmenter
from fiftyone_refvos.models.sources import find_clip


def prepare(request: LoadRequest) -> Callable[[Path], Segmenter]:
    """Checks a request, and gives the function that loads a checkpoint folder accordingly.

    Raises:
        ValueError: for unknown or wrong settings, and files that GLUS has no use for
        AdapterError: for a folder that is no adapter, and one of another model
    """
    settings = read_settings(GlusInference, request.settings, system="GLUS")
    clip_path, sam_config, adapter = request.take("clip_path", "sam_config", "adapter", system="GLUS")
    changes = read_adapter(adapter) if adapter is not None else None
    if changes is not None:
        changes.check_base(request.name)
    by_sam2 = settings.propagation == "sam2"
    gamma: Any = settings.memory_gamma or ("checkpoint" if by_sam2 else None)  # what SAM2 was trained with

    def load(folder: Path) -> Segmenter:
        config = GlusConfig.read(folder, sam2_config=sam_config)
        clip = find_clip(folder, clip_path)
        network = load_network(folder, clip, config, memory_gamma=gamma, device=request.device, dtype=request.dtype)
        if changes is not None:
            apply_adapter(network, changes)
        kind = Sam2PropagationSegmenter if by_sam2 else GlusSegmenter
        return kind(network, LlamaTokenizer(folder), settings, adapter=None if changes is None else changes.digest)

    return load
