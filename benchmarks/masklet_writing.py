"""How long it takes to write the masklets of a video into FiftyOne, and to read them back.

Three paths write the same 300 masks (100 frames of 480x854, 3 objects, new frames), in turn, in one process:

- ours: `fields.write_masklets`, from run-length masks;
- FiftyOne's own, from run-length masks: each is decoded, cropped by `fo.Detection.from_mask`, put into
  `sample.frames[n]["model"]`, and `sample.save()`;
- FiftyOne's own, from dense masks in memory, which hold 123 MB: the bound that ours must keep.

    python -m benchmarks.masklet_writing [--repeats 12]

prints a table and writes it to benchmarks/results/. MongoDB is the one that FiftyOne is set up with.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np

from benchmarks.machine import processor
from fiftyone_refvos import fields
from fiftyone_refvos.masklet import BoolArray, Expression, FrameResult, Masklet

NUM_FRAMES, NUM_OBJECTS, HEIGHT, WIDTH = 100, 3, 480, 854
RESULTS = Path(__file__).parent / "results"
LIMIT = 1.0  # of the time of FiftyOne's own path

ROWS = {
    "ours": "write: ours, from run-length masks",
    "own": "write: FiftyOne's own, from run-length masks",
    "own_dense": "write: FiftyOne's own, from dense masks",
    "ours_read": "read: ours, to run-length masks",
    "own_read": "read: FiftyOne's own, to detections (crops)",
}


def star(center: tuple[float, float], radius: float) -> BoolArray:
    """A star with a wavy outline, `(H, W) bool`: about 4 % of the frame at radius 75."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    y, x = rows - center[0], columns - center[1]
    return np.hypot(x, y) < radius * (1 + 0.3 * np.cos(7 * np.arctan2(y, x)))


def make_masks() -> BoolArray:
    """`(T, N, H, W)`: three stars that wander to the right and pulsate."""
    masks = np.zeros((NUM_FRAMES, NUM_OBJECTS, HEIGHT, WIDTH), dtype=bool)
    for t in range(NUM_FRAMES):
        for n in range(NUM_OBJECTS):
            masks[t, n] = star((200 + 20 * n, 150 + 230 * n + t), 65 + 10 * np.sin(t / 9))
    return masks


def make_masklets(masks: BoolArray) -> list[Masklet]:
    """One expression per object."""
    expressions = [Expression(str(n), f"the star number {n}") for n in range(NUM_OBJECTS)]
    score = np.array([0.5], dtype=np.float32)
    return Masklet.collect(
        (
            FrameResult(t, expression.id, masks[t, n : n + 1], score, True)
            for n, expression in enumerate(expressions)
            for t in range(NUM_FRAMES)
        ),
        expressions,
    )


def new_sample(dataset: fo.Dataset, masklets: list[Masklet]) -> fo.Sample:
    """A sample without frames, with the expressions of the masklets."""
    metadata = fo.VideoMetadata(total_frame_count=NUM_FRAMES, frame_width=WIDTH, frame_height=HEIGHT)
    sample = fo.Sample(filepath="/videos/stars.mp4", metadata=metadata)
    dataset.add_sample(sample)
    fields.add_expressions(sample, [masklet.expression.text for masklet in masklets])
    return sample


def write_dense(sample: fo.Sample, masks: BoolArray, masklets: list[Masklet]) -> None:
    """FiftyOne's own path from `(T, N, H, W)` masks."""
    instances = [fo.Instance() for _ in masklets]
    for t in range(NUM_FRAMES):
        detections = [
            fo.Detection.from_mask(
                masks[t, n],
                label=masklet.expression.text,
                confidence=float(masklet.scores[t, 0]),
                index=n + 1,
                instance=instances[n],
                expression_id=masklet.expression.id,
                object_id="1",
            )
            for n, masklet in enumerate(masklets)
        ]
        sample.frames[t + 1]["model"] = fo.Detections(detections=detections)
    sample.save()


