"""Trains glus-tiny from nothing: `python -m scripts.glus_tiny FOLDER`; called again, it goes on where it stopped.

Language and masks are learned apart, in two processes at once, and then together. It is meant for a GPU with many
cores; the card of the checkpoint says how long the stages took.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file

from fiftyone_refvos.demo.rendered import render
from fiftyone_refvos.models.glus.config import GlusConfig
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.glus.saving import save_checkpoint
from fiftyone_refvos.models.glus.weights import load_network
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.training.loop import run
from scripts.glus_tiny.network import SIDE, write_start
from scripts.glus_tiny.progress import Progress
from scripts.glus_tiny.stages import GLUS, LANGUAGE, MASKS, Stage

_OF_HEADS, _HEADS = "heads.", "heads.safetensors"
"""What a learner asks states with: stages that ask the same go on with what those before have learned."""

NUM_VIDEOS, NUM_UNSEEN = 4000, 100
SEED = 0

_SHARES = (0.75, 0.25)
"""Of the cores, for language and masks; drawing statements is more work than drawing points."""


def train(
    folder: Path,
    *,
    num_videos: int = NUM_VIDEOS,
    num_unseen: int = NUM_UNSEEN,
    language: Sequence[Stage] = LANGUAGE,
    masks: Sequence[Stage] = MASKS,
    together: Sequence[Stage] = GLUS,
) -> Path:
    """Runs all stages that are not done yet.

    Args:
        folder: gets the rendered videos (2.5 MB each), and a folder per stage with logs, checkpoints and network
        num_videos: of the train split
        num_unseen: of the valid split, to follow the training by
        language, masks, together: stages in their order

    Returns:
        `glus-tiny`, the last stage's network in half precision, as it goes into the package
    """
    render(folder / "videos", num_videos, side=SIDE)
    render(folder / "unseen", num_unseen, side=SIDE, split="valid")
    start, joined = folder / "start", folder / "joined"
    if not start.exists():
        write_start(start, SEED)
    if not joined.exists():
        with ProcessPoolExecutor(len(_SHARES), mp_context=multiprocessing.get_context("spawn")) as processes:
            chain = partial(run_chain, folder, start)
            talker, painter = processes.map(chain, _SHARES, (language, masks))
        _join(talker, painter, joined)
    heads = folder / language[-1].name / _HEADS
    network, packed = run_chain(folder, joined, 1.0, together, heads=heads), folder / "glus-tiny"
    if not packed.exists():
        pack(network, packed)
    return packed


def pack(network: Path, packed: Path) -> None:
    """Writes a checkpoint as it ships, in half precision."""
    _save(_load(network).half(), packed, network)


def run_chain(folder: Path, start: Path, share: float, stages: Sequence[Stage], *, heads: Path | None = None) -> Path:
    """Runs stages one after the other, and returns the network of the last.

    Args:
        folder: of the training
        start: network that the first stage begins with
        share: of the cores
        stages: those that are done are skipped
        heads: that the first stage goes on with; by default none
    """
    cores = max(1, round(share * (os.cpu_count() or 1)))
    on_gpu = PartialState().device.type != "cpu"
    torch.set_num_threads(1 if on_gpu else cores)
    network = start
    for stage in stages:
        done = folder / stage.name / "network"
        if not done.exists():
            _run(stage, network, heads, folder, done, workers=max(1, cores - 1) if on_gpu else 0)
        network, heads = done, done.parent / _HEADS
    return network


def _run(stage: Stage, start: Path, heads: Path | None, folder: Path, done: Path, *, workers: int) -> None:
    glus, tokenizer, say = stage.prepare(_load(start)), LlamaTokenizer(start), partial(_say, stage.name)
    glus.requires_grad_(True)
    torch.manual_seed(stage.config.seed)  # of the heads that a learner has of its own
    learner = stage.make_learner(glus, tokenizer, folder / "videos")
    learner.network.train()
    known = load_file(heads) if heads and heads.exists() else {}
    own = learner.network.state_dict()
    learner.network.load_state_dict({name: t for name, t in known.items() if name in own}, strict=False)
    follow = Progress(glus, tokenizer, stage.config, folder / "unseen", say) if stage.learner is None else None
    began = time.perf_counter()
    outcome = run(
        learner,
        stage.config,
        done.parent,
        validate=follow,
        log=say,
        on_progress=partial(_say_losses, say),
        workers=workers,
    )
    if outcome.stopped_because != "finished":
        raise RuntimeError(f"stopped in stage {stage.name!r}: run the same command again to go on")
    say(f"done in {time.perf_counter() - began:.0f} s")
    own = {name: t for name, t in learner.network.state_dict().items() if name.startswith(_OF_HEADS)}
    save_file(known | own, done.parent / _HEADS)
    _save(glus, done, start)


def _join(language: Path, masks: Path, joined: Path) -> None:
    """One network of the parts that were trained apart."""
    glus = _load(language)
    glus.sam.load_state_dict(_load(masks).sam.state_dict())
    _save(glus, joined, language)


def _load(network: Path) -> GlusNetwork:
    return load_network(
        network,
        network / "clip",
        GlusConfig.read(network),
        device=PartialState().device,
        dtype=torch.float32,
    )


def _save(glus: GlusNetwork, folder: Path, base: Path) -> None:
    settings = glus.config.recorded | {"num_hidden_layers": glus.config.llama.num_hidden_layers}
    save_checkpoint(glus.state_dict(), folder, base=base, clip=base / "clip", run_settings=settings)


def _say(stage: str, text: str) -> None:
    print(f"{stage}: {text}", flush=True)


def _say_losses(say: Callable[[str], None], step: int, steps: int, losses: dict[str, float]) -> None:
    if step % 100 == 0:
        say(f"{step} of {steps}: " + ", ".join(f"{name} {value:.3f}" for name, value in losses.items()))
