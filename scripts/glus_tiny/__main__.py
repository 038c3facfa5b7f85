"""Trains glus-tiny from nothing: `python -m scripts.glus_tiny FOLDER`; called again, it goes on where it stopped."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from fiftyone_refvos.demo.rendered import render
from fiftyone_refvos.models.glus.config import GlusConfig
from fiftyone_refvos.models.glus.saving import save_checkpoint
from fiftyone_refvos.models.glus.weights import load_network
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.training.loop import run
from scripts.glus_tiny.network import SIDE, write_start
from scripts.glus_tiny.stages import STAGES, Stage

NUM_VIDEOS = 3000
SEED = 0


def train(folder: Path, *, num_videos: int = NUM_VIDEOS, stages: tuple[Stage, ...] = STAGES) -> Path:
    """Runs all stages that are not done yet.

    Args:
        folder: gets the rendered videos (10 GB for 3000), and a folder per stage with logs, checkpoints and network
        num_videos: of the train split
        stages: in their order

    Returns:
        the last stage's network, in the layout of every checkpoint
    """
    videos, network = folder / "videos", folder / "start"
    render(videos, num_videos, side=SIDE)
    if not network.exists():
        write_start(network, SEED)
    for stage in stages:
        done = folder / stage.name / "network"
        if not done.exists():
            _run(stage, network, videos, done)
        network = done
    return network


def _run(stage: Stage, start: Path, videos: Path, done: Path) -> None:
    glus = load_network(
        start, start / "clip", GlusConfig.read(start), device=torch.device("cpu"), dtype=torch.float32
    ).requires_grad_(True)
    learner = stage.learner(glus, LlamaTokenizer(start), videos)
    learner.network.train()
    outcome = run(learner, stage.config, done.parent, log=print, on_progress=_say)
    if outcome.stopped_because != "finished":
        raise SystemExit(f"stopped in stage {stage.name!r}: run the same command again to go on")
    save_checkpoint(
        glus.state_dict(), done, base=start, clip=start / "clip", run_settings=GlusConfig.read(start).recorded
    )


def _say(step: int, steps: int, losses: object) -> None:
    if step % 100 == 0:
        print(f"{step} of {steps}: {losses}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=NUM_VIDEOS, help="of the train split")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of PyTorch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(train(arguments.folder, num_videos=arguments.videos))
