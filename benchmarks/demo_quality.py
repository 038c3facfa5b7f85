"""How well a model does on unseen demo videos, at other resolutions and lengths than those of its training.

Every row of the table is one setting: 240x426 with 24 frames, on which glus-tiny is trained, smaller and larger
frames, three times as many of them; each with both ways to show a frame to CLIP. "perfect masks" are the true masks,
averaged over the cells of the network's mask grid and brought back to the size of the frame: what no network with
that grid can be expected to surpass.

Finished videos are kept in a folder of records, so that a run that was killed goes on where it was; a record's name
holds the digest of the weights, so that a new checkpoint is measured anew.

    python -m benchmarks.demo_quality --clip-views --settings "240x426, 24 frames"   # CLIP sees what the model says
    python -m benchmarks.demo_quality --videos 25 --name demo_quality_settings
    python -m benchmarks.demo_quality --card         # writes the checkpoint's quality.json, nothing else
    python -m benchmarks.demo_quality --picture quality.png

writes benchmarks/results/NAME.json and .md; the picture shows the best and worst expressions of the first
row.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.demo_sheet import write_sheet
from benchmarks.machine import processor
from fiftyone_refvos.demo.expressions import KINDS
from fiftyone_refvos.demo.quality import DemoQuality, Estimate, measure
from fiftyone_refvos.demo.quality_card import weights_digest, write_card
from fiftyone_refvos.demo.video import DemoVideo
from fiftyone_refvos.demo.world import DemoConfig
from fiftyone_refvos.masklet import BoolArray, Expression, FrameResult
from fiftyone_refvos.models.loading import load_segmenter
from fiftyone_refvos.models.registry import MODELS, SHIPPED
from fiftyone_refvos.models.sam2 import masks_at_size
from fiftyone_refvos.models.segmenter import Segmenter

RESULTS = Path(__file__).parent / "results"
RECORDS = Path(tempfile.gettempdir()) / "refvos-demo-quality"
CLIP_VIEWS = ("squash", "center_crop")
CONFIGS = {
    "240x426, 24 frames": DemoConfig(),
    "180x320, 24 frames": DemoConfig(height=180, width=320),
    "360x640, 24 frames": DemoConfig(height=360, width=640),
    "240x426, 72 frames": DemoConfig(num_frames=72),
}
BASE = next(iter(CONFIGS))

FIGURES = ("attribute", "motion", "relation", "multi", "N-acc", "T-acc")

# What is required of models at BASE; elsewhere at least KEPT of what they have there.
REQUIRED = {
    "glus-tiny": {"attribute": 0.85, "motion": 0.70, "relation": 0.70, "multi": 0.70, "N-acc": 0.70, "T-acc": 0.95},
    "sa2va-tiny": {"attribute": 0.60},
}
KEPT = 0.9

MODEL, VIDEOS, DEVICE, NAME = "glus-tiny", 100, "cpu", "demo_quality"


class PerfectMasks:
    """A segmenter that knows the truth, and says it as coarsely as a network whose mask logits have `grid` cells."""

    def __init__(self, grid: int) -> None:
        self.grid = grid

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"perfect_masks": self.grid}

    def check(self, expression: Expression) -> None:
        """Takes every expression."""

    def segment(
        self,
        frames: DemoVideo,
        expressions: Sequence[Expression],
        *,
        key_frames: Mapping[str, int] | None = None,
    ) -> Iterator[FrameResult]:
        meant = {expression.id: expression for expression in frames.expressions}
        for t in range(len(frames)):
            for expression in expressions:
                mask = self.reduced(frames.targets(meant[expression.id], t).any(axis=0))[None]
                yield FrameResult(t, expression.id, mask, np.ones(1, dtype=np.float32), bool(mask.any()))

    def reduced(self, mask: BoolArray) -> BoolArray:
        """A mask `(H, W)` that went through the grid."""
        share = F.interpolate(torch.from_numpy(mask).float()[None, None], size=(self.grid, self.grid), mode="area")
        return (masks_at_size(share - 0.5, mask.shape) > 0)[0].numpy()


@dataclass(frozen=True)
class Row:
    """One line of the table; `view` is None for the model's own, and "perfect masks" for the truth."""

    setting: str
    view: str | None
    quality: DemoQuality

    def figures(self) -> dict[str, Estimate]:
        """J&F per kind, N-acc and T-acc."""
        kinds = {kind: self.quality.kind(kind) for kind in KINDS if kind != "no_target"}
        return {**kinds, "N-acc": self.quality.n_acc, "T-acc": self.quality.t_acc}


