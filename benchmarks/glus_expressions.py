"""How much several expressions of a video share: all in one pass against one pass each, and the backward pass.

Networks: the golden one, whose SAM2 works at 1024 pixels as the published one does and whose language model is
tiny, and glus-tiny, where the language model is most of the work. CPU time of one thread, so that other
programs on the machine do not count. Usage: python -m benchmarks.glus_expressions
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch

from benchmarks.machine import processor
from fiftyone_refvos.demo import DemoConfig, generate, video_seed
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.glus import inference
from fiftyone_refvos.models.glus.frames import FrameEncoder
from fiftyone_refvos.models.loading import load_segmenter
from fiftyone_refvos.models.segmenter import Segmenter
from fiftyone_refvos.video import Frame
from tests.shared import shared_root

RESULTS = Path(__file__).parent / "results"
NUM_FRAMES = 12
TEXTS = (
    "the red circle",
    "the large square",
    "all shapes",
    "the one that moves",
    "the star",
    "a dog",
    "it",
    "I",
)
EXPRESSIONS = [Expression(str(number), text) for number, text in enumerate(TEXTS)]


class CountingEncoder(FrameEncoder):
    """Counts what all passes encode."""

    total: ClassVar[list[int]] = [0, 0]

    def _encode_clip(self, pixels):  # type: ignore[no-untyped-def]
        self.total[0] += len(pixels)
        return super()._encode_clip(pixels)

    def features(self):  # type: ignore[no-untyped-def]
        before = self.sam_encodes
        features = super().features()
        self.total[1] += self.sam_encodes - before
        return features


class Frames:
    """A demo video in memory, so that drawing it is not measured."""

    name = "demo"

    def __init__(self) -> None:
        video = generate(video_seed("test", 0), DemoConfig(num_frames=NUM_FRAMES))
        self._frames = list(video.frames())
        self.size = video.size

    def __len__(self) -> int:
        return len(self._frames)

    def read(self, indices: Iterable[int]) -> Iterator[Frame]:
        return (self._frames[index] for index in indices)


def cost(segmenter: Segmenter, groups: list[list[Expression]], key_frame: int) -> tuple[float, int, int]:
    """CPU seconds, CLIP encodes and SAM2 encodes of one pass per group of expressions."""
    frames = Frames()
    CountingEncoder.total[:] = [0, 0]
    start = time.process_time()
    for group in groups:
        for _ in segmenter.segment(frames, group, key_frames={e.id: key_frame for e in group}):
            pass
    return time.process_time() - start, *CountingEncoder.total


def networks() -> Iterator[tuple[str, Segmenter]]:
    """The golden network, where there is one, and glus-tiny."""
    golden = shared_root() / "golden" / "glus" / "plain"
    if golden.is_dir():
        paths = {"checkpoint": golden / "checkpoint", "clip_path": golden / "clip_vision_tower"}
        yield (
            "golden, SAM2 at 1024 px",
            load_segmenter("glus", sam_config=golden / "sam2_config.yaml", **paths),
        )
    yield "glus-tiny, SAM2 at 128 px", load_segmenter("glus-tiny")


def main() -> None:
    """Measures, prints, and writes the table."""
    torch.set_num_threads(1)
    inference.FrameEncoder = CountingEncoder  # type: ignore[misc]
    rows = []
    for name, segmenter in networks():
        for key_frame in (0, NUM_FRAMES - 1):
            alone = cost(segmenter, [[expression] for expression in EXPRESSIONS], key_frame)
            together = cost(segmenter, [EXPRESSIONS], key_frame)
            one = cost(segmenter, [EXPRESSIONS[:1]], key_frame)
            rows.append(
                {
                    "network": name,
                    "key_frame": key_frame,
                    "one_s": one[0],
                    "together_s": together[0],
                    "one_by_one_s": alone[0],
                    "ratio": alone[0] / together[0],
                    "clip_encodes": [alone[1], together[1]],
                    "sam2_encodes": [alone[2], together[2]],
                }
            )
            print(rows[-1], flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "glus_expressions.json").write_text(json.dumps({"cpu": processor(), "rows": rows}, indent=2) + "\n")
    (RESULTS / "glus_expressions.md").write_text(table(rows))


def table(rows: list[dict[str, Any]]) -> str:
    """The figures as Markdown."""
    lines = [
        "# 8 expressions of one video, together against one by one",
        "",
        f"`python -m benchmarks.glus_expressions`; {NUM_FRAMES} frames of 240x426, fp32, CPU time of one thread, "
        f"{processor()}.",
        "",
        "| network | key frame | one expression, s | 8 together, s | 8 one by one, s | ratio "
        "| CLIP encodes | SAM2 encodes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['network']} | {r['key_frame']} | {r['one_s']:.1f} | {r['together_s']:.1f} | {r['one_by_one_s']:.1f} "
        f"| {r['ratio']:.2f} | {r['clip_encodes'][0]} → {r['clip_encodes'][1]} "
        f"| {r['sam2_encodes'][0]} → {r['sam2_encodes'][1]} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
