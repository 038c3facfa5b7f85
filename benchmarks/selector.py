"""What the key frame selector shares: all prompts of a video together against one prompt at a time.

Three ways to the same scores, which are compared:

- published: each (frame, expression) anew, its images through CLIP and its whole prompt through the language model;
- tokens kept: CLIP once per frame, but each prompt from its first word to its last;
- shared: as `LanguageFrameSelector` runs it.

The network has random weights; its words are those of glus-tiny, its CLIP works at 224 pixels as the published one
does. Time is CPU time of one thread, so that other programs on the machine do not count; on a GPU it is wall time.
The default sizes take minutes. The table is written only with --write.

Usage: python -m benchmarks.selector [--frames N] [--expressions N] [--hidden N] [--layers N] [--clip-width N]
    [--clip-layers N] [--device cpu] [--write]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPVisionConfig, CLIPVisionModel

from benchmarks.glus_expressions import EXPRESSIONS
from benchmarks.machine import processor
from fiftyone_refvos.demo import DemoConfig, generate, video_seed
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.selector.inference import LanguageFrameSelector, Work
from fiftyone_refvos.models.selector.loading import load_selector
from fiftyone_refvos.video import Frame
from tests.small_selector import one_prompt_at_a_time, whole_prompt_score, write_selector

RESULTS = Path(__file__).parent / "results"
SIZES = {"frames": 50, "expressions": 4, "hidden": 512, "layers": 8, "clip_width": 256, "clip_layers": 6}
Scores = dict[str, NDArray[np.float32]]


class Frames:
    """A demo video in memory, so that drawing it is not measured."""

    name = "demo"

    def __init__(self, num_frames: int) -> None:
        video = generate(video_seed("test", 0), DemoConfig(num_frames=num_frames))
        self._frames = list(video.frames())
        self.size = video.size

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, indices: Iterable[int]) -> Iterator[Frame]:
        return (self._frames[index] for index in indices)


def random_selector(folder: Path, options: argparse.Namespace) -> LanguageFrameSelector:
    """A selector of the given sizes with the published numbers of clusters."""
    clip = folder / "clip"
    sizes = {"hidden_size": options.clip_width, "intermediate_size": 4 * options.clip_width}
    layers = {"num_hidden_layers": options.clip_layers, "num_attention_heads": options.clip_width // 32}
    CLIPVisionModel(CLIPVisionConfig(**sizes, **layers, image_size=224, patch_size=14)).save_pretrained(clip)
    rates = {"spatial_cluster_rate0": 64, "spatial_cluster_rate1": 32, "spatial_cluster_rate2": 16}
    checkpoint = write_selector(
        folder / "selector",
        clip=clip,
        config={"use_cluster": True, **rates},
        hidden_size=options.hidden,
        intermediate_size=options.hidden * 11 // 4,
        num_hidden_layers=options.layers,
        num_attention_heads=options.hidden // 64,
        max_position_embeddings=4096,
        mm_hidden_size=options.clip_width,
    )
    return load_selector(checkpoint, clip_path=clip, device=options.device, dtype="float32")


def tokens_kept(selector: LanguageFrameSelector, frames: Frames, expressions: Sequence[Expression]) -> Scores:
    """CLIP and merging once per frame, prompts one at a time."""
    scores = {expression.id: np.empty(len(frames), dtype=np.float32) for expression in expressions}
    scorer = selector.open(frames)
    for context in scorer.contexts:
        tokens = scorer.visual_tokens(context)
        for target, own in zip(context, tokens, strict=True):
            for expression in expressions:
                scores[expression.id][target] = whole_prompt_score(selector, expression, [*tokens, own])
    return scores


def published_work(selector: LanguageFrameSelector, frames: Frames, expressions: Sequence[Expression]) -> Work:
    """What the published program computes."""
    work = Work()
    for context in selector.open(frames).contexts:
        for expression in expressions:
            prompt = selector.prompts.write(expression.text, len(context))
            work.clip_encodes += len(context) * prompt.num_images
            work.forwards += len(context)
            work.positions += len(context) * selector.prompts.length(prompt)
    return work


def measure(run: Callable[[], Scores], device: str) -> tuple[float, Scores]:
    """Seconds of a run, and its scores."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    scores = run()
    return clock() - start, scores


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Runs the three ways, checks that they agree, and counts."""
    frames, expressions = Frames(options.frames), EXPRESSIONS[: options.expressions]
    with tempfile.TemporaryDirectory() as folder:
        selector = random_selector(Path(folder), options)
    scorer = selector.open(frames)
    list(scorer.answers(expressions))  # counts, and warms up
    ways: dict[str, Callable[[], Scores]] = {
        "published": lambda: one_prompt_at_a_time(selector, frames, expressions),
        "tokens kept": lambda: tokens_kept(selector, frames, expressions),
        "shared": lambda: selector.scores(frames, expressions),
    }
    seconds, scores = {}, {}
    for name, run in ways.items():
        seconds[name], scores[name] = measure(run, options.device)
    difference = max(
        float(np.abs(scores["published"][e.id] - scores[way][e.id]).max()) for e in expressions for way in ways
    )
    return {
        "options": {name: value for name, value in vars(options).items() if name != "write"},
        "machine": processor() if options.device == "cpu" else torch.cuda.get_device_name(),
        "seconds": seconds,
        "ratio": {name: value / seconds["shared"] for name, value in seconds.items()},
        "largest_difference": difference,
        "work": {"published": asdict(published_work(selector, frames, expressions)), "shared": asdict(scorer.work)},
    }


def table(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    options, work = result["options"], result["work"]
    before, after = work["published"], work["shared"]
    given = [f" --{name.replace('_', '-')} {options[name]}" for name, size in SIZES.items() if options[name] != size]
    lines = [
        "# Scores of all frames, prompts together against one at a time",
        "",
        f"`python -m benchmarks.selector{''.join(given)}`; "
        f"{options['frames']} frames, {options['expressions']} expressions, fp32, "
        f"random weights: language model {options['layers']} layers of {options['hidden']}, CLIP "
        f"{options['clip_layers']} layers of {options['clip_width']}; {result['machine']}. The scores differ by at "
        f"most {result['largest_difference']:.1e}.",
        "",
        "| way | s | ratio to shared |",
        "|---|---|---|",
        *(f"| {way} | {value:.1f} | {result['ratio'][way]:.2f} |" for way, value in result["seconds"].items()),
        "",
        "| counted | published | shared |",
        "|---|---|---|",
        *(f"| {name} | {before[name]:,} | {after[name]:,} |" for name in after),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measures, prints, and writes the table if asked to."""
    parser = argparse.ArgumentParser(description="Prompts of the key frame selector together and one at a time")
    for name, default in SIZES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = compare(options)
    print(table(result))
    if options.write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / "selector.json").write_text(json.dumps(result, indent=2) + "\n")
        (RESULTS / "selector.md").write_text(table(result))


if __name__ == "__main__":
    main()
