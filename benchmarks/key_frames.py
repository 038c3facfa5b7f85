"""What key frames are worth to glus-tiny on unseen demo videos, and how well kfs-tiny knows them.

Every video is segmented from its first frame; each selector then scores its frames, and the masks are made anew
from the frame that it chose, in both directions. "oracle" chooses the frame with the best of the masks that were made
from the first frame: the ceiling of what a selector of that kind can gain. The trainings that kfs-tiny is the mean of
can be measured beside it: error bars are then over these, and over sets of test videos beside that.

Finished videos are kept in a folder of records, so that a run that was killed goes on where it was; a record is of
weights and their names.

    python -m benchmarks.key_frames --plots plots
    python -m benchmarks.key_frames --trainings FOLDER/kfs-tiny-*

writes benchmarks/results/key_frames.json and .md; the plots show score and true IoU of every expression.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import processor
from fiftyone_refvos.demo.quality import Estimate, measure_video
from fiftyone_refvos.demo.quality_card import weights_digest
from fiftyone_refvos.demo.video import DemoVideo, generate
from fiftyone_refvos.demo.world import video_seed
from fiftyone_refvos.key_frame_quality import SPREAD, ExpressionQuality, SelectorQuality
from fiftyone_refvos.masklet import Expression, Masklet
from fiftyone_refvos.models.loading import load_segmenter
from fiftyone_refvos.models.registry import SHIPPED
from fiftyone_refvos.models.segmenter import Segmenter
from fiftyone_refvos.models.selector.loading import load_selector
from fiftyone_refvos.models.selector.protocol import FrameSelector, MiddleFrameSelector, best_frame
from fiftyone_refvos.pseudo_labels import frame_iou

RESULTS = Path(__file__).parent / "results"
RECORDS = Path(tempfile.gettempdir()) / "refvos-key-frames"
FIRST, OURS, RAW = "first frame", "kfs-tiny", "kfs-tiny, not smoothed"
SIZES = {"sets": 3, "videos": 10}
OTHERS = (RAW, "oracle", "confidence", "middle")
FOR_MOTION = (RAW, "confidence", "middle")
"""Selectors from whose frames only expressions of motion are segmented."""

REQUIRED = 0.5
"""Of the mean rank correlation, over at least so many videos: """
VIDEOS = 20


@dataclass(frozen=True)
class Row:
    """One expression of a test video.

    Attributes:
        set_number: of the set of videos, from 0
        video: number of the video in the test split
        id, text, kind, topic: of the expression
        hidden: whether nothing of its objects can be seen in some frame
        ious: true IoU of the masks made from the first frame
        scores: of every frame per selector
        keys: the chosen frame per selector
        JF: J&F of the masks from there per selector that was tried, and from the first frame
    """

    set_number: int
    video: int
    id: str
    text: str
    kind: str
    topic: str
    hidden: bool
    ious: tuple[float, ...]
    scores: Mapping[str, Sequence[float]]
    keys: Mapping[str, int]
    JF: Mapping[str, float]

    def quality(self, selector: str) -> ExpressionQuality:
        """Score against true IoU."""
        names = (str(self.video), f"test_{self.video}", self.id, self.text)
        return ExpressionQuality.of(names, range(1, len(self.ious) + 1), self.scores[selector], self.ious)


def target_video(number: int) -> DemoVideo:
    """A video of the test split with its expressions that have a target."""
    video = generate(video_seed("test", number))
    return replace(video, expressions=tuple(each for each in video.expressions if each.object_ids))


def measure(segmenter: Segmenter, selectors: Mapping[str, FrameSelector], set_number: int, number: int) -> list[Row]:
    """Everything about the expressions of a video."""
    video = target_video(number)
    asked = [Expression(each.id, each.text) for each in video.expressions]
    plain = Masklet.collect(segmenter.segment(video, asked), asked)
    ious = true_ious(video, plain)
    scores: dict[str, Mapping[str, Any]] = {
        **{name: selector.scores(video, asked) for name, selector in selectors.items()},
        "oracle": {id_: np.array(values) for id_, values in ious.items()},
        "confidence": {each.expression.id: confidence(each) for each in plain},
        "middle": MiddleFrameSelector().scores(video, asked),
    }
    keys = {name: {e.id: best_frame(scores[name][e.id], e, video=video.name) for e in asked} for name in scores}
    known = {(row.id, 0): row for row in measure_video(video, number, plain)}
    for name, chosen in keys.items():
        tried = [each for each in video.expressions if each.kind == "motion" or name not in FOR_MOTION]
        left = tuple(each for each in tried if (each.id, chosen[each.id]) not in known)
        if left:
            part, some = replace(video, expressions=left), [Expression(each.id, each.text) for each in left]
            where = {each.id: chosen[each.id] for each in left}
            masklets = Masklet.collect(segmenter.segment(part, some, key_frames=where), some, key_frames=where)
            known |= {(row.id, chosen[row.id]): row for row in measure_video(part, number, masklets)}
    return [
        Row(
            set_number,
            number,
            expression.id,
            expression.text,
            expression.kind,
            known[expression.id, 0].topic,
            any(not video.targets(expression, t).any() for t in range(len(video))),
            tuple(ious[expression.id]),
            {name: [float(value) for value in scores[name][expression.id]] for name in scores},
            {name: keys[name][expression.id] for name in scores},
            {
                name: known[expression.id, keys[name][expression.id]].JF
                for name in scores
                if expression.kind == "motion" or name not in FOR_MOTION
            }
            | {FIRST: known[expression.id, 0].JF},
        )
        for expression in video.expressions
    ]


def true_ious(video: DemoVideo, masklets: Sequence[Masklet]) -> dict[str, list[float]]:
    """The true IoU of every frame per expression id; 0 where there is neither object nor mask."""
    meant = {each.id: each for each in video.expressions}
    found = {}
    for masklet in masklets:
        expression = meant[masklet.expression.id]
        pairs = ((video.targets(expression, t), list(rles)) for t, rles in enumerate(masklet.masks))
        found[expression.id] = [float(frame_iou(*pair, video.size, "zero")[0] or 0) for pair in pairs]
    return found


def confidence(masklet: Masklet) -> Any:
    """SAM2's predicted IoU in every frame; 0 where nothing was found."""
    return np.where(masklet.found, masklet.scores.mean(axis=1), 0.0)


