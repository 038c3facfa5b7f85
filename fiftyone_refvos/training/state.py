"""Checkpoints of a training run: all that a killed run needs to go on as if nothing had happened.

    checkpoints/step-000500/parameters.safetensors    what is trained, by name
                           /optimizer.pt              AdamW's state, and the scale of float16 gradients
                           /processes.pt              per process: random states and what the learner remembers
                           /state.json                step, validations, configuration; the rate follows from the step
    best/parameters.safetensors                       of the best validation; its header says which step and value

A checkpoint is written to a hidden folder, which gets its name when all is on the disk.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.training.config import TrainingConfig

PARAMETERS = "parameters.safetensors"
_KEPT = 2
_COPIES = 3  # a parameter and AdamW's two moments of it
_CHANGEABLE = ("gradient_checkpointing",)  # of a configuration, because a run comes to the same with and without
_LISTED = 8  # differences shown of a longer list

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        step: optimizer steps that are done
        best: the best validation so far
        stale: validations in a row without a better one
    """

    step: int = 0
    best: float | None = None
    stale: int = 0


@dataclass(frozen=True)
class Best:
    """What was trained until the best validation.

    Attributes:
        path: a file for `load_parameters`
        step: after which they were validated
        value: of the validation
    """

    path: Path
    step: int
    value: float


