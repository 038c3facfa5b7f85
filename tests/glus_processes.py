"""One of two processes that train GLUS: where some batches have a mask and some have none, against plain torch."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.training.config import LoraConfig, SamplingConfig, TrainingConfig
from fiftyone_refvos.training.glus_learner import GlusLearner
from fiftyone_refvos.training.loop import run
from tests.toy_runs import parameters, plain_training
from tests.training_data import NOTHING, TINY, MemorySource, MemoryVideo, glus

CONFIG = TrainingConfig(
    steps=2,
    batch_size=1,
    accumulation=2,
    warmup_steps=0,
    seed=3,  # in step 1 one process draws no mask and the other no other; in step 2 both draw one, and one none
    lora=LoraConfig(dropout=0.0),
    # a single query frame attends to no memory, where there is dropout, too
    sampling=SamplingConfig(query_frames=1, context_frames=4, no_target=True),
)


def learner() -> GlusLearner:
    """The tiny network on a video in which something is meant, and one in which nothing is."""
    videos = [MemoryVideo("dog"), MemoryVideo("nothing", expressions=(NOTHING,))]
    return GlusLearner(glus(), LlamaTokenizer(TINY), CONFIG, [MemorySource(videos, contrastive=False)], [1.0])


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    trained = learner()
    before = parameters(trained)
    run(trained, CONFIG, folder / "run")
    after, expected = parameters(trained), plain_training(learner(), CONFIG, num_processes=2)
    moves = {name: float((each - before[name]).norm()) for name, each in expected.items()}
    report = {
        "off": {name: float((after[name] - expected[name]).norm()) / move for name, move in moves.items() if move},
        "moved": [name for name, each in after.items() if not torch.equal(each, before[name])],
        "sums": {name: float(each.double().sum()) for name, each in after.items()},
    }
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
