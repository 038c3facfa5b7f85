"""Adapters of GLUS: what a training changed of a checkpoint, saved apart, and merged into it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fiftyone_refvos.models.adapters import DESCRIPTION, LORA_CONFIG, Adapter
from fiftyone_refvos.models.checkpoint import CheckpointError, check_tensors
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.glus.saving import new_folder
from fiftyone_refvos.models.glus.weights import published_name, translate

_LORA = "adapter_model.safetensors"
_PARTS = "trained_parts.safetensors"
_PEFT_PREFIX = "base_model.model."  # before names in peft's files
_PEFT_MISSING = (
    "adapters with LoRA need the Python package peft: run `pip install 'fiftyone-refvos[training]'`, or load the "
    "merged checkpoint instead"
)


def save_adapter(network: GlusNetwork, folder: Path, *, base: str, facts: Mapping[str, Any]) -> Adapter:
    """Writes what was trained of a network: its low-rank updates, and all else that requires a gradient.

    Args:
        network: with LoRA in its language model, if it was trained so
        folder: of the adapter; an older one in it is replaced
        base: the name of the model that was trained
        facts: plain values that `Adapter.facts` gives back

    Raises:
        CheckpointError: if it cannot be written
    """
    peft_config = getattr(network.llama, "peft_config", None)
    parts = {
        published_name(name): tensor.detach().cpu().contiguous()
        for name, tensor in network.named_parameters()
        if tensor.requires_grad and ".lora_" not in name
    }
    with new_folder(folder) as written:
        if peft_config is not None:
            (config,) = peft_config.values()
            config.save_pretrained(str(written))
            lora = {_PEFT_PREFIX + name: tensor for name, tensor in _lora_state(network.llama).items()}
            save_file(lora, written / _LORA, metadata={"format": "pt"})
        save_file(parts, written / _PARTS, metadata={"format": "pt"})
        digest = _digest(sorted(written.glob("*.safetensors")))
        fingerprints = (shapes_of(network), network.fingerprint)
        settings = network.config.recorded
        adapter = Adapter(folder, base, *fingerprints, tuple(sorted(parts)), digest, settings, dict(facts))
        values = {name: value for name, value in asdict(adapter).items() if name != "folder"}
        (written / DESCRIPTION).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    return adapter


def apply_adapter(network: GlusNetwork, adapter: Adapter) -> None:
    """Merges an adapter into its base, in place: after it the network is like one of a merged checkpoint.

    It is run as it was trained from then on, see `RunSettings`.

    Args:
        network: the base with its weights, without LoRA
        adapter: of `read_adapter`

    Raises:
        CheckpointError: if the network has other sizes or was loaded with other weights, or tensors are missing,
            unexpected, or of another shape; the network is as it was then
        ModuleNotFoundError: without peft, if there is LoRA to be merged
    """
    if adapter.shapes != shapes_of(network):
        raise CheckpointError(
            f"the adapter in {adapter.folder} was trained on a {adapter.base!r} of other sizes than the one that was "
            "loaded: load it with the checkpoint that it was trained on"
        )
    if adapter.weights != network.fingerprint:
        raise CheckpointError(
            f"the adapter in {adapter.folder} was trained on a {adapter.base!r} with other weights than the one that "
            "was loaded: load it with the checkpoint that it was trained on"
        )
    parts = _read_parts(network, adapter)
    if adapter.has_lora:
        _merge_lora(network, adapter)
    parameters = dict(network.named_parameters())
    for name, tensor in parts.items():
        parameters[name].data.copy_(tensor)
    network.config = replace(network.config, **adapter.run_settings)


def shapes_of(network: nn.Module) -> str:
    """A fingerprint of the names and shapes of the tensors of a network, with or without LoRA in it."""
    shapes = {
        name.replace(".base_layer.", "."): list(tensor.shape)
        for name, tensor in network.state_dict().items()
        if ".lora_" not in name
    }
    return hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()[:16]


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _read_parts(network: GlusNetwork, adapter: Adapter) -> dict[str, Tensor]:
    path = adapter.folder / _PARTS
    found = {translate(name) or name: tensor for name, tensor in _load(path).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in network.named_parameters()}
    names = [translate(name) or name for name in adapter.parts]
    if unknown := sorted(set(names) - shapes.keys()):
        raise CheckpointError(f"{adapter.folder / DESCRIPTION} names a part that the network lacks: {unknown[0]}")
    check_tensors(
        {name: shapes[name] for name in names},
        {name: tuple(tensor.shape) for name, tensor in found.items()},
        where=str(path),
    )
    return found


def _merge_lora(network: GlusNetwork, adapter: Adapter) -> None:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(_PEFT_MISSING) from error
    path = adapter.folder / _LORA
    found = _load(path)
    try:
        config = peft.PeftConfig.from_pretrained(str(adapter.folder))
    except (OSError, TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{adapter.folder / LORA_CONFIG} is damaged ({error}): restore the file") from error
    config.inference_mode = True
    wrapped = peft.get_peft_model(network.llama, config)
    try:
        expected = {name: tuple(tensor.shape) for name, tensor in _lora_state(wrapped).items()}
        check_tensors(expected, {name: tuple(tensor.shape) for name, tensor in found.items()}, where=str(path))
    except CheckpointError:
        network.llama = wrapped.unload()
        raise
    peft.set_peft_model_state_dict(wrapped, found)
    network.llama = wrapped.merge_and_unload().requires_grad_(False).eval()


def _lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The low-rank updates of a model under the names of peft's files."""
    from peft import get_peft_model_state_dict

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is missing or damaged ({error}): train again, or restore the file") from error
