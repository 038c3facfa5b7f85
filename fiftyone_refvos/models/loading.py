"""Loading a model by its name, onto a device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fiftyone_refvos.models.adapters import Adapter, read_adapter
from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.hub import fetch
from fiftyone_refvos.models.registry import CLIP, MODELS, SELECTORS, SHIPPED
from fiftyone_refvos.models.segmenter import Segmenter

if TYPE_CHECKING:
    from fiftyone_refvos.models.mllmseg.inference import MllmsegSegmenter
    from fiftyone_refvos.models.sa2va.inference import Sa2vaSegmenter
    from fiftyone_refvos.models.sam2_config import Sam2Sizes
    from fiftyone_refvos.models.selector.inference import LanguageFrameSelector


class DeviceError(RuntimeError):
    """A device was asked for that this machine does not have."""


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The device to run on; None takes the GPU where there is one.

    Raises:
        DeviceError: for a name that torch does not know, or a GPU that is not there
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise DeviceError(f"{device!r} is no device; pass 'cpu', 'cuda' or 'cuda:1'") from error
    if resolved.type == "cuda":
        count = torch.cuda.device_count()
        if (resolved.index or 0) >= count:
            seen = f"sees {count} GPUs" if count else "sees no GPU"
            raise DeviceError(f"device {device!r} was asked for, but PyTorch {seen}; pass device='cpu'")
    return resolved


def resolve_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """The precision of all parameters; None takes bfloat16 on a GPU and float32 elsewhere.

    Raises:
        ValueError: for anything but float32, bfloat16 and float16
    """
    if dtype is None:
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    resolved = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if resolved not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"dtype is {dtype!r}; choose 'float32', 'bfloat16' or 'float16'")
    return resolved


def load_segmenter(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    clip_path: str | Path | None = None,
    sam_config: str | Path | None = None,
    revision: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    adapter: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Segmenter:
    """Loads a model by its name.

    Args:
        name: one of `MODELS`
        checkpoint: a folder to load instead of the published weights
        clip_path: a CLIP folder to load instead of the checkpoint's own, or of the published one
        sam_config: a SAM2 yaml, for a checkpoint that is not Hiera-L and does not record its sizes
        revision: commit, branch or tag of the published weights, instead of the pinned one
        device: by default the GPU where there is one
        dtype: by default bfloat16 on a GPU and float32 elsewhere
        adapter: a folder with what a training changed of this model, to be merged into it
        settings: how to run it, by field name of the system's settings (`GlusInference`)

    Raises:
        ValueError: for an unknown name or setting
        CheckpointError: for a folder that is no checkpoint of this system, and an adapter of other sizes
        AdapterError: for a folder that is no adapter, and one of another model
        HubError: if the weights cannot be downloaded
        DeviceError: if the device is not there
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; the models are {', '.join(MODELS)}")
    resolved = resolve_device(device)
    precision = resolve_dtype(dtype, resolved)
    options = _glus_settings(dict(settings or {}))
    changes = read_adapter(Path(adapter)) if adapter is not None else None
    if changes is not None:  # before anything large is loaded
        changes.check_base(name)
    folder = find_checkpoint(name, checkpoint, revision=revision)
    return _load_glus(folder, clip_path, sam_config, options, resolved, precision, changes)


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
    from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
    from fiftyone_refvos.models.selector.config import SelectorConfig, SelectorInference
    from fiftyone_refvos.models.selector.inference import LanguageFrameSelector
    from fiftyone_refvos.models.selector.weights import load_network

    resolved = resolve_device(device)
    options = _settings(SelectorInference, settings or {}, system="the selector")
    folder = Path(folder)
    config = SelectorConfig.read(folder)
    tokenizer = LlamaTokenizer.as_configured(folder)
    clip = find_clip(folder, clip_path)
    network = load_network(folder, clip, config, device=resolved, dtype=resolve_dtype(dtype, resolved))
    return LanguageFrameSelector(network, tokenizer, options)


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
    from fiftyone_refvos.models.sa2va.config import Sa2vaConfig, Sa2vaInference
    from fiftyone_refvos.models.sa2va.families import open_family
    from fiftyone_refvos.models.sa2va.inference import Sa2vaSegmenter
    from fiftyone_refvos.models.sa2va.tokens import load_tokenizer
    from fiftyone_refvos.models.sa2va.weights import load_network

    resolved = resolve_device(device)
    options = _settings(Sa2vaInference, settings or {}, system="Sa2VA")
    folder = Path(folder)
    config = Sa2vaConfig.read(folder, sam2=sam2)
    tokenizer = load_tokenizer(folder)
    network = load_network(folder, config, device=resolved, dtype=resolve_dtype(dtype, resolved))
    return Sa2vaSegmenter(open_family(network, tokenizer, folder), options)


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
    from fiftyone_refvos.models.internvl_tokenizer import load_tokenizer
    from fiftyone_refvos.models.mllmseg.config import MllmsegConfig, MllmsegInference
    from fiftyone_refvos.models.mllmseg.inference import MllmsegSegmenter
    from fiftyone_refvos.models.mllmseg.weights import load_network

    resolved = resolve_device(device)
    options = _settings(MllmsegInference, settings or {}, system="MLLMSeg")
    folder = Path(folder)
    config = MllmsegConfig.read(folder)
    tokenizer = load_tokenizer(folder, config.family)
    network = load_network(folder, config, device=resolved, dtype=resolve_dtype(dtype, resolved))
    return MllmsegSegmenter(network, tokenizer, options)


