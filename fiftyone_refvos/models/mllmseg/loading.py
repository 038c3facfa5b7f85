"""MLLMSeg by name or from a folder, for images and over time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from fiftyone_refvos.models.devices import resolve_device, resolve_dtype
from fiftyone_refvos.models.internvl_tokenizer import load_tokenizer
from fiftyone_refvos.models.mllmseg.config import MllmsegConfig, MllmsegInference, MllmsegVideoInference
from fiftyone_refvos.models.mllmseg.inference import MllmsegSegmenter
from fiftyone_refvos.models.mllmseg.per_frame import PerFrameSegmenter
from fiftyone_refvos.models.mllmseg.tracking import KeyFrameSegmenter
from fiftyone_refvos.models.mllmseg.weights import load_network
from fiftyone_refvos.models.request import LoadRequest, read_settings
from fiftyone_refvos.models.sam2_checkpoint import load_tracking_sam2
from fiftyone_refvos.models.sam2_config import Sam2Sizes, read_yaml
from fiftyone_refvos.models.segmenter import Segmenter
from fiftyone_refvos.models.sources import find_tracker

MllmsegVideoSegmenter = PerFrameSegmenter | KeyFrameSegmenter
"""Both hold the segmenter of images as `images`."""


def prepare(request: LoadRequest) -> Callable[[Path], Segmenter]:
    """Checks a request, and gives the function that loads a checkpoint folder accordingly.

    Raises:
        ValueError: for unknown or wrong settings, and files that MLLMSeg has no use for
    """
    settings = read_settings(MllmsegVideoInference, request.settings, system="MLLMSeg")
    tracker, sam_config = request.take("tracker", "sam_config", system="MLLMSeg")
    if settings.over_time == "per_frame" and request.sources:
        raise ValueError(f"{', '.join(request.sources)} is for SAM2, which runs with over_time='memory' alone")
    options: dict[str, Any] = {"device": request.device, "dtype": request.dtype, "settings": request.settings}
    return lambda folder: load_mllmseg_over_time(folder, tracker=tracker, sam_config=sam_config, **options)


def load_mllmseg(
    folder: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    settings: Mapping[str, Any] | None = None,
) -> MllmsegSegmenter:
    """Loads a referring segmenter of images.

    Args:
        folder: a checkpoint in the published layout, merged or not
        device: by default the GPU where there is one
        dtype: by default bfloat16 on a GPU and float32 elsewhere
        settings: how to run it, by field name of `MllmsegInference`

    Raises:
        ValueError: for an unknown or wrong setting
        CheckpointError: for a folder that is no MLLMSeg checkpoint
        DeviceError: if the device is not there
    """
    resolved = resolve_device(device)
    options = read_settings(MllmsegInference, settings or {}, system="MLLMSeg")
    return _load_images(Path(folder), options, resolved, resolve_dtype(dtype, resolved))


def load_mllmseg_over_time(
    folder: str | Path,
    *,
    tracker: str | Path | None = None,
    sam_config: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    settings: Mapping[str, Any] | None = None,
) -> MllmsegVideoSegmenter:
    """Loads MLLMSeg as a segmenter of videos: frame by frame, or with the memory of SAM2.

    Args:
        folder: a checkpoint in the published layout, merged or not
        tracker: weights of SAM2 2.0, which carries the mask of one frame through the video with
            `over_time="memory"`; by default the published ones
        sam_config: a SAM2 yaml, for a tracker that is not Hiera-L
        device, dtype: as of `load_mllmseg`
        settings: how to run it, by field name of `MllmsegVideoInference`

    Raises:
        ValueError: for an unknown or wrong setting
        CheckpointError: for a folder that is no MLLMSeg checkpoint, and a file with other weights than SAM2's
        HubError: if the weights of SAM2 cannot be downloaded
        DeviceError: if the device is not there
    """
    resolved = resolve_device(device)
    options = read_settings(MllmsegVideoInference, settings or {}, system="MLLMSeg")
    images = _load_images(Path(folder), options.images, resolved, resolve_dtype(dtype, resolved))
    if options.over_time == "per_frame":
        return PerFrameSegmenter(images)
    config = read_yaml(Path(sam_config)) if sam_config is not None else Sam2Sizes().to_yaml()
    network = images.network
    sam2 = load_tracking_sam2(find_tracker(tracker), config, device=network.device, dtype=network.dtype)
    return KeyFrameSegmenter(images, sam2, candidates=options.candidates)


def _load_images(
    folder: Path, settings: MllmsegInference, device: torch.device, dtype: torch.dtype
) -> MllmsegSegmenter:
    config = MllmsegConfig.read(folder)
    tokenizer = load_tokenizer(folder, config.family)
    return MllmsegSegmenter(load_network(folder, config, device=device, dtype=dtype), tokenizer, settings)
