"""The GLUS paper's Table 4 in miniature: what global and local reasoning, the memory bank and the contrast loss add.

The joined parts of the recipe of glus-tiny are trained on single frames once; every cell goes on from there for the
same number of steps, and is measured on the same unseen demo videos. The row with key frames (KFS)
trains nothing: it takes the networks of the row before, and starts in the frames that kfs-tiny chooses. A finished
cell is kept in the folder; a killed run goes on at its last checkpoint, and the table says which cells are missing.
A folder is of one start, one selector, one number of steps and of test videos.

    python -m scripts.glus_tiny RECIPE
    python -m benchmarks.ablation FOLDER --parts RECIPE/joined --videos RECIPE/videos

writes benchmarks/results/ablation.json and .md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from benchmarks.machine import processor
from fiftyone_refvos.demo.expressions import KINDS
from fiftyone_refvos.demo.quality import measure
from fiftyone_refvos.demo.quality_card import weights_digest
from fiftyone_refvos.demo.rendered import RenderedVideos
from fiftyone_refvos.masklet import Expression, FrameResult
from fiftyone_refvos.models.glus.config import GlusConfig, GlusInference
from fiftyone_refvos.models.glus.inference import GlusSegmenter
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.glus.saving import save_checkpoint
from fiftyone_refvos.models.glus.weights import load_network
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.models.registry import SHIPPED
from fiftyone_refvos.models.segmenter import Segmenter
from fiftyone_refvos.models.selector.loading import load_selector
from fiftyone_refvos.models.selector.protocol import FrameSelector, best_frame
from fiftyone_refvos.training.config import LossConfig, SamplingConfig, TrainingConfig
from fiftyone_refvos.training.glus_learner import GlusLearner
from fiftyone_refvos.training.loop import run
from fiftyone_refvos.video import FrameSource

RESULTS = Path(__file__).parent / "results"
STEPS = 120
TEST_VIDEOS = 20
FRAME_STEPS = 600
SELECTOR = SHIPPED / "kfs-tiny"

_WITH_KEY_FRAMES = " + KFS"
_SAMPLING = SamplingConfig(context_frames=4, expressions=8, wording="inference", no_target=True)
_LOSSES = LossConfig(ce=0.5, bce=2.0, dice=1.0, contrastive=0.0)


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
        name: of the paper's row
        seeds: how often it is trained
        sampling: context and query frames
        memory: whether masks are remembered
        contrastive: weight of the object contrastive loss
        key_frames: whether segmentation starts in the frame that kfs-tiny chooses, not in the first one
    """

    name: str
    seeds: int
    sampling: SamplingConfig = _SAMPLING
    memory: bool = False
    contrastive: float = 0.0
    key_frames: bool = False

    def folder(self, parent: Path, seed: int) -> Path:
        """Of the training of a cell; key frames are chosen for networks that were trained without."""
        return parent / f"{_slug(self.name.removesuffix(_WITH_KEY_FRAMES))}-{seed}"

    def record(self, parent: Path, seed: int) -> Path:
        """Of a finished cell."""
        return parent / f"{_slug(self.name)}-{seed}.json"

    def config(self, seed: int, steps: int) -> TrainingConfig:
        """The training of one cell; all have the same number of masks in a step."""
        return replace(
            _config(seed, steps, self.sampling),
            memory=self.memory,
            losses=replace(_LOSSES, contrastive=self.contrastive),
        )


def _config(seed: int, steps: int, sampling: SamplingConfig) -> TrainingConfig:
    return TrainingConfig(
        steps=steps,
        batch_size=16 // sampling.query_frames,
        accumulation=1,
        learning_rate=5e-4,
        betas=(0.9, 0.98),
        warmup_steps=50,
        trainable="all_but_clip",
        gradient_checkpointing=False,
        lora=None,
        seed=seed,
        save_every=50,
        losses=_LOSSES,
        sampling=sampling,
    )


VARIANTS = (
    Variant("Global only", 1, replace(_SAMPLING, query_frames=1)),
    Variant("Local only", 1, replace(_SAMPLING, context_frames=0)),
    Variant("GLU", 3),
    Variant("GLU + MB", 3, memory=True),
    Variant("GLU + MB + OC", 3, memory=True, contrastive=0.1),
    Variant(f"GLU + MB + OC{_WITH_KEY_FRAMES}", 3, memory=True, contrastive=0.1, key_frames=True),
)