def load_mllmseg_over_time(
    folder: str | Path,
    *,
    tracker: str | Path | None = None,
    sam_config: str | Path | None = None,
    candidates: int | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Segmenter:
    """Loads MLLMSeg as a segmenter of videos: frame by frame, or with the memory of SAM2.

    Args:
        folder: a checkpoint in the published layout, merged or not
        tracker: the published weights of SAM2 2.0, which carries the mask of one frame through the video; without,
            each frame is segmented on its own
        sam_config: a SAM2 yaml, for a tracker that is not Hiera-L
        candidates: most frames among which the key frame is chosen, see `KeyFrameSettings`
        device, dtype, settings: as of `load_mllmseg`

    Raises:
        ValueError: for an unknown or wrong setting
        CheckpointError: for a folder that is no MLLMSeg checkpoint, and a file with other weights than SAM2's
        DeviceError: if the device is not there
    """
    from fiftyone_refvos.models.mllmseg.per_frame import PerFrameSegmenter

    images = load_mllmseg(folder, device=device, dtype=dtype, settings=settings)
    if tracker is None:
        return PerFrameSegmenter(images)
    from fiftyone_refvos.models.mllmseg.tracking import KeyFrameSegmenter, KeyFrameSettings
    from fiftyone_refvos.models.sam2_checkpoint import load_tracking_sam2
    from fiftyone_refvos.models.sam2_config import Sam2Sizes, read_yaml

    config = read_yaml(Path(sam_config)) if sam_config is not None else Sam2Sizes().to_yaml()
    options = KeyFrameSettings() if candidates is None else KeyFrameSettings(candidates)
    network = images.network
    sam2 = load_tracking_sam2(Path(tracker), config, device=network.device, dtype=network.dtype)
    return KeyFrameSegmenter(images, sam2, options)


def find_checkpoint(name: str, checkpoint: str | Path | None = None, *, revision: str | None = None) -> Path:
    """The folder with the weights of a model, downloaded if need be; `checkpoint` where one is given."""
    spec = MODELS[name]
    if checkpoint is not None:
        return Path(checkpoint)
    if spec.source is not None:
        return fetch(dataclasses.replace(spec.source, revision=revision or spec.source.revision))
    return SHIPPED / name


def find_clip(checkpoint: Path, clip_path: str | Path | None = None) -> Path:
    """The folder with the CLIP model of a checkpoint: `clip_path` if given, its own, or the published one."""
    if clip_path is not None:
        return Path(clip_path)
    own = checkpoint / "clip"
    return own if own.is_dir() else fetch(CLIP, option="clip_path")


def _glus_settings(settings: dict[str, Any]) -> Any:
    from fiftyone_refvos.models.glus.config import GlusInference

    return _settings(GlusInference, settings, system="GLUS")


def _settings(kind: Any, settings: Mapping[str, Any], *, system: str) -> Any:
    known = [field.name for field in dataclasses.fields(kind)]
    unknown = sorted(settings.keys() - set(known))
    if unknown:
        raise ValueError(f"unknown settings {', '.join(unknown)}; {system} has {', '.join(known)}")
    return kind(**settings)


def _load_glus(
    folder: Path,
    clip_path: str | Path | None,
    sam_config: str | Path | None,
    settings: Any,
    device: torch.device,
    dtype: torch.dtype,
    adapter: Adapter | None,
) -> Segmenter:
    # imported here: transformers and sam2 take seconds, and a list of names should not
    from fiftyone_refvos.models.glus.adapter import apply_adapter
    from fiftyone_refvos.models.glus.config import GlusConfig
    from fiftyone_refvos.models.glus.inference import GlusSegmenter
    from fiftyone_refvos.models.glus.propagation import Sam2PropagationSegmenter
    from fiftyone_refvos.models.glus.weights import load_network
    from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer

    by_sam2 = settings.propagation == "sam2"
    gamma: Any = settings.memory_gamma or ("checkpoint" if by_sam2 else None)  # what SAM2 was trained with
    config = GlusConfig.read(folder, sam2_config=Path(sam_config) if sam_config is not None else None)
    clip = find_clip(folder, clip_path)
    network = load_network(folder, clip, config, memory_gamma=gamma, device=device, dtype=dtype)
    if adapter is not None:
        apply_adapter(network, adapter)
    kind = Sam2PropagationSegmenter if by_sam2 else GlusSegmenter
    return kind(network, LlamaTokenizer(folder), settings, adapter=None if adapter is None else adapter.digest)