def run(
    options: argparse.Namespace, segmenter: Segmenter, selectors: Mapping[str, FrameSelector], record: Path
) -> list[Row]:
    """Measures every video, or reads it from the record."""
    record.parent.mkdir(parents=True, exist_ok=True)
    lines = record.read_text().splitlines() if record.exists() else []
    done: dict[int, list[dict[str, Any]]] = dict(json.loads(line) for line in lines)
    rows: list[Row] = []
    for number in range(options.sets * options.videos):
        if number not in done:
            began = time.process_time()
            measured = measure(segmenter, selectors, number // options.videos, number)
            done[number] = [asdict(row) for row in measured]
            with record.open("a") as file:
                file.write(json.dumps([number, done[number]]) + "\n")
            print(
                f"video {number + 1} of {options.sets * options.videos}: {time.process_time() - began:.0f} s",
                flush=True,
            )
        rows += [Row(**(row | {"set_number": number // options.videos})) for row in done[number]]
    return rows


@dataclass(frozen=True)
class Margin:
    """J&F of a selector, and what it gains over the first frame.

    Attributes:
        JF: mean over expressions
        by_set: mean gain in each set of videos
        gain: its mean over the sets, and its standard error
        paired: the mean gain over all expressions, and its standard error
    """

    JF: float
    by_set: tuple[float, ...]
    gain: Estimate
    paired: Estimate

    def plain(self) -> dict[str, Any]:
        """The values for JSON."""
        return asdict(self) | {"JF": _or_none(self.JF), "gain": self.gain.plain(), "paired": self.paired.plain()}


def margin(rows: Sequence[Row], name: str) -> Margin:
    """The gain of a selector on some expressions."""
    gains: dict[int, list[float]] = {}
    for row in rows:
        gains.setdefault(row.set_number, []).append(row.JF[name] - row.JF[FIRST])
    by_set = tuple(float(np.mean(values)) for values in gains.values())
    every = [value for values in gains.values() for value in values]
    return Margin(float(np.mean([row.JF[name] for row in rows])), by_set, Estimate.of(by_set), Estimate.of(every))


def rank(rows: Iterable[Row], name: str = OURS) -> SelectorQuality:
    """Scores against true IoU."""
    return SelectorQuality(name, "glus-tiny", tuple(row.quality(name) for row in rows))


def check_mean(states: Sequence[Mapping[str, torch.Tensor]]) -> None:
    """That the weights of the first network are the mean of those of the others, if there are any, in half precision.

    Raises:
        SystemExit: if they are not, because the table says so
    """
    ours, *others = states
    for name in ours if others else ():
        theirs = torch.stack([state[name] for state in others])
        rounding = 1e-3 * float(theirs.abs().max())
        if not torch.allclose(ours[name], theirs.mean(0), rtol=0, atol=rounding):
            raise SystemExit(f"{name!r} of the checkpoint is not the mean of those of the {len(others)} trainings")


def groups(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """All expressions, and those of each kind, and those with an object that is out of sight in some frame."""
    found = {"all": list(rows)}
    for kind in ("attribute", "relation", "multi", "motion"):
        found[kind] = [row for row in rows if row.kind == kind]
    found["out of sight in some frame"] = [row for row in rows if row.hidden]
    found["motion, out of sight in some frame"] = [row for row in rows if row.hidden and row.kind == "motion"]
    return found


def over_trainings(rows: Sequence[Row], names: Sequence[str]) -> tuple[Estimate, tuple[float, ...]]:
    """The mean gain over the trainings and its standard error, and the gain of each."""
    gains = tuple(margin(rows, name).paired.mean for name in names)
    return Estimate.of(gains), gains


def command(options: argparse.Namespace) -> str:
    """What measures the same again; folders are not named."""
    words = ["python -m benchmarks.key_frames"]
    if options.checkpoint != SHIPPED / OURS:
        words.append("--checkpoint FOLDER")
    if options.trainings:
        words += ["--trainings", *(f"FOLDER/{each.name}" for each in options.trainings)]
    given = {name: getattr(options, name) for name in SIZES}
    return " ".join([*words, *(f"--{name} {value}" for name, value in given.items() if value != SIZES[name])])


def table(rows: Sequence[Row], trainings: Sequence[str], options: argparse.Namespace) -> str:
    """The figures as Markdown."""
    motion = [row for row in rows if row.kind == "motion"]
    selectors = (*trainings, *OTHERS)
    lines = [
        "# Key frames for glus-tiny",
        "",
        f"`{command(options)}`; test videos 0 to {options.sets * options.videos - 1} (240x426, 24 "
        f"frames) in {options.sets} sets of {options.videos}; {processor()}. J&F in percent, of expressions with a "
        "target. The margin over starting from the first frame is the mean over the sets of videos ± its standard "
        "error; in brackets the sets.",
        "",
        f"| starts from | motion ({len(motion)} expressions) | margin | all kinds ({len(rows)}) | margin |",
        "|---|---|---|---|---|",
    ]
    for name in (FIRST, *selectors):
        cells = [name]
        for group in (motion, rows):
            found = margin(group, name) if all(name in row.JF for row in group) else None
            cells.append(f"{100 * found.JF:.1f}" if found else "–")
            cells.append(_gain(found.gain, found.by_set) if found and name != FIRST else "–")
        lines.append("| " + " | ".join(cells) + " |")
    if alone := trainings[1:]:
        gains = [_gain(*over_trainings(group, alone)) for group in (motion, rows)]
        lines += [
            "",
            f"kfs-tiny is the mean of the weights of {len(alone)} trainings with seeds of their own. Their margin (± "
            f"standard error over them; in brackets each, over all expressions): motion {gains[0]}, all kinds "
            f"{gains[1]}.",
        ]
    lines += [
        "",
        "## Rank correlation with the true IoU of the masks from the first frame",
        "",
        f"Mean over the expressions whose true IoU (0 where no object is) differs by at least {SPREAD} between its "
        f"10th and 90th percentile. Required of {OURS}: {REQUIRED} over {VIDEOS} videos; it has "
        f"{_rank_estimate(rows)} (± standard error over the expressions).",
        "",
        f"| expressions | with such a difference | of videos | {' | '.join((*trainings, *FOR_MOTION))} |",
        "|---|---|---|" + "---|" * (len(trainings) + len(FOR_MOTION)),
    ]
    for title, group in groups(rows).items():
        ours = rank(group)
        values = [_number(rank(group, name).spearman) for name in (*trainings, *FOR_MOTION)]
        lines.append(f"| {title} | {len(ours.ranked)} | {ours.num_videos} | {' | '.join(values)} |")
    lines += [
        "",
        "## True IoU of the frame that was chosen",
        "",
        "| | mean of all frames | " + " | ".join(selectors) + " |",
        "|---|---|" + "---|" * len(selectors),
    ]
    for title, group in (("motion", motion), ("all kinds", list(rows))):
        every = float(np.mean([np.mean(row.ious) for row in group]))
        chosen = [float(np.mean([row.ious[row.keys[name]] for row in group])) for name in selectors]
        lines.append(f"| {title} | {every:.3f} | {' | '.join(f'{value:.3f}' for value in chosen)} |")
    return "\n".join(lines) + "\n"


def _gain(mean: Estimate, each: Sequence[float]) -> str:
    error = "" if math.isnan(mean.error) else f" ± {100 * mean.error:.1f}"
    return f"{100 * mean.mean:+.1f}{error} ({', '.join(f'{100 * value:+.1f}' for value in each)})"


def _rank_estimate(rows: Sequence[Row]) -> str:
    found = Estimate.of(rank(rows).correlations)
    return f"{found.mean:.3f} ± {found.error:.3f}"


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"


def as_json(rows: Sequence[Row], trainings: Sequence[str], digests: Mapping[str, str]) -> dict[str, Any]:
    """All figures."""
    motion = [row for row in rows if row.kind == "motion"]
    of_all = [name for name in (*trainings, *OTHERS) if name not in FOR_MOTION]
    ours = rank(rows)
    return {
        "weights": dict(digests),
        "processor": processor(),
        "spearman": {name: _or_none(rank(rows, name).spearman) for name in trainings},
        "spearman_videos": ours.num_videos,
        "margins": {
            title: {name: margin(group, name).plain() for name in names}
            for title, group, names in (("motion", motion, (*trainings, *OTHERS)), ("all", rows, of_all))
        },
        "trainings": {
            title: over_trainings(group, trainings[1:])[0].plain()
            for title, group in (("motion", motion), ("all", rows))
            if trainings[1:]
        },
        "expressions": [_summary(row) for row in rows],
    }


def _summary(row: Row) -> dict[str, Any]:
    """An expression without the numbers of its frames."""
    ours = row.quality(OURS)
    kept = {name: value for name, value in asdict(row).items() if name not in ("ious", "scores")}
    return kept | {"spread": ours.spread, "spearman": _or_none(ours.spearman), "mean_iou": float(np.mean(row.ious))}


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def main() -> None:
    """Measures, prints, and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED / OURS, help="of the selector")
    parser.add_argument("--trainings", type=Path, nargs="*", default=[], help="checkpoints whose mean it is")
    parser.add_argument("--sets", type=int, default=SIZES["sets"], help="of test videos (default: %(default)s)")
    parser.add_argument("--videos", type=int, default=SIZES["videos"], help="of each set (default: %(default)s)")
    parser.add_argument("--records", type=Path, default=RECORDS, help=f"finished videos (default: {RECORDS})")
    parser.add_argument("--results", type=Path, default=RESULTS, help=f"where the tables go (default: {RESULTS})")
    parser.add_argument("--plots", type=Path, help="a folder for plots of score against true IoU")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folders = {OURS: options.checkpoint} | {folder.name: folder for folder in options.trainings}
    if len(folders) <= len(options.trainings):
        parser.error(f"the folders of trainings need names of their own, and other than {OURS}")
    digests = {
        name: weights_digest(folder) for name, folder in {"glus-tiny": SHIPPED / "glus-tiny", **folders}.items()
    }
    record = options.records / ("_".join(f"{name}-{each[:8]}" for name, each in digests.items()) + ".jsonl")
    segmenter = load_segmenter("glus-tiny", device="cpu", dtype="float32")
    trainings = {name: load_selector(folder, device="cpu", dtype="float32") for name, folder in folders.items()}
    check_mean([each.network.state_dict() for each in trainings.values()])
    raw = load_selector(options.checkpoint, device="cpu", dtype="float32", settings={"smoothing": 0})
    rows = run(options, segmenter, trainings | {RAW: raw}, record)
    options.results.mkdir(parents=True, exist_ok=True)
    figures = as_json(rows, [*trainings], digests)
    (options.results / "key_frames.json").write_text(json.dumps(figures, indent=2, allow_nan=False) + "\n")
    (options.results / "key_frames.md").write_text(table(rows, [*trainings], options))
    print(table(rows, [*trainings], options))
    if options.plots:
        rank(rows).save_plots(options.plots)


if __name__ == "__main__":
    main()