class FromKeyFrames(Segmenter):
    """A GLUS that starts in the frames that a selector chooses, unless it is told others."""

    def __init__(self, glus: GlusSegmenter, selector: FrameSelector) -> None:
        self._glus, self._selector = glus, selector

    @property
    def identity(self) -> Mapping[str, Any]:
        return {**self._glus.identity, "selector": dict(self._selector.identity)}

    def check(self, expression: Expression) -> None:
        self._glus.check(expression)
        self._selector.check(expression)

    def segment(
        self,
        frames: FrameSource,
        expressions: Sequence[Expression],
        *,
        key_frames: Mapping[str, int] | None = None,
    ) -> Iterator[FrameResult]:
        if key_frames is None:
            scores = self._selector.scores(frames, expressions)
            key_frames = {each.id: best_frame(scores[each.id], each, video=frames.name) for each in expressions}
        return self._glus.segment(frames, expressions, key_frames=key_frames)


def single_frames(folder: Path, parts: Path, videos: Path) -> Path:
    """The network that every cell starts from, trained unless it is there."""
    done = folder / "frames" / "network"
    if not done.exists():
        sampling = replace(_SAMPLING, query_frames=1)
        config = replace(_config(0, FRAME_STEPS, sampling), batch_size=16, learning_rate=6e-4, save_every=25)
        network, tokenizer = _load(parts), LlamaTokenizer(parts)
        _train(GlusLearner(network, tokenizer, config, [RenderedVideos(videos)], [1.0]), config, done.parent)
        settings = GlusConfig.read(parts).recorded
        save_checkpoint(network.state_dict(), done, base=parts, clip=parts / "clip", run_settings=settings)
    return done


def _load(folder: Path) -> GlusNetwork:
    device = PartialState().device
    network = load_network(folder, folder / "clip", GlusConfig.read(folder), device=device, dtype=torch.float32)
    return network.requires_grad_(True)


def _train(learner: GlusLearner, config: TrainingConfig, folder: Path) -> None:
    if run(learner, config, folder, on_progress=_say).stopped_because != "finished":
        raise SystemExit("stopped: run the same command again to go on")


def setting_of(variant: Variant, seed: int, *, start: Path, steps: int, tests: int) -> dict[str, Any]:
    """What a cell is of; cells with the same setting are the same but for the machine."""
    return {
        "variant": variant.name,
        "seed": seed,
        "steps": steps,
        "videos": tests,
        "start": weights_digest(start),
        "selector": weights_digest(SELECTOR) if variant.key_frames else None,
    }


def train_and_measure(
    variant: Variant, seed: int, *, folder: Path, start: Path, videos: Path, steps: int, tests: int
) -> dict[str, Any]:
    """One cell: its J&F per kind of expression and over all, and how long it took."""
    network, tokenizer = _load(start), LlamaTokenizer(start)
    config = variant.config(seed, steps)
    began = time.perf_counter()
    _train(GlusLearner(network, tokenizer, config, [RenderedVideos(videos)], [1.0]), config, folder)
    trained = time.perf_counter() - began
    glus = GlusSegmenter(network.requires_grad_(False).eval(), tokenizer, GlusInference())
    segmenter = FromKeyFrames(glus, load_selector(SELECTOR)) if variant.key_frames else glus
    quality = measure(segmenter, split="test", num_videos=tests)
    values = {kind: quality.kind(kind).mean for kind in KINDS if kind != "no_target"}
    found = [row.JF for row in quality.rows if row.has_target]
    return {
        **setting_of(variant, seed, start=start, steps=steps, tests=tests),
        "J&F": float(np.mean(found)),
        **values,
        "N-acc": quality.n_acc.mean,
        "T-acc": quality.t_acc.mean,
        "seconds": round(trained),  # of this process; less than the whole for a cell that was killed
        "machine": processor() if network.device.type == "cpu" else torch.cuda.get_device_name(network.device),
    }


def _say(step: int, steps: int, losses: object) -> None:
    if step % 50 == 0:
        print(f"  {step} of {steps}: {losses}", flush=True)


def _slug(name: str) -> str:
    return name.lower().replace(" + ", "-").replace(" ", "-")