def write_decoded(sample: fo.Sample, masklets: list[Masklet]) -> None:
    """FiftyOne's own path from run-length masks."""
    write_dense(sample, np.stack([list(m.dense()) for m in masklets], axis=1)[:, :, 0], masklets)


def read_objects(dataset: fo.Dataset, sample: fo.Sample) -> None:
    """FiftyOne's own way to read: all detections of the video as objects, whose masks are crops."""
    dataset.select(sample.id).values("frames.model")


def seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def run_round(dataset: fo.Dataset, masks: BoolArray, masklets: list[Masklet]) -> dict[str, float]:
    """The seconds of every path, each with a new sample.

    Raises:
        RuntimeError: if the paths did not write the same masks
    """
    ours, own, dense = (new_sample(dataset, masklets) for _ in range(3))
    taken = {
        "ours": seconds(lambda: fields.write_masklets(ours, "model", masklets)),
        "own": seconds(lambda: write_decoded(own, masklets)),
        "own_dense": seconds(lambda: write_dense(dense, masks, masklets)),
        "ours_read": seconds(lambda: fields.read_masklets(ours, "model")),
        "own_read": seconds(lambda: read_objects(dataset, ours)),
    }
    if not fields.read_masklets(ours, "model") == fields.read_masklets(dense, "model") == masklets:
        raise RuntimeError("the paths did not write the same masks")
    return taken


def measure(repeats: int) -> dict[str, list[float]]:
    """The seconds of every repeat of every path; the first round, which warms up, is left out."""
    masks = make_masks()
    masklets = make_masklets(masks)
    dataset = fo.Dataset()
    dataset.media_type = "video"  # so that the schema can be declared before there are samples
    try:
        fields.declare_masklet_schema(dataset, "model")
        rounds = [run_round(dataset, masks, masklets) for _ in range(repeats + 1)][1:]
    finally:
        dataset.delete()
    return {name: [taken[name] for taken in rounds] for name in ROWS}


def summarize(times: dict[str, list[float]]) -> dict[str, object]:
    paths = {
        name: {"median": round(statistics.median(values), 4), "min": round(min(values), 4)}
        for name, values in times.items()
    }
    # The ratio of each round, whose two sides the machine disturbs alike.
    ratios = {
        against: {
            "median": round(statistics.median(a / b for a, b in zip(times["ours"], times[against], strict=True)), 3),
            "of_minima": round(min(times["ours"]) / min(times[against]), 3),
        }
        for against in ("own", "own_dense")
    }
    return {
        "masks": f"{NUM_FRAMES} frames x {NUM_OBJECTS} masks of {HEIGHT}x{WIDTH}",
        "processor": processor(),
        "versions": {"fiftyone": fo.__version__, "python": platform.python_version()},
        "repeats": len(times["ours"]),
        "seconds": paths,
        "ratio_of_ours": ratios,
        "limit": LIMIT,
    }


def table(summary: dict[str, Any]) -> str:
    lines = [f"{summary['masks']}, {summary['repeats']} rounds in turn, {summary['processor']}", ""]
    lines += ["| path | median s | min s |", "|---|---|---|"]
    lines += [
        f"| {title} | {summary['seconds'][name]['median']:.3f} | {summary['seconds'][name]['min']:.3f} |"
        for name, title in ROWS.items()
    ]
    lines += ["", "| time of ours, as part of | median | minima | limit |", "|---|---|---|---|"]
    for against, ratio in summary["ratio_of_ours"].items():
        title = ROWS[against].removeprefix("write: ")
        lines.append(f"| {title} | {ratio['median']:.2f} | {ratio['of_minima']:.2f} | {LIMIT:.2f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=12, help="how often each path runs, at least 10 (default: 12)")
    summary = summarize(measure(parser.parse_args().repeats))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "masklet_writing.json").write_text(json.dumps(summary, indent=2) + "\n")
    (RESULTS / "masklet_writing.md").write_text(table(summary))
    print(table(summary))


if __name__ == "__main__":
    main()
