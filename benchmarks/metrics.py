"""How long J and F of a frame take: ours, the straightforward formulation, and the library vos-benchmark.

All run in this process, on one thread, on the same masks: a star of 0.9 %, 7.4 % or 35 % of the frame, and the
same star 5 pixels away as prediction; eight frames of each kind, so that no mask stays in the first caches. Times
are CPU time per frame, the minimum over the repeats, which alternate between the contestants. `far` is no part of
the requirements: predictions 40 pixels away, where few boundary pixels match and ours has to look at each.

- on arrays: `score_frame` on bool arrays in memory, against the formulation of davis2017-evaluation (all passes over
  the whole frame, two dilations by a disk), and against `Evaluator.feed_frame` of vos-benchmark on label maps, for
  which ours takes the object out of the label maps too;
- from RLE: `score_frame` on COCO RLEs, against decoding them with pycocotools and the same formulation.

    pip install --no-deps vos-benchmark   # its opencv-python would overwrite opencv-python-headless
    python -m benchmarks.metrics [--repeats 15]

checks that all results are equal, prints a table and writes it to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from benchmarks.machine import processor
from fiftyone_refvos.masklet import BoolArray, encode
from fiftyone_refvos.metrics import score_frame

RESULTS = Path(__file__).parent / "results"
SIZES = ((480, 854), (720, 1280))
AREAS = {"small": 0.009, "medium": 0.074, "large": 0.35}
FRAMES = 8
NEAR, FAR = 5, 40  # pixels between truth and prediction

# name: what is faster, what it is compared with, on which kinds, and per size what is required and aimed at
RATIOS: dict[str, tuple[str, str, tuple[str, ...], tuple[float | None, ...], tuple[float | None, ...]]] = {
    "arrays, over straightforward": ("ours", "straightforward", (*AREAS,), (6, 12), (10, 20)),
    "arrays, over straightforward, small": ("ours", "straightforward", ("small",), (None, 20), (None, None)),
    "arrays, over vos-benchmark": ("ours_labels", "vos_benchmark", (*AREAS,), (8, 15), (15, 28)),
    "from RLE, over decoding and straightforward": ("ours_rle", "straightforward_rle", (*AREAS,), (5, 10), (8, 15)),
}
ROWS = {
    "straightforward": "straightforward, arrays",
    "vos_benchmark": "vos-benchmark, label maps",
    "straightforward_rle": "decode RLE, then straightforward",
    "ours": "ours, arrays",
    "ours_labels": "ours, label maps",
    "ours_rle": "ours, RLE",
}

Scores = tuple[float, float]


def straightforward(
    truth: NDArray[Any], prediction: NDArray[Any], void: NDArray[Any] | None = None, bound_th: float = 0.008
) -> Scores:
    """J and F as the definition says and davis2017-evaluation computes them: everything over the whole frame.

    Args:
        truth: `(H, W)`, what is not 0 is inside
        prediction: likewise
        void: pixels that do not count
        bound_th: tolerance of F, as a share of the diagonal, or in pixels from 1 on
    """
    kept = np.logical_not(np.zeros(truth.shape, dtype=bool) if void is None else void.astype(bool))
    true, predicted = truth.astype(bool), prediction.astype(bool)
    inside = np.sum((predicted & true) & kept)
    union = np.sum((predicted | true) & kept)
    j = 1.0 if union == 0 else float(inside / union)
    radius = int(bound_th if bound_th >= 1 else np.ceil(bound_th * np.linalg.norm(truth.shape)))
    offsets = np.arange(-radius, radius + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).astype(np.uint8)
    predicted_edge, true_edge = boundary(prediction * kept), boundary(truth * kept)
    near_prediction = cv2.dilate(predicted_edge.astype(np.uint8), disk)
    near_truth = cv2.dilate(true_edge.astype(np.uint8), disk)
    num_predicted, num_true = np.sum(predicted_edge), np.sum(true_edge)
    if num_predicted and num_true:
        precision = np.sum(predicted_edge * near_truth) / float(num_predicted)
        recall = np.sum(true_edge * near_prediction) / float(num_true)
    else:
        precision, recall = float(num_predicted == 0), float(num_true == 0)
    return j, float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def boundary(mask: NDArray[Any]) -> BoolArray:
    """The boundary map `(H, W)` of Martin's seg2bmap: pixels unlike the right, lower or lower right neighbour."""
    inside = mask.astype(bool)
    right, below, diagonal = np.zeros_like(inside), np.zeros_like(inside), np.zeros_like(inside)
    right[:, :-1], below[:-1], diagonal[:-1, :-1] = inside[:, 1:], inside[1:], inside[1:, 1:]
    edge = (inside ^ right) | (inside ^ below) | (inside ^ diagonal)
    edge[-1] = inside[-1] ^ right[-1]
    edge[:, -1] = inside[:, -1] ^ below[:, -1]
    edge[-1, -1] = False
    return edge


@dataclass(frozen=True)
class Frame:
    """One pair of masks in all forms: arrays `(H, W) bool`, label maps of uint8, and RLEs."""

    truth: BoolArray
    prediction: BoolArray

    @classmethod
    def star(cls, size: tuple[int, int], area: float, shift: int, turn: float) -> Frame:
        """A star that fills a share `area` of the frame, and the same star `shift` pixels further down and right."""
        reach = _reach(size, -shift / 2, turn)
        radius = np.sort(reach, axis=None)[round(area * size[0] * size[1])]
        return cls(reach <= radius, _reach(size, shift / 2, turn) <= radius)


