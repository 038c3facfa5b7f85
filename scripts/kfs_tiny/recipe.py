"""Trains kfs-tiny from glus-tiny: `python -m scripts.kfs_tiny FOLDER`; called again, it goes on where it stopped.

The selector begins with the language model and the CLIP of glus-tiny. CLIP learns tokens that survive the merging;
the language model learns how clearly the objects can be seen in a frame, which the rendered masks tell for nothing,
and then the IoU of glus-tiny's masks in videos that glus-tiny was not trained on. It is meant for a CPU.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
from scripts.kfs_tiny.stages import FRESH, LABELS, VIDEOS, Stage, check_labelled, held_out, stages
from scripts.make_kfs_base import main as write_base

NUM_VIDEOS, NUM_FRESH = 1000, 1800
SEEDS = (0, 1, 2)
GLUS_TINY = SHIPPED / "glus-tiny"


def train(
    folder: Path,
    *,
    num_videos: int = NUM_VIDEOS,
    num_fresh: int = NUM_FRESH,
    seeds: Sequence[int] = SEEDS,
    chain: Callable[[int], Sequence[Stage]] = stages,
) -> Path:
    """Runs all stages that are not done yet; a folder is for one recipe, for what is done there is not checked.

    Args:
        folder: gets rendered videos (2.5 MB each), labels, and a folder per stage with logs, checkpoints and network
        num_videos: of the train split, to learn from what can be seen in them
        num_fresh: of those that glus-tiny was not trained on, to be labelled
        seeds: of as many trainings, which draw in another order; videos, labels, CLIP and the new head that they
            begin with are the same for all
        chain: the stages of the training with a seed

    Returns:
        `kfs-tiny`, the mean of the trainings' weights, in half precision, as it goes into the package; beside it
        `kfs-tiny-<seed>`, each training on its own

    Raises:
        ValueError: for so few labelled videos that none is left to train on
    """
    check_labelled(num_fresh)
    torch.set_num_threads(1)
    render(folder / VIDEOS, num_videos, side=SIDE)
    render(folder / FRESH, num_fresh, side=SIDE, first=SEEN_BY_GLUS)
    label(
        folder / LABELS,
        RenderedVideos(folder / FRESH),
        load_segmenter("glus-tiny", device=PartialState().device, dtype="float32"),
        lambda done, of: _say("labels", f"{done} of {of} videos"),
    )
    base = folder / "base"
    if not base.exists():
        write_base(base, GLUS_TINY)
    trained = [_train_once(folder, base, chain(seed)) for seed in seeds]
    for seed, network in zip(seeds, trained, strict=True):
        pack([network], folder / f"kfs-tiny-{seed}")
    return pack(trained, folder / "kfs-tiny")


def _train_once(folder: Path, base: Path, chain: Sequence[Stage]) -> Path:
    network = base
    for stage in chain:
        done = folder / stage.name / "network"
        if not done.exists():
            _run(stage, network, folder, done)
        network = done
    return network


def pack(networks: Sequence[Path], packed: Path) -> Path:
    """Writes the mean of several networks (Wortsman et al., "Model soups", ICML 2022), which begin alike."""
    trainees = [load_trainee(network, network / "clip") for network in networks]
    states = [trainee.network.state_dict() for trainee in trainees]
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    trainees[0].network.load_state_dict(mean)
    trainees[0].network.half()
    save(trainees[0], packed, networks[0])
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
    save(trainee, done, start)


def save(trainee: Trainee, folder: Path, base: Path) -> None:
    """Writes a network as a checkpoint, with the other files of its base."""
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