def trained_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require a gradient, by name.

    Raises:
        ValueError: if there are none
    """
    parameters = {name: each for name, each in network.named_parameters() if each.requires_grad}
    if not parameters:
        raise ValueError("no parameter of the network requires a gradient: there is nothing to train")
    return parameters


def trained_tensors(network: nn.Module) -> dict[str, torch.Tensor]:
    """All that a training changes, by name: the trained parameters, and the statistics of batch norms."""
    statistics = {
        f"{name}.{own}": buffer
        for name, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for own, buffer in module.named_buffers()
    }
    return {**trained_parameters(network), **statistics}


class Checkpoints:
    """The checkpoints of one run, the newest two of which are kept."""

    def __init__(self, folder: Path, config: TrainingConfig, num_processes: int) -> None:
        self.folder = folder
        # through JSON, as it will be read: a tuple is a list there
        setup = {name: value for name, value in asdict(config).items() if name not in _CHANGEABLE}
        self._setup = json.loads(json.dumps({**setup, "processes": num_processes}))

    def newest(self) -> Path | None:
        """The checkpoint to go on from."""
        return max(self.folder.glob("step-[0-9]*"), default=None, key=_step)

    def prepare(self, tensors: Tensors) -> None:
        """Removes what a killed run was writing, and makes sure, before hours of training, that a checkpoint fits.

        Raises:
            CheckpointError: if the folder cannot be made, or the disk has not enough room
        """
        needed = _COPIES * _bytes(tensors)
        with _writing(self.folder, self.folder / ".part", needed):
            self.folder.mkdir(parents=True, exist_ok=True)
            for part in self.folder.glob(".*.part"):
                shutil.rmtree(part)
            if shutil.disk_usage(self.folder).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def save(
        self,
        progress: Progress,
        tensors: Tensors,
        optimizer: Mapping[str, Any],
        processes: Sequence[Mapping[str, Any]],
    ) -> Path:
        """Writes a checkpoint and removes those that are no longer needed.

        Args:
            progress: goes into the name, and into `state.json`
            tensors: what is trained
            optimizer: its state
            processes: the state of each process, in their order

        Raises:
            CheckpointError: if the disk is full or cannot be written to; earlier checkpoints stay
        """
        target = self.folder / f"step-{progress.step:06d}"
        part = self.folder / f".{target.name}.part"
        with _writing(target, part, _COPIES * _bytes(tensors)):
            part.mkdir(parents=True)
            _write_tensors(part / PARAMETERS, tensors, {})
            _write_pickle(part / "optimizer.pt", optimizer)
            _write_pickle(part / "processes.pt", list(processes))
            (part / "state.json").write_text(json.dumps({**asdict(progress), "config": self._setup}, indent=2))
            _sync(part / "state.json")
            _sync(part)
            os.replace(part, target)
            _sync(self.folder)
        for old in sorted(self.folder.glob("step-[0-9]*"), key=_step)[:-_KEPT]:
            doomed = self.folder / f".{old.name}.part"  # so that half of a checkpoint never looks like one
            os.replace(old, doomed)
            shutil.rmtree(doomed)
        return target

    def read_progress(self, path: Path) -> Progress:
        """Reads how far a run was, and checks that it was this one.

        Raises:
            CheckpointError: if it had another configuration, or cannot be read
        """
        with _reading(path):
            state = json.loads((path / "state.json").read_text())
            then, now = _flat(state.pop("config")), _flat(self._setup)
            progress = Progress(**state)
        changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
        if changed:
            listed = ", ".join(
                f"{name} was {then.get(name)!r} and is {now.get(name)!r}" for name in changed[:_LISTED]
            )
            raise CheckpointError(
                f"{path} belongs to a run with another configuration ({listed}): change it back to go on with that "
                "run, or train in another folder"
            )
        return progress

    def read_optimizer(self, path: Path) -> dict[str, Any]:
        """Reads the state of the optimizer.

        Raises:
            CheckpointError: if it cannot be read
        """
        with _reading(path):
            return dict(torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True))

    def read_process(self, path: Path, process: int) -> dict[str, Any]:
        """Reads the state of a process by its number.

        Raises:
            CheckpointError: if it cannot be read
        """
        with _reading(path):
            return dict(torch.load(path / "processes.pt", map_location="cpu", weights_only=True)[process])


def load_parameters(path: Path, tensors: Tensors) -> None:
    """Copies saved tensors into those of a network; all or none.

    Raises:
        CheckpointError: if names or shapes differ, or the file cannot be read
    """
    with _reading(path), safe_open(path, framework="pt") as file:
        there = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        here = {name: tuple(each.shape) for name, each in tensors.items()}
        changed = [name for name in {**there, **here} if there.get(name) != here.get(name)]
        if changed:
            listed = ", ".join(
                f"{name} is {there.get(name, 'missing')} there and {here.get(name, 'missing')} here"
                for name in changed[:_LISTED]
            )
            raise CheckpointError(
                f"{path} holds other parameters than are trained ({len(changed)} differ: {listed}): load the network "
                "that the run began with, or train in another folder"
            )
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(file.get_tensor(name))


def save_best(folder: Path, tensors: Tensors, step: int, value: float) -> None:
    """Replaces what was trained until the best validation.

    Raises:
        CheckpointError: if the disk is full or cannot be written to; the former ones stay
    """
    target, part = folder / PARAMETERS, folder / f".{PARAMETERS}.part"
    with _writing(target, part, _bytes(tensors)):
        folder.mkdir(parents=True, exist_ok=True)
        _write_tensors(part, tensors, {"step": str(step), "value": repr(value)})
        os.replace(part, target)
        _sync(folder)


def read_best(folder: Path) -> Best | None:
    """Where the parameters of the best validation are, None before the first one.

    Raises:
        CheckpointError: if the file cannot be read
    """
    path = folder / PARAMETERS
    if not path.is_file():
        return None
    with _reading(path), safe_open(path, framework="pt") as file:
        header = file.metadata()
        return Best(path, int(header["step"]), float(header["value"]))


def random_states() -> dict[str, Any]:
    """The states of the global generators of Python, NumPy and torch."""
    numpy = np.random.get_state(legacy=False)
    numpy["state"]["key"] = numpy["state"]["key"].tolist()  # torch.load unpickles no arrays
    states = {"python": random.getstate(), "numpy": numpy, "torch": torch.get_rng_state()}
    if torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, Any]) -> None:
    """Sets the global generators to what `random_states` returned."""
    random.setstate(states["python"])
    numpy = states["numpy"]
    key = np.array(numpy["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numpy, "state": {**numpy["state"], "key": key}})
    torch.set_rng_state(states["torch"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


@contextmanager
def _writing(target: Path, part: Path, needed: int) -> Iterator[None]:
    """Around the writing of a file or folder under another name, of which nothing stays if it fails.

    Args:
        target: what is written
        part: its name until then
        needed: about how many bytes it will have

    Raises:
        CheckpointError: if it cannot be written, with the room that is needed and that there is
    """
    try:
        yield
    except BaseException as error:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)
        if isinstance(error, OSError | RuntimeError | SafetensorError):
            cause = error
            if not isinstance(error, OSError) and isinstance(error.__context__, OSError):
                cause = error.__context__  # torch has words of its own for a full disk
            there = next(folder for folder in target.parents if folder.exists())
            free = shutil.disk_usage(there).free
            raise CheckpointError(
                f"{target} could not be written ({cause}): it needs about {_megabytes(needed)} on the disk of "
                f"{there}, which has {_megabytes(free)} free. What was saved before is kept; make room and resume"
            ) from error
        raise


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error!r}): remove it, and the run goes on from an earlier checkpoint"
        ) from error


def _write_tensors(path: Path, tensors: Tensors, header: dict[str, str]) -> None:
    save_file({name: each.detach().cpu().contiguous() for name, each in tensors.items()}, path, header)
    _sync(path)


def _write_pickle(path: Path, value: Any) -> None:
    with path.open("wb") as file:
        torch.save(value, file)
    _sync(path)


def _sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _flat(setup: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"losses": {"ce": 1}}` as `{"losses.ce": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in setup.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _bytes(tensors: Tensors) -> int:
    return sum(each.numel() * each.element_size() for each in tensors.values())


def _megabytes(number: int) -> str:
    return f"{number / 1e6:.2f} MB"
