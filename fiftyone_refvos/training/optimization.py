"""One optimizer step under accelerate: forward passes, the mean of their gradients, clipping, AdamW."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    gather_object,
    send_to_device,
)
from torch import Tensor, nn

from fiftyone_refvos.training.config import TrainingConfig
from fiftyone_refvos.training.draws import Draws
from fiftyone_refvos.training.learner import Learner
from fiftyone_refvos.training.state import trained_parameters

GROUP_TIMEOUT = timedelta(hours=24)
"""How long the processes of a training wait for one, as all others do while the main one validates."""


class NonFiniteError(RuntimeError):
    """A loss or gradient is infinite or not a number; the message names the step, the losses and the samples."""


@dataclass(frozen=True)
class Step:
    """What one optimizer step did.

    Attributes:
        losses: by name, the mean over forward passes and processes that have the term
        learning_rate: that was used
        gradient_norm: before clipping; None where float16 overflowed and the step was left out
        seconds: how long it took
    """

    losses: Mapping[str, float]
    learning_rate: float
    gradient_norm: float | None
    seconds: float


def learning_rate(config: TrainingConfig, step: int) -> float:
    """The learning rate of a step, counted from 0: linear from 0 to the full one, then down to 0 at `steps`.

    "cosine" goes down as transformers' trainer does, "linear" by the formula of DeepSpeed's `WarmupDecayLR`, at the
    number of the step; step 0 has rate 0, and the last one, `steps - 1`, is just above 0. DeepSpeed's engine takes
    it one step late: its step 1 has rate 0, and its step 0 has rate 0 or, in old releases, the full one. That depends
    on the release, which the published program does not pin, so it is not imitated.
    """
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    left = (config.steps - step) / max(1, config.steps - config.warmup_steps)
    left = max(0.0, left)
    return config.learning_rate * (left if config.rate_decay == "linear" else (1 - math.cos(math.pi * left)) / 2)


class Optimization:
    """The network, prepared for the machine, and its optimizer.

    Attributes:
        accelerator: knows the device, the processes and the precision
        parameters: what is trained, by name
        optimizer: AdamW
    """

    def __init__(self, learner: Learner[Any], config: TrainingConfig) -> None:
        self._learner, self._config = learner, config
        self.accelerator = _accelerator(config)
        self.parameters = trained_parameters(learner.network)
        for parameter in self.parameters.values():
            parameter.grad = None  # of a run before, which may have ended within a step
        learner.network.to(self.accelerator.device)  # before the optimizer sees its parameters
        learner.network.train()
        adamw = torch.optim.AdamW(
            _groups(learner.network, self.parameters, config),
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
        )
        self._module, self.optimizer = self.accelerator.prepare(_Losses(learner), adamw)

    def step(self, step: int, draws: Draws[Any]) -> Step:
        """Does the optimizer step number `step`, from 0.

        Raises:
            NonFiniteError: if a loss or the norm of the gradient is infinite or not a number
        """
        started = time.perf_counter()
        rate = learning_rate(self._config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        passes: list[dict[str, float]] = []
        samples: list[str] = []
        norm: float | None = None
        for _ in range(self._config.accumulation):
            drawn, rng = draws.next()
            batch = send_to_device(drawn, self.accelerator.device)
            ids = list(self._learner.sample_ids(batch))
            samples += ids
            with self.accelerator.accumulate(self._module):
                losses = self._module(batch, rng)
                passes.append(_values(losses))
                if not all(map(math.isfinite, passes[-1].values())):
                    raise _not_finite(step, "a loss", passes[-1], ids)
                self.accelerator.backward(losses["total"])  # divided by the number of passes there
                if self.accelerator.sync_gradients:
                    norm = self._clip(step, passes, samples)
                self.optimizer.step()
                self.optimizer.zero_grad()
        means = _means([each for process in gather_object([passes]) for each in process])
        return Step(means, rate, norm, time.perf_counter() - started)

    def state(self) -> dict[str, Any]:
        """AdamW's moments, and the scale of float16 gradients."""
        scaler = self.accelerator.scaler
        return {"adamw": self.optimizer.state_dict(), "scaler": scaler.state_dict() if scaler is not None else {}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned."""
        self.optimizer.load_state_dict(state["adamw"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])

    def _clip(self, step: int, passes: Sequence[Mapping[str, float]], samples: Sequence[str]) -> float | None:
        parameters = list(self.parameters.values())
        norm = float(self.accelerator.clip_grad_norm_(parameters, self._config.clip_norm))
        if math.isfinite(norm):
            return norm
        scaler = self.accelerator.scaler
        if scaler is not None and scaler.get_scale() > 1:
            return None  # float16 overflowed: the scaler leaves the step out and tries a smaller scale
        raise _not_finite(step, f"the norm of the gradient ({norm})", _means(passes), samples)


class _Losses(nn.Module):
    """The learner's losses as the forward pass of a module, for accelerate to wrap."""

    def __init__(self, learner: Learner[Any]) -> None:
        super().__init__()
        self.network = learner.network
        self._losses = learner.losses

    def forward(self, batch: Any, rng: np.random.Generator) -> dict[str, Tensor]:
        losses = self._losses(batch, rng)
        return {name: loss if name == "total" else loss.detach() for name, loss in losses.items()}


def _accelerator(config: TrainingConfig) -> Accelerator:
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != config.precision:
        AcceleratorState._reset_state()  # one per process, and it refuses another precision for the next stage
    return Accelerator(
        mixed_precision=config.precision,
        # as a plugin, because an environment variable of `accelerate launch` overrules the plain number
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=config.accumulation, sync_with_dataloader=False
        ),
        kwargs_handlers=[
            # parts of the mask decoder get no gradient; buffers of one process are not those of another
            DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=GROUP_TIMEOUT),
        ],
    )


def _groups(
    network: nn.Module, parameters: Mapping[str, nn.Parameter], config: TrainingConfig
) -> list[dict[str, Any]]:
    """The parameters as AdamW takes them; biases and layer norms in a group of their own where they do not decay."""
    if config.decays_all:
        return [{"params": list(parameters.values())}]
    norms = {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, nn.LayerNorm)}
    kept = {name for name in parameters if name in norms or name.endswith("bias")}
    return [
        {"params": [each for name, each in parameters.items() if name not in kept]},
        {"params": [parameters[name] for name in parameters if name in kept], "weight_decay": 0.0},
    ]


def _values(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """All in one transfer from the device."""
    return dict(zip(losses, torch.stack([loss.detach().float() for loss in losses.values()]).tolist(), strict=True))


def _means(passes: Sequence[Mapping[str, float]]) -> dict[str, float]:
    terms: defaultdict[str, list[float]] = defaultdict(list)
    for losses in passes:
        for name, value in losses.items():
            terms[name].append(value)
    return {name: math.fsum(values) / len(values) for name, values in terms.items()}


def _not_finite(step: int, what: str, losses: Mapping[str, float], samples: Sequence[str]) -> NonFiniteError:
    terms = ", ".join(f"{name} {value:.6g}" for name, value in losses.items())
    return NonFiniteError(
        f"step {step + 1}: {what} is not finite (losses: {terms}) for the samples {', '.join(samples)}; the last "
        "checkpoint is kept. Look at these samples, or train with a lower learning rate in another folder"
    )
