"""How long five models take to vote on a frame of 480x854: ours, on run lengths, and the plain ways, on pixels.

The plain ways are what users write with numpy and pycocotools. One decodes every mask, stacks them, takes the sum
over the models, `np.stack(decoded).sum(axis=0)`, compares it with half of their number, and encodes the result. One
does so in floats, and takes the mean. The third is the cheapest: all masks are decoded at once, and summed in bytes.
Ours is `ensemble.vote`, from RLEs to RLEs as well; it also tells how much the models agree, which the plain ways do
not.

All vote on the same masks in this process, on one thread: stars of 0.9 %, 7.4 % or 35 % of the frame, which every
model sees a few pixels elsewhere, in 40 frames of a video. Times are CPU time per frame, the minimum over the
repeats, which alternate between the ways. How long the plain ways take depends on the allocator, which maps and
clears their arrays anew for each frame, or does not: they are measured as they run by themselves, and once more with
glibc told to keep memory that was freed. Required is 10 times less than the sum as it runs by itself.

    python -m benchmarks.voting [--repeats 15]

checks that all votes are equal, prints a table and writes it to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from benchmarks.machine import processor
from benchmarks.metrics import AREAS, Frame
from fiftyone_refvos.ensemble import vote
from fiftyone_refvos.masklet import RLE, Expression, Masklet, encode

RESULTS = Path(__file__).parent / "results"
SIZE = (480, 854)
MODELS, FRAMES = 5, 40
PLAIN = {"sum": "stacked, summed", "mean": "mean of floats", "bytes": "sum of bytes"}
REQUIRED = 10.0  # times less than the sum as it runs by itself
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def keep_freed_memory() -> None:
    """Tells glibc not to give memory back to the system, which favours the plain ways; other systems decide alone."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, 1 << 30)


def make_members(area: float) -> dict[str, Masklet]:
    """What each model sees of a star that turns."""
    members = {}
    for model in range(MODELS):
        masks = [Frame.star(SIZE, area, 3 * model, t / 5 + model / 20).prediction for t in range(FRAMES)]
        members[f"model {model}"] = Masklet(
            Expression("0", "the star"),
            SIZE,
            tuple(range(FRAMES)),
            tuple(tuple(encode(mask[None])) for mask in masks),
            np.ones((FRAMES, 1), dtype=np.float32),
            np.ones(FRAMES, dtype=bool),
        )
    return members


def sum_vote(rles: Sequence[RLE]) -> RLE:
    """Decode, stack, sum, compare, encode."""
    count = np.stack([coco_mask.decode(rle) for rle in rles]).sum(axis=0)
    voted: RLE = coco_mask.encode(np.asfortranarray((count > len(rles) / 2).astype(np.uint8)))
    return voted


def mean_vote(rles: Sequence[RLE]) -> RLE:
    """Decode, stack, mean, compare, encode."""
    stack = np.stack([coco_mask.decode(rle).astype(np.float32) for rle in rles])
    voted: RLE = coco_mask.encode(np.asfortranarray((stack.mean(axis=0) > 0.5).astype(np.uint8)))
    return voted


def byte_vote(rles: Sequence[RLE]) -> RLE:
    """Decode all at once, sum, compare, encode."""
    count = coco_mask.decode([*rles]).sum(axis=2, dtype=np.uint8)
    voted: RLE = coco_mask.encode(np.asfortranarray((count > len(rles) // 2).astype(np.uint8)))
    return voted


def contestants(members: Mapping[str, Masklet]) -> dict[str, Callable[[], list[RLE]]]:
    """The ways to vote on all frames, each ready to run."""
    frames = [[member.masks[t][0] for member in members.values()] for t in range(FRAMES)]
    weights = {name: 1 + n / 10 for n, name in enumerate(members)}
    return {
        "sum": lambda: [sum_vote(rles) for rles in frames],
        "mean": lambda: [mean_vote(rles) for rles in frames],
        "bytes": lambda: [byte_vote(rles) for rles in frames],
        "ours": lambda: [rle for (rle,) in vote(members).masklet.masks],
        "weighted": lambda: [rle for (rle,) in vote(members, weights=weights).masklet.masks],
    }


def measure(members: Mapping[str, Masklet], repeats: int) -> dict[str, float]:
    """The milliseconds per frame of every contestant.

    Raises:
        RuntimeError: if ours does not vote as the plain ways
    """
    runs = contestants(members)
    if any(runs[way]() != runs["ours"]() for way in PLAIN):
        raise RuntimeError("the votes differ")
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            run()
            taken[name].append(time.process_time() - start)
    return {name: 1000 * min(values) / FRAMES for name, values in taken.items()}


def summarize(
    times: Mapping[str, Mapping[str, float]], kept: Mapping[str, Mapping[str, float]], repeats: int
) -> dict[str, Any]:
    """The figures with all that they depend on: as it runs by itself, and with freed memory kept."""
    runs = {
        name: {
            "ms_per_frame": {
                kind: {way: round(value, 3) for way, value in row.items()} for kind, row in found.items()
            },
            "ratio": {kind: {way: round(row[way] / row["ours"], 1) for way in PLAIN} for kind, row in found.items()},
        }
        for name, found in (("as_it_is", times), ("memory_kept", kept))
    }
    return {
        "processor": processor(),
        "versions": {"numpy": np.__version__, "python": platform.python_version()},
        "repeats": repeats,
        "models": MODELS,
        "frames": FRAMES,
        "size": list(SIZE),
        **runs,
        "required": REQUIRED,
    }


def table(summary: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    ratios = [f"{way} / ours" for way in PLAIN]
    lines = [
        f"{MODELS} models vote on {SIZE[0]}x{SIZE[1]}, milliseconds of CPU time per frame, minimum of "
        f"{summary['repeats']} repeats in turn, {summary['processor']}",
        "",
        f"| mask | memory | {' | '.join(PLAIN.values())} | ours | ours, weighted | {' | '.join(ratios)} |",
        f"|---|---|{'---|' * (2 * len(PLAIN) + 2)}",
    ]
    for name, shown in (("as_it_is", "as it is"), ("memory_kept", "kept")):
        for kind, row in summary[name]["ms_per_frame"].items():
            times = " | ".join(f"{row[way]:.3f}" for way in (*PLAIN, "ours", "weighted"))
            gains = " | ".join(f"**{summary[name]['ratio'][kind][way]:.1f}**" for way in PLAIN)
            share = f"{kind}, {100 * AREAS[kind]:.1f} % of the frame"
            lines.append(f"| {share} | {shown} | {times} | {gains} |")
    needed = summary["required"]
    reached = {
        name: ", ".join(kind for kind, ratio in summary[name]["ratio"].items() if ratio["sum"] >= needed) or "none"
        for name in ("as_it_is", "memory_kept")
    }
    required = (
        f"Required is {needed:.0f} for the sum of what was stacked. It is reached for these masks: "
        f"{reached['as_it_is']} (memory as it is); {reached['memory_kept']} (kept)."
    )
    return "\n".join([*lines, "", required]) + "\n"


def main() -> None:
    """Measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="how often each way runs (default: %(default)s)")
    repeats = parser.parse_args().repeats
    members = {kind: make_members(area) for kind, area in AREAS.items()}
    times = {kind: measure(each, repeats) for kind, each in members.items()}
    keep_freed_memory()
    kept = {kind: measure(each, repeats) for kind, each in members.items()}
    summary = summarize(times, kept, repeats)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "voting.json").write_text(json.dumps(summary, indent=2) + "\n")
    (RESULTS / "voting.md").write_text(table(summary))
    print(table(summary))


if __name__ == "__main__":
    main()
