"""Trains kfs-tiny from glus-tiny: `python -m scripts.kfs_tiny FOLDER`; called again, it goes on where it stopped.

The selector begins with the language model and the CLIP of glus-tiny. CLIP learns tokens that survive the merging;
the language model learns how clearly the objects can be seen in a frame, which the rendered masks tell for nothing,
and then the IoU of glus-tiny's masks in videos that glus-tiny was not trained on. It is meant for a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState

from fiftyone_refvos.demo.rendered import RenderedVideos, render
from fiftyone_refvos.models.loading import load_segmenter
from fiftyone_refvos.models.registry import SHIPPED
from fiftyone_refvos.models.selector.base import Trainee, load_trainee
from fiftyone_refvos.models.selector.saving import save_selector
from fiftyone_refvos.training.loop import run
from fiftyone_refvos.training.selector.validation import RankValidation
from scripts.glus_tiny.network import SIDE
from scripts.glus_tiny.recipe import NUM_VIDEOS as SEEN_BY_GLUS
from scripts.kfs_tiny.labels import label
from scripts.kfs_tiny.stages import FRESH, LABELS, VIDEOS, Stage, held_out, stages
from scripts.make_kfs_base import main as write_base

NUM_VIDEOS, NUM_FRESH = 1000, 1400
GLUS_TINY = SHIPPED / "glus-tiny"


def train(
    folder: Path,
    *,
    num_videos: int = NUM_VIDEOS,
    num_fresh: int = NUM_FRESH,
    seed: int = 0,
    chain: Sequence[Stage] | None = None,
) -> Path:
    """Runs all stages that are not done yet.

    Args:
        folder: gets rendered videos (2.5 MB each), labels, and a folder per stage with logs, checkpoints and network
        num_videos: of the train split, to learn from what can be seen in them
        num_fresh: of those that glus-tiny was not trained on, to be labelled
        seed: of the training; videos and labels are the same for all
        chain: by default the stages of `stages`

    Returns:
        `kfs-tiny-<seed>`, the last stage's network in half precision, as it goes into the package
    """
    torch.set_num_threads(1)
    render(folder / VIDEOS, num_videos, side=SIDE)
    render(folder / FRESH, num_fresh, side=SIDE, first=SEEN_BY_GLUS)
    label(
        folder / LABELS,
        RenderedVideos(folder / FRESH),
        load_segmenter("glus-tiny", device=PartialState().device, dtype="float32"),
        lambda done, of: _say("labels", f"{done} of {of} videos"),
    )
    network = folder / "base"
    if not network.exists():
        write_base(network, GLUS_TINY)
    for stage in chain or stages(seed):
        done = folder / stage.name / "network"
        if not done.exists():
            _run(stage, network, folder, done)
        network = done
    packed = folder / f"kfs-tiny-{seed}"
    if not packed.exists():
        trainee = load_trainee(network, network / "clip")
        trainee.network.half()
        _save(trainee, packed, network)
    return packed


def _run(stage: Stage, start: Path, folder: Path, done: Path) -> None:
    trainee, say = load_trainee(start, start / "clip", seed=stage.config.seed), partial(_say, stage.name)
    network = trainee.network.requires_grad_(True)
    torch.manual_seed(stage.config.seed)  # of the heads that a learner has of its own
    learner = stage.learner(trainee, folder)
    learner.network.train()
    began = time.perf_counter()
    outcome = run(
        learner,
        stage.config,
        done.parent,
        validate=RankValidation(network, trainee.tokenizer, held_out(folder)) if stage.ranks else None,
        log=say,
        on_progress=partial(_say_losses, stage.name),
    )
    if outcome.stopped_because != "finished":
        raise RuntimeError(f"stopped in stage {stage.name!r}: run the same command again to go on")
    say(f"done in {time.perf_counter() - began:.0f} s")
    _save(trainee, done, start)


def _save(trainee: Trainee, folder: Path, base: Path) -> None:
    save_selector(
        trainee.network.state_dict(),
        folder,
        entries=trainee.entries,
        tokenizer=trainee.tokenizer,
        base=base,
        clip=base / "clip",
    )


def _say(stage: str, text: str) -> None:
    print(f"{stage}: {text}", flush=True)


def _say_losses(stage: str, step: int, steps: int, losses: dict[str, float]) -> None:
    if step % 10 == 0:
        _say(stage, f"{step} of {steps}: " + ", ".join(f"{name} {value:.4f}" for name, value in losses.items()))
