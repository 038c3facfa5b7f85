"""Trains sa2va-tiny from glus-tiny: `python -m scripts.sa2va_tiny FOLDER`; called again, it goes on where it stopped.

Language and masks are fitted to Sa2VA apart, in two processes at once, and then together. It is meant for a CPU.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from fiftyone_refvos.demo.rendered import render
from fiftyone_refvos.models.sa2va.loading import load_sa2va
from fiftyone_refvos.models.sa2va.network import Sa2vaNetwork
from fiftyone_refvos.models.sa2va.saving import save_checkpoint
from fiftyone_refvos.training.config import TrainingConfig
from fiftyone_refvos.training.learner import Learner
from fiftyone_refvos.training.loop import run
from scripts.glus_tiny.network import SIDE
from scripts.sa2va_tiny.stages import LANGUAGE, MASKS, TOGETHER, Stage
from scripts.sa2va_tiny.start import write_start

NUM_VIDEOS = 1500
SEED = 0


def train(
    folder: Path,
    *,
    num_videos: int = NUM_VIDEOS,
    language: Sequence[Stage] = LANGUAGE,
    masks: Sequence[Stage] = MASKS,
    together: Sequence[Stage] = TOGETHER,
) -> Path:
    """Runs all stages that are not done yet.

    Args:
        folder: gets the rendered videos (2.5 MB each), and a folder per stage with logs, checkpoints and network
        num_videos: of the train split
        language, masks, together: stages in their order

    Returns:
        `sa2va-tiny`, the last stage's network in half precision, as it goes into the package
    """
    render(folder / "videos", num_videos, side=SIDE)
    start, joined = folder / "start", folder / "joined"
    if not start.exists():
        write_start(start, folder / "videos", SEED)
    if not joined.exists():
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as processes:
            talker, painter = processes.map(partial(run_chain, folder, start), (language, masks))
        _join(talker, painter, joined)
    network, packed = run_chain(folder, joined, together), folder / "sa2va-tiny"
    if not packed.exists():
        save_checkpoint(_load(network).half().state_dict(), packed, base=network)
    return packed


def run_chain(folder: Path, start: Path, stages: Sequence[Stage]) -> Path:
    """Runs stages one after the other, and returns the network of the last; those that are done are skipped."""
    torch.set_num_threads(1)
    network = start
    for stage in stages:
        done = folder / stage.name / "network"
        if not done.exists():
            _run(stage, network, folder, done)
        network = done
    return network


def _run(stage: Stage, start: Path, folder: Path, done: Path) -> None:
    network = _load(start).requires_grad_(True)
    learner = stage.make_learner(network, start, folder / "videos")
    learner.network.train()
    run_stage(stage.name, learner, stage.config, done.parent)
    save_checkpoint(network.state_dict(), done, base=start)


def run_stage(name: str, learner: Learner[Any], config: TrainingConfig, folder: Path) -> None:
    """Trains to the last step, or goes on where it stopped, and says how far it is.

    Raises:
        RuntimeError: if it was stopped
    """
    say, began = partial(_say, name), time.perf_counter()
    outcome = run(learner, config, folder, log=say, on_progress=partial(_say_losses, say))
    if outcome.stopped_because != "finished":
        raise RuntimeError(f"stopped in stage {name!r}: run the same command again to go on")
    say(f"done in {time.perf_counter() - began:.0f} s")


def _join(language: Path, masks: Path, joined: Path) -> None:
    """One network of the parts that were trained apart."""
    network = _load(language)
    network.sam.load_state_dict(_load(masks).sam.state_dict())
    save_checkpoint(network.state_dict(), joined, base=language)


def _load(folder: Path) -> Sa2vaNetwork:
    return load_sa2va(folder, device=PartialState().device, dtype="float32").network


def _say(stage: str, text: str) -> None:
    print(f"{stage}: {text}", flush=True)


def _say_losses(say: Callable[[str], None], step: int, steps: int, losses: dict[str, float]) -> None:
    if step % 25 == 0:
        say(f"{step} of {steps}: " + ", ".join(f"{name} {value:.3f}" for name, value in losses.items()))