def table(cells: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown: mean and standard deviation over seeds, and what is missing."""
    columns = ("J&F", "attribute", "relation", "motion", "multi", "N-acc", "T-acc")
    lines = ["| | seeds | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for variant in VARIANTS:
        own = [cell for cell in cells if cell["variant"] == variant.name]
        values = (_mean([cell[column] for cell in own]) for column in columns)
        lines.append(f"| {variant.name} | {len(own)} of {variant.seeds} | " + " | ".join(values) + " |")
    missing = sum(variant.seeds for variant in VARIANTS) - len(cells)
    return [*lines, "", f"{missing} cells are missing." if missing else "No cell is missing."]


def gains(cells: Sequence[dict[str, Any]]) -> list[str]:
    """What each part adds to the row before, over the seeds that both rows have."""
    lines = []
    for before, after in pairwise(VARIANTS):
        if after.seeds < 2:
            continue
        found = [
            {cell["seed"]: cell["J&F"] for cell in cells if cell["variant"] == each.name} for each in (before, after)
        ]
        differences = [found[1][seed] - found[0][seed] for seed in sorted(found[0].keys() & found[1].keys())]
        if len(differences) > 1:
            lines.append(f"- {after.name} over {before.name}: {_mean(differences, sign='+')} in J&F")
    title = "What is added, seed by seed (mean ± standard deviation of the differences):"
    return [title, "", *lines] if lines else []


def _mean(values: Sequence[float], *, sign: str = "") -> str:
    known = [100 * value for value in values if not math.isnan(value)]
    if not known:
        return "–"
    return f"{np.mean(known):{sign}.1f}" + (f" ± {np.std(known, ddof=1):.1f}" if len(known) > 1 else "")


def finished(record: Path, setting: Mapping[str, Any]) -> dict[str, Any] | None:
    """A cell that was measured before, None if it was not.

    Raises:
        SystemExit: for one of another setting, which no table should mix
    """
    if not record.exists():
        return None
    cell: dict[str, Any] = json.loads(record.read_text())
    for name, value in setting.items():
        if cell.get(name) != value:
            raise SystemExit(f"{record}: {name} was {cell.get(name)!r}, and is {value!r}: choose another folder")
    return cell


def keep(record: Path, cell: Mapping[str, Any]) -> None:
    """Writes a cell at once, or not at all."""
    unfinished = record.with_suffix(".part")
    unfinished.write_text(json.dumps(cell) + "\n")
    unfinished.replace(record)


def write(cells: Sequence[dict[str, Any]], results: Path) -> None:
    """Writes the results as they are now."""
    results.mkdir(parents=True, exist_ok=True)
    result = {"threads": torch.get_num_threads(), "cells": list(cells)}
    (results / "ablation.json").write_text(json.dumps(result, indent=2) + "\n")
    sizes = {(cell["steps"], cell["videos"]) for cell in cells}
    told = ", ".join(f"{steps} steps each, {videos} test videos" for steps, videos in sorted(sizes))
    machines = " and ".join(sorted({cell["machine"] for cell in cells}))
    text = [
        "# GLUS' ablation in miniature",
        "",
        f"From the joined parts of glus-tiny: {FRAME_STEPS} steps of single frames once, then {told}, on {machines}. "
        "J&F in percent, mean ± standard deviation over seeds.",
        "",
        *table(cells),
        "",
        *gains(cells),
    ]
    (results / "ablation.md").write_text("\n".join(text) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Trains and measures the cells that are missing, first one seed of each row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", type=Path, required=True, help="the network of the joined parts")
    parser.add_argument("--videos", type=Path, required=True, help="rendered videos of the train split")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--tests", type=int, default=TEST_VIDEOS, help="videos of the test split")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the tables go (default: %(default)s)")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    start = single_frames(arguments.folder, arguments.parts, arguments.videos)
    cells = []
    for seed in range(max(variant.seeds for variant in VARIANTS)):
        for variant in (each for each in VARIANTS if seed < each.seeds):
            record = variant.record(arguments.folder, seed)
            sizes = {"steps": arguments.steps, "tests": arguments.tests}
            cell = finished(record, setting_of(variant, seed, start=start, **sizes))
            if cell is None:
                print(f"{variant.name}, seed {seed}", flush=True)
                cell = train_and_measure(
                    variant,
                    seed,
                    folder=variant.folder(arguments.folder, seed),
                    start=start,
                    videos=arguments.videos,
                    **sizes,
                )
                keep(record, cell)
            cells.append(cell)
            write(cells, arguments.results)


if __name__ == "__main__":
    main()
