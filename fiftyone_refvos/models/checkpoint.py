"""Reading checkpoint folders: config.json, safetensors or weights-only `.bin`, and strict tensor checks."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

_LISTED = 8  # tensor names shown of a longer list

_SINGLE_FILES = ("model.safetensors", "pytorch_model.bin")
_INDEX_FILES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


class CheckpointError(ValueError):
    """A folder is no checkpoint of the expected system; the message names the folder, file or tensor."""


def read_config(folder: Path) -> dict[str, Any]:
    """Reads the config.json of a checkpoint folder as plain JSON.

    Raises:
        CheckpointError: if the folder or the file is missing, or the file is no JSON object
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no folder; pass the folder that holds config.json and the weights")
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder} is no checkpoint: it has no config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} should hold a JSON object")
    return config


def weight_files(folder: Path) -> list[Path]:
    """Lists the weight files of a checkpoint folder: safetensors where present, else `.bin`.

    Raises:
        CheckpointError: if there are none, or an index names a file that is missing
    """
    for single, index in zip(_SINGLE_FILES, _INDEX_FILES, strict=True):
        if (folder / index).is_file():
            return _indexed_files(folder, folder / index)
        if (folder / single).is_file():
            return [folder / single]
    wanted = ", ".join(_SINGLE_FILES + _INDEX_FILES)
    raise CheckpointError(f"{folder} holds no weights; expected one of {wanted}")


def _indexed_files(folder: Path, index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index} is no weight index: {error!r}") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise CheckpointError(f"{index} names {name!r}, which lies outside of the checkpoint folder")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(f"{folder} lacks {', '.join(missing)}, which {index.name} lists; download again")
    return [folder / name for name in names]


def iterate_tensors(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields (name, tensor) of all weight files, one at a time, on the CPU, in the stored dtype.

    `.bin` files are memory-mapped and unpickled with `weights_only=True`: a pickle that would run
    code is refused.

    Raises:
        CheckpointError: for a file that cannot be read, or a tensor that two files hold
    """
    seen: dict[str, str] = {}
    for path in weight_files(folder):
        read = _read_safetensors if path.suffix == ".safetensors" else _read_bin
        for name, tensor in read(path):
            if name in seen:
                raise CheckpointError(f"tensor {name!r} is in both {seen[name]} and {path.name}")
            seen[name] = path.name
            yield name, tensor


def tensor_names(folder: Path) -> set[str]:
    """The names of all tensors, without their values where the format allows it.

    Raises:
        CheckpointError: for a file that cannot be read
    """
    names: set[str] = set()
    for path in weight_files(folder):
        if path.suffix == ".safetensors":
            with _open_safetensors(path) as file:
                names.update(file.keys())
        else:
            names.update(name for name, _ in _read_bin(path))
    return names


def _read_safetensors(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    with _open_safetensors(path) as file:
        for name in file.keys():  # noqa: SIM118 - a safetensors handle is not a mapping
            yield name, file.get_tensor(name)


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file ({error}); download it again") from error


def _read_bin(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    state = read_pickle(path)
    if not is_state(state):
        raise CheckpointError(f"{path} should hold a flat dictionary of tensors")
    yield from state.items()


def read_pickle(path: Path) -> Any:
    """What `torch.save` wrote, on the CPU; a pickle that would run code is refused.

    Raises:
        CheckpointError: for such a file, and for one that cannot be read
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, and is refused because loading it would run its code"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or no PyTorch weight file ({error}); download it again") from error


def is_state(content: Any) -> bool:
    """Whether this is a flat dictionary of tensors."""
    return isinstance(content, dict) and all(isinstance(value, torch.Tensor) for value in content.values())


def _is_zip(path: Path) -> bool:
    """Only the zip format of torch.save (since 1.6) can be memory-mapped."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def check_tensors(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], *, where: str) -> None:
    """Compares tensor names and shapes, and reports every difference at once.

    Args:
        expected: shape per name that the network has
        found: shape per name that the checkpoint holds
        where: what the error calls the checkpoint

    Raises:
        CheckpointError: for missing, unexpected or wrongly shaped tensors
    """
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    misshaped = [
        f"{name} is {list(found[name])}, expected {list(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if tuple(found[name]) != tuple(expected[name])
    ]
    problems = [
        f"{len(names)} {kind}: {_shorten(names)}"
        for kind, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", misshaped))
        if names
    ]
    if problems:
        raise CheckpointError(f"the tensors of {where} do not fit the network. " + "; ".join(problems))


def _shorten(names: list[str]) -> str:
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def load_strictly(
    module: nn.Module,
    tensors: Iterable[tuple[str, torch.Tensor]],
    *,
    where: str,
    device: torch.device,
    dtype: torch.dtype | None,
) -> None:
    """Gives a module (which may be on the meta device) its weights; each must be there, and no other.

    Floating tensors are cast, if a precision is given, and moved one by one, so that no second copy of the network
    exists.

    Raises:
        CheckpointError: for missing, unexpected or wrongly shaped tensors
    """
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    state: dict[str, torch.Tensor] = {}
    found: dict[str, tuple[int, ...]] = {}
    for name, tensor in tensors:
        found[name] = tuple(tensor.shape)
        if expected.get(name) == tuple(tensor.shape):
            state[name] = tensor.to(device, dtype if tensor.is_floating_point() else None)
    check_tensors(expected, found, where=where)
    module.load_state_dict(state, strict=True, assign=True)


def set_rotary(module: nn.Module) -> None:
    """Gives stock models that were made on the meta device their rotary constants, which no checkpoint holds."""
    rotary = [(name, each) for name, each in module.named_modules() if hasattr(each, "inv_freq")]
    for name, each in rotary:
        module.set_submodule(name, type(each)(each.config))
