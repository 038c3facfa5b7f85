"""How well mllmseg-tiny segments single frames of demo videos that nobody trained on.

Two frames of each of the first test videos, and the expressions that one frame answers: of looks and of places. An
expression whose objects are not in the frame has no target there. Usage: python -m benchmarks.mllmseg_quality
[--videos 40] [--picture masks.png]; writes benchmarks/results/mllmseg_quality.md and .json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.machine import processor
from fiftyone_refvos.demo.expressions import DemoExpression
from fiftyone_refvos.demo.facts import PLACES
from fiftyone_refvos.demo.quality_card import weights_digest
from fiftyone_refvos.demo.video import DemoVideo, generate
from fiftyone_refvos.demo.world import video_seed
from fiftyone_refvos.masklet import BoolArray, Expression
from fiftyone_refvos.metrics import IMAGE_PROTOCOLS, ImageScore, score_image
from fiftyone_refvos.models.mllmseg.inference import MllmsegSegmenter
from fiftyone_refvos.models.mllmseg.loading import load_mllmseg
from fiftyone_refvos.models.registry import SHIPPED
from fiftyone_refvos.overlay import draw_masks, expression_colors

RESULTS = Path(__file__).parent / "results"
KINDS = ("attribute", "relation", "multi")
FRAMES = (0.25, 0.75)  # where in a video
COLUMNS = 6
SMALL = 4  # videos whose figures are stored by themselves, for a test to measure again
FIGURES = ("gIoU", "cIoU", "N-acc", "T-acc")


@dataclass(frozen=True)
class FrameScore:
    """One expression in one frame.

    Attributes:
        video: its number
        kind: of the expression; "no_target" where nothing that it means is in the frame
        score: what protocols count
    """

    video: int
    kind: str
    score: ImageScore


def shown_in(video: DemoVideo, frame: int) -> list[tuple[DemoExpression, BoolArray]]:
    """The expressions that one frame answers, with their true masks `(H, W)`."""
    return [
        (each, video.targets(each, frame).any(axis=0) if each.object_ids else np.zeros(video.size, dtype=bool))
        for each in video.expressions
        if each.meaning.clause is None or each.meaning.clause.name in PLACES
    ]


def measure(segmenter: MllmsegSegmenter, num_videos: int) -> Iterator[FrameScore]:
    """Scores the expressions of all frames of the first test videos."""
    for number in range(num_videos):
        video = generate(video_seed("test", number))
        for frame in (int(share * len(video)) for share in FRAMES):
            asked = shown_in(video, frame)
            questions = [Expression(each.id, each.text) for each, _ in asked]
            results = segmenter.segment_image(video.frame(frame), questions)
            for (expression, truth), result in zip(asked, results, strict=True):
                score = score_image(
                    truth, result.unrejected, image=(number, frame), no_target=not result.found, size=video.size
                )
                yield FrameScore(number, expression.kind if truth.any() else "no_target", score)


def figures(scores: Sequence[FrameScore]) -> dict[str, dict[str, float]]:
    """By kind mIoU, oIoU and Pr@0.5 of the expressions with a target; over all gIoU, cIoU, N-acc, T-acc. Percent."""
    table = {}
    for kind in KINDS:
        values = IMAGE_PROTOCOLS["res"].summarize([each.score for each in scores if each.kind == kind])
        table[kind] = {name: values[name] for name in ("mIoU", "oIoU", "Pr@0.5")}
    values = IMAGE_PROTOCOLS["gres"].summarize([each.score for each in scores])
    table["all"] = {name: values[name] * (100 if name.endswith("acc") else 1) for name in FIGURES}
    return table


def text(table: dict[str, dict[str, float]], scores: Sequence[FrameScore], num_videos: int) -> str:
    """The figures as Markdown."""
    counts = {kind: sum(each.kind == kind for each in scores) for kind in (*KINDS, "no_target")}
    lines = [
        "# mllmseg-tiny on frames of unseen demo videos",
        "",
        f"`python -m benchmarks.mllmseg_quality`; two frames of each of the first {num_videos} test videos",
        f"(240x426), each expression asked on its own; CPU, float32, {processor()}. All in percent.",
        "",
        "| expressions with a target | count | mIoU | oIoU | Pr@0.5 |",
        "|---|---|---|---|---|",
    ]
    for kind in KINDS:
        cells = " | ".join(f"{table[kind][name]:.1f}" for name in ("mIoU", "oIoU", "Pr@0.5"))
        lines.append(f"| {kind} | {counts[kind]} | {cells} |")
    lines += ["", "| all, by the protocol `gres` | " + " | ".join(FIGURES) + " |", "|---" * (len(FIGURES) + 1) + "|"]
    cells = " | ".join(f"{table['all'][name]:.1f}" for name in FIGURES)
    lines.append(f"| {len(scores)}, {counts['no_target']} without a target | {cells} |")
    return "\n".join(lines) + "\n"


def write_picture(path: Path, segmenter: MllmsegSegmenter, num_videos: int) -> None:
    """A sheet of masks over frames, a video a row."""
    rows = []
    for number in range(num_videos):
        video = generate(video_seed("test", number))
        frame = int(FRAMES[0] * len(video))
        asked = [Expression(each.id, each.text) for each, truth in shown_in(video, frame) if truth.any()][:COLUMNS]
        image = video.frame(frame)
        row = [image]
        for result in segmenter.segment_image(image, asked):
            row.append(draw_masks(image, [result.mask], expression_colors(1)))
            print(number, len(row) - 1, result.expression.text)
        row += [np.zeros_like(image)] * (COLUMNS + 1 - len(row))
        rows.append(np.concatenate(row, axis=1))
    Image.fromarray(np.concatenate(rows)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED / "mllmseg-tiny")
    parser.add_argument("--videos", type=int, default=40, help="how many test videos (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--picture", type=Path, help="a PNG of some masks, and nothing else")
    options = parser.parse_args()
    torch.set_num_threads(1)
    segmenter = load_mllmseg(options.checkpoint, device="cpu", dtype="float32")
    if options.picture:
        write_picture(options.picture, segmenter, min(options.videos, 8))
        return
    scores = list(measure(segmenter, options.videos))
    table = figures(scores)
    first = [each for each in scores if each.video < SMALL]
    content = {
        "weights": weights_digest(options.checkpoint),
        "videos": options.videos,
        "figures": table,
        "first": {"videos": SMALL, "figures": figures(first)},
    }
    (options.results / "mllmseg_quality.json").write_text(json.dumps(content, indent=2) + "\n")
    (options.results / "mllmseg_quality.md").write_text(text(table, scores, options.videos))
    print(text(table, scores, options.videos))


if __name__ == "__main__":
    main()