def _reach(size: tuple[int, int], offset: float, turn: float) -> NDArray[np.float64]:
    """How large a star around the centre, moved by `offset`, must be to cover each pixel, `(H, W)`."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    y, x = rows - size[0] // 2 - offset, columns - size[1] // 2 - offset
    return np.hypot(x, y) / (1 + 0.3 * np.cos(7 * np.arctan2(y, x) + turn))


def contestants(frames: Sequence[Frame]) -> dict[str, Callable[[], list[Scores]]]:
    """The ways to score the frames, each ready to run; vos-benchmark only if it is installed."""
    pairs = [(frame.truth, frame.prediction) for frame in frames]
    labels = [(truth.astype(np.uint8), prediction.astype(np.uint8)) for truth, prediction in pairs]
    rles = [tuple(encode(np.stack(pair))) for pair in pairs]

    def ours(masks: Any) -> Scores:
        score = score_frame(*masks)
        return score.J, score.F

    def decoded(rle: Any) -> NDArray[np.uint8]:
        return np.ascontiguousarray(coco_mask.decode(rle))

    runs: dict[str, Callable[[], list[Scores]]] = {
        "straightforward": lambda: [straightforward(*pair) for pair in pairs],
        "ours": lambda: [ours(pair) for pair in pairs],
        "ours_labels": lambda: [ours((truth == 1, prediction == 1)) for truth, prediction in labels],
        "straightforward_rle": lambda: [straightforward(*map(decoded, pair)) for pair in rles],
        "ours_rle": lambda: [ours(pair) for pair in rles],
    }
    if importlib.util.find_spec("vos_benchmark"):
        from vos_benchmark.evaluator import Evaluator

        def library(truth: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> Scores:
            evaluator = Evaluator()
            evaluator.feed_frame(prediction, truth)
            return float(evaluator.object_iou[1][0]), float(evaluator.boundary_f[1][0])

        runs["vos_benchmark"] = lambda: [library(*pair) for pair in labels]
    return runs


def measure(frames: Sequence[Frame], repeats: int) -> dict[str, float]:
    """CPU milliseconds per frame of every contestant.

    Raises:
        RuntimeError: if two of them do not get exactly the same J and F
    """
    runs = contestants(frames)
    expected = runs["straightforward"]()
    best = dict.fromkeys(runs, math.inf)
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.thread_time_ns()
            scores = run()
            best[name] = min(best[name], time.thread_time_ns() - start)
            if scores != expected:
                raise RuntimeError(f"{name} got {scores}, the straightforward formulation {expected}")
    return {name: taken / 1e6 / len(frames) for name, taken in best.items()}


def run(repeats: int) -> dict[str, Any]:
    """All times and ratios, as they are written to the results."""
    cv2.setNumThreads(1)
    kinds = {name: (area, NEAR) for name, area in AREAS.items()} | {"far": (AREAS["medium"], FAR)}
    times: dict[str, dict[str, dict[str, float]]] = {}
    for size in SIZES:
        for kind, (area, shift) in kinds.items():
            frames = [Frame.star(size, area, shift, turn) for turn in np.linspace(0, 6, FRAMES)]
            times.setdefault(f"{size[0]}x{size[1]}", {})[kind] = measure(frames, repeats)
    return {
        "processor": processor(),
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "opencv": cv2.__version__},
        "repeats": repeats,
        "milliseconds": times,
        "ratios": {name: ratios(times, name) for name in RATIOS},
    }


def ratios(times: dict[str, dict[str, dict[str, float]]], name: str) -> dict[str, float]:
    """Per size how many times faster ours is over the sum of the kinds; what was not run is left out."""
    ours, other, kinds, _, _ = RATIOS[name]
    return {
        size: round(sum(by_kind[kind][other] for kind in kinds) / sum(by_kind[kind][ours] for kind in kinds), 2)
        for size, by_kind in times.items()
        if all(other in by_kind[kind] for kind in kinds)
    }


def table(summary: dict[str, Any]) -> str:
    times = summary["milliseconds"]
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    columns = [(size, kind) for size, by_kind in times.items() for kind in by_kind]
    lines = [
        f"CPU ms per frame, one thread, minimum of {summary['repeats']} repeats, {summary['processor']}, {versions}; "
        "all results equal to the last bit",
        "",
        "| | " + " | ".join(f"{size} {kind}" for size, kind in columns) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for name, title in ROWS.items():
        cells = [times[size][kind].get(name) for size, kind in columns]
        lines.append(f"| {title} | " + " | ".join("-" if ms is None else f"{ms:.2f}" for ms in cells) + " |")
    lines += ["", "| times faster, small + medium + large | size | ratio | required | aim |", "|---|---|---|---|---|"]
    for name, by_size in summary["ratios"].items():
        for ratio, limit, aim, size in zip(by_size.values(), *RATIOS[name][3:], by_size, strict=True):
            limits = " | ".join("-" if value is None else f"{value:g}" for value in (limit, aim))
            lines.append(f"| {name} | {size} | {ratio:.1f} | {limits} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="at least 10")
    summary = run(max(10, parser.parse_args().repeats))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n")
    (RESULTS / "metrics.md").write_text(table(summary))
    print(table(summary))


if __name__ == "__main__":
    main()