def mask_grid(segmenter: Any) -> int:
    """Cells along each side of the network's mask logits."""
    return int(segmenter.network.sam.image_size) // 4


def run(options: argparse.Namespace, segmenters: Mapping[str | None, Segmenter], digest: str) -> list[Row]:
    """Measures every setting, or reads it from its record."""
    grid = mask_grid(next(iter(segmenters.values())))
    contestants: dict[str | None, Any] = {**segmenters, "perfect masks": PerfectMasks(grid)}
    rows = []
    for setting in options.settings:
        for view, segmenter in contestants.items():
            words = [digest[:12], view or "own", setting]
            quality = measure(
                segmenter,
                num_videos=options.videos,
                config=CONFIGS[setting],
                record=options.records / ("_".join(words).replace(", ", "_").replace(" ", "_") + ".jsonl"),
                on_progress=lambda done, total, words=words: print(*words[1:], f"{done}/{total}", flush=True),
            )
            rows.append(Row(setting, view, quality))
    return rows


def command(options: argparse.Namespace) -> str:
    """What measures the same again; folders are not named."""
    words = ["python -m benchmarks.demo_quality"]
    if options.model != MODEL:
        words.append(f"--model {options.model}")
    if options.videos != VIDEOS:
        words.append(f"--videos {options.videos}")
    if options.settings != [*CONFIGS]:
        words += ["--settings", *(f'"{setting}"' for setting in options.settings)]
    if tuple(options.clip_views) != CLIP_VIEWS:
        words += ["--clip-views", *options.clip_views]
    if options.checkpoint is not None:
        words.append("--checkpoint FOLDER")
    if options.device != DEVICE:
        words.append(f"--device {options.device}")
    if options.name != NAME:
        words.append(f"--name {options.name}")
    return " ".join(words)


