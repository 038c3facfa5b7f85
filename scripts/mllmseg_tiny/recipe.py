"""Trains mllmseg-tiny: `python -m scripts.mllmseg_tiny FOLDER`; called again, it goes on where it stopped.

The InternVL in sa2va-tiny gets MLLMSeg's tokens and a fresh mask decoder, as a published InternVL2.5 does, and is
trained on frames of demo videos. It is meant for a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState

from fiftyone_refvos.demo.rendered import render
from fiftyone_refvos.models.mllmseg.config import MllmsegConfig
from fiftyone_refvos.models.mllmseg.network import MllmsegNetwork
from fiftyone_refvos.models.mllmseg.saving import save_checkpoint
from fiftyone_refvos.models.mllmseg.weights import load_network
from fiftyone_refvos.training.mllmseg.start import start_from_internvl
from scripts.glus_tiny.network import SIDE
from scripts.mllmseg_tiny.base import write_base
from scripts.mllmseg_tiny.stages import STAGES, Stage
from scripts.sa2va_tiny.recipe import NUM_VIDEOS, SEED, run_stage


def train(folder: Path, *, num_videos: int = NUM_VIDEOS, stages: Sequence[Stage] = STAGES) -> Path:
    """Runs all stages that are not done yet.

    Args:
        folder: gets the rendered videos (2.5 MB each), and a folder per stage with logs, checkpoints and network
        num_videos: of the train split
        stages: in their order

    Returns:
        `mllmseg-tiny`, the last stage's network in half precision, as it goes into the package
    """
    torch.set_num_threads(1)
    render(folder / "videos", num_videos, side=SIDE)
    base, network, packed = folder / "base", folder / "start", folder / "mllmseg-tiny"
    if not base.exists():
        write_base(base)
    if not network.exists():
        start_from_internvl(base, network, seed=SEED)
    for stage in stages:
        done = folder / stage.name / "network"
        if not done.exists():
            _run(stage, network, folder, done)
        network = done
    if not packed.exists():
        save_checkpoint(_load(network).half().state_dict(), packed, base=network)
    return packed


def _run(stage: Stage, start: Path, folder: Path, done: Path) -> None:
    network = _load(start)
    learner = stage.make_learner(network, start, folder / "videos")
    run_stage(stage.name, learner, stage.config, done.parent)
    save_checkpoint(network.state_dict(), done, base=start)


def _load(folder: Path) -> MllmsegNetwork:
    return load_network(folder, MllmsegConfig.read(folder), device=PartialState().device, dtype=torch.float32)
