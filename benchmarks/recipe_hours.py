"""How long the whole recipe of glus-tiny would take on this machine: some steps of every stage, times its steps.

    python -m benchmarks.recipe_hours

writes benchmarks/results/recipe_hours.json and .md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import processor
from fiftyone_refvos.demo.rendered import render
from fiftyone_refvos.models.glus.config import GlusConfig
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.glus.weights import load_network
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from scripts.glus_tiny.network import SIDE, deeper, write_start
from scripts.glus_tiny.stages import GLUS, LANGUAGE, MASKS, Stage

RESULTS = Path(__file__).parent / "results"
VIDEOS = 24


def seconds_per_step(stage: Stage, glus: GlusNetwork, tokenizer: LlamaTokenizer, videos: Path, steps: int) -> float:
    """Drawing, forward and backward pass and the optimizer, on one thread; the first step does not count."""
    learner = stage.make_learner(glus.requires_grad_(True), tokenizer, videos)
    parameters = [each for each in learner.network.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    rng = np.random.default_rng(0)
    seconds = []
    for _ in range(1 + steps):
        began = time.perf_counter()
        learner.losses(learner.draw(rng), rng)["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.perf_counter() - began)
    return float(np.mean(seconds[1:]))


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="of each stage (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        start, videos = Path(name) / "start", Path(name) / "videos"
        write_start(start, 0)
        render(videos, VIDEOS, side=SIDE)
        tokenizer, cpu, grown = LlamaTokenizer(start), torch.device("cpu"), False
        for stage in (*MASKS, *LANGUAGE, *GLUS):
            glus = load_network(start, start / "clip", GlusConfig.read(start), device=cpu, dtype=torch.float32)
            grown = grown or stage.prepare is deeper
            seconds = seconds_per_step(stage, deeper(glus) if grown else glus, tokenizer, videos, options.steps)
            rows.append({"stage": stage.name, "steps": stage.config.steps, "seconds_per_step": round(seconds, 2)})
            print(rows[-1], flush=True)
    for row in rows:
        row["hours"] = round(row["steps"] * row["seconds_per_step"] / 3600, 1)
    total = sum(row["hours"] for row in rows)
    lines = [
        "# What the recipe of glus-tiny would take on a CPU",
        "",
        f"`python -m benchmarks.recipe_hours`; {processor()}, one thread. The mean of {options.steps} steps of each "
        "stage, times its steps; without validations.",
        "",
        "| stage | steps | seconds per step | hours |",
        "|---|---|---|---|",
        *(f"| {row['stage']} | {row['steps']} | {row['seconds_per_step']} | {row['hours']} |" for row in rows),
        f"| all | | | {total:.0f} |",
    ]
    figures = {"processor": processor(), "measured_steps": options.steps, "stages": rows}
    (RESULTS / "recipe_hours.json").write_text(json.dumps(figures, indent=2) + "\n")
    (RESULTS / "recipe_hours.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":  # rendering starts processes
    main()