def table(rows: Sequence[Row], options: argparse.Namespace) -> str:
    """The figures as Markdown."""
    names = FIGURES
    lines = [
        f"# {options.model} on unseen demo videos",
        "",
        f"`{command(options)}`; the first {options.videos} test videos; {options.device}, {processor()}.",
        "J&F per kind of expression, mean over expressions, ± its standard error; N-acc and T-acc: how many "
        "expressions without and with a target the model tells as such. All in percent; CPU time covers "
        "drawing, segmenting and scoring.",
        "",
        "| frames | CLIP sees | " + " | ".join(names) + " | least part of the first setting | CPU s per video |",
        "|---|---|" + "---|" * (len(names) + 2),
    ]
    for row in rows:
        figures = row.figures()
        cells = [row.setting, row.view or "as by default", *(percent(figures[name]) for name in names)]
        cells += [kept(row, rows), f"{row.quality.seconds / row.quality.num_videos:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    wanted = REQUIRED.get(options.model, {})
    required = " | ".join(f"≥ {100 * wanted[name]:.0f}" if name in wanted else "" for name in names)
    lines.append(f"| required | | {required} | ≥ {KEPT:.1f} | |")
    lines += ["", f"## What is said, {rows[0].setting}, CLIP sees {rows[0].view or 'as by default'}, worst first", ""]
    lines += ["| kind | topic | expressions | J&F |", "|---|---|---|---|"]
    lines += [
        f"| {kind} | {topic} | {estimate.count} | {percent(estimate)} |"
        for (kind, topic), estimate in rows[0].quality.topics().items()
    ]
    return "\n".join(lines) + "\n"


def percent(estimate: Estimate) -> str:
    """ "81.3 ± 2.1", without the error for a single expression, and a dash where there is none."""
    if estimate.count < 2:
        return f"{100 * estimate.mean:.1f}" if estimate.count else "–"
    return f"{100 * estimate.mean:.1f} ± {100 * estimate.error:.1f}"


def kept(row: Row, rows: Sequence[Row]) -> str:
    """The smallest ratio of a figure to the same at BASE, over all that are required."""
    base = next((other for other in rows if (other.setting, other.view) == (BASE, row.view)), row)
    if base is row:
        return "–"
    pairs = zip(row.figures().values(), base.figures().values(), strict=True)
    ratios = [here.mean / there.mean for here, there in pairs if here.count and there.count and there.mean]
    return f"{min(ratios):.2f}" if ratios else "–"


def as_json(rows: Sequence[Row], options: argparse.Namespace, digest: str) -> dict[str, Any]:
    """All figures, and every expression of the first row, worst first."""
    return {
        "model": options.model,
        "weights": digest,
        "processor": processor(),
        "device": options.device,
        "required": REQUIRED.get(options.model, {}),
        "rows": [{"frames": row.setting, "clip_view": row.view, **row.quality.summary()} for row in rows],
        "expressions": [asdict(each) for each in sorted(rows[0].quality.rows, key=lambda each: each.JF)],
    }


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL, choices=[*MODELS])
    parser.add_argument("--checkpoint", type=Path, help="a folder to measure instead of the model's own")
    parser.add_argument("--videos", type=int, default=VIDEOS, help="how many test videos (default: %(default)s)")
    parser.add_argument("--settings", nargs="+", choices=[*CONFIGS], default=[*CONFIGS], help="default: all")
    parser.add_argument("--clip-views", nargs="*", default=CLIP_VIEWS, help="default: both; none: the model's own")
    parser.add_argument("--device", default=DEVICE, help="where the model runs (default: %(default)s)")
    parser.add_argument("--records", type=Path, default=RECORDS, help=f"finished videos (default: {RECORDS})")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"where the tables go (default: {RESULTS})")
    parser.add_argument("--name", default=NAME, help="of the tables (default: %(default)s)")
    parser.add_argument("--picture", type=Path, help="a PNG of the best and worst expressions")
    parser.add_argument("--card", action="store_true", help="write the checkpoint's quality.json, nothing else")
    options = parser.parse_args(argv)
    if options.checkpoint is None and MODELS[options.model].source is not None:
        parser.error(f"{options.model} does not ship with the package: pass --checkpoint")
    return options


def main() -> None:
    """Measures, prints, and writes the tables."""
    options = parse()
    folder = options.checkpoint or SHIPPED / options.model
    where = {"checkpoint": options.checkpoint, "device": options.device}
    if options.card:
        print(write_card(folder, load_segmenter(options.model, checkpoint=folder, device="cpu")))
        return
    digest = weights_digest(folder)
    segmenters: dict[str | None, Segmenter] = {
        view: load_segmenter(options.model, **where, settings={"clip_view": view}) for view in options.clip_views
    } or {None: load_segmenter(options.model, **where)}
    rows = run(options, segmenters, digest)
    options.results.mkdir(parents=True, exist_ok=True)
    figures = json.dumps(as_json(rows, options, digest), indent=2)
    (options.results / f"{options.name}.json").write_text(figures + "\n")
    (options.results / f"{options.name}.md").write_text(table(rows, options))
    print(table(rows, options))
    if options.picture:
        write_sheet(options.picture, segmenters[rows[0].view], rows[0].quality, CONFIGS[rows[0].setting])


if __name__ == "__main__":
    main()
