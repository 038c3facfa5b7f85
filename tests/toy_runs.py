"""Training runs that need a process, a disk or a group of processes of their own, and what they should arrive at."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.training.config import TrainingConfig
from fiftyone_refvos.training.draws import Draws
from fiftyone_refvos.training.learner import Learner
from fiftyone_refvos.training.loop import run
from fiftyone_refvos.training.optimization import learning_rate
from tests.toy_learner import CONFIG, ToyLearner


def plain_training(learner: Learner[Any], config: TrainingConfig, num_processes: int = 1) -> dict[str, Tensor]:
    """What the loop should arrive at, in plain torch: one mean over all forward passes of all processes."""
    trained = [each for each in learner.network.parameters() if each.requires_grad]
    adamw = torch.optim.AdamW(trained, betas=config.betas, eps=1e-8, weight_decay=config.weight_decay)
    learner.network.train()
    passes = range(config.steps * config.accumulation)
    draws = [Draws(learner.draw, config.seed, process, passes) for process in range(num_processes)]
    for step in range(config.steps):
        totals = []
        for drawn in draws:
            for _ in range(config.accumulation):
                batch, rng = drawn.next()
                totals.append(learner.losses(batch, rng)["total"])
        torch.stack(totals).mean().backward()
        torch.nn.utils.clip_grad_norm_(trained, config.clip_norm)
        adamw.param_groups[0]["lr"] = learning_rate(config, step)
        adamw.step()
        adamw.zero_grad()
    for drawn in draws:
        drawn.close()
    return parameters(learner)


def parameters(learner: Learner[Any]) -> dict[str, Tensor]:
    """A copy of all parameters by name."""
    return {name: each.detach().clone() for name, each in learner.network.named_parameters()}


def program(name: str, folder: Path) -> list[str]:
    """The command of one of the runs below."""
    return [sys.executable, "-W", "error::RuntimeWarning", __file__, name, str(folder)]


def killed(folder: Path) -> None:
    """Dies after step 5, two steps after its checkpoint."""

    def die(step: int, steps: int, losses: Mapping[str, float]) -> None:
        if step == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    learner = ToyLearner()
    run(learner, CONFIG, folder, validate=learner.validation, on_progress=die)


def full_disk(folder: Path) -> None:
    """Finds the small disk of the folder full when it saves its second checkpoint, and too small for a second run."""

    def fill(step: int, steps: int, losses: Mapping[str, float]) -> None:
        if step == 5:
            with (folder / "ballast").open("wb", buffering=0) as file:
                file.write(bytes(shutil.disk_usage(folder).free - 30_000))

    messages = []
    for name, width in (("run", 64), ("larger", 1000)):
        try:
            run(ToyLearner(width=width), CONFIG, folder / name, on_progress=fill)
        except CheckpointError as error:
            messages.append(str(error))
    print(json.dumps([messages, sorted(each.name for each in (folder / "run" / "checkpoints").iterdir())]))


def processes(folder: Path) -> None:
    """One of two processes: a run against plain torch, and a run that is stopped and resumed against another."""
    process = int(os.environ["RANK"])
    learner = ToyLearner(dropout=0, remembers=False)
    run(learner, CONFIG, folder / "plain")
    expected = plain_training(ToyLearner(dropout=0, remembers=False), CONFIG, num_processes=2)
    off = max(float((each - expected[name]).abs().max()) for name, each in learner.parameters().items())

    whole, first, second = ToyLearner(), ToyLearner(), ToyLearner()
    outcome = run(whole, CONFIG, folder / "whole", validate=whole.validation)
    asked = iter([False] * 4 + [True])
    stopped = run(first, CONFIG, folder / "parts", validate=first.validation, should_stop=lambda: next(asked))
    run(second, CONFIG, folder / "parts", validate=second.validation)
    report = {
        "off": off,
        "losses": outcome.losses,
        "stopped": [stopped.stopped_because, stopped.steps],
        "parameters": {name: each.tolist() for name, each in whole.parameters().items()},
        "resumed": {name: each.tolist() for name, each in second.parameters().items()},
    }
    (folder / f"{process}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    {each.__name__: each for each in (killed, full_disk, processes)}[sys.argv[1]](Path(sys.argv[2]))
