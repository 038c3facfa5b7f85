"""How well a segmenter does on demo videos that nobody trained on: J&F per kind of expression, N-acc and T-acc."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fiftyone_refvos.demo.expressions import KINDS, DemoExpression, Kind
from fiftyone_refvos.demo.video import DemoVideo, generate
from fiftyone_refvos.demo.world import DemoConfig, Split, video_seed
from fiftyone_refvos.masklet import Expression, Masklet
from fiftyone_refvos.metrics import MEVIS, Query, UnitScores, VideoMasks, no_target_accuracy

if TYPE_CHECKING:  # the networks behind it take seconds to import
    from fiftyone_refvos.models.segmenter import Segmenter


@dataclass(frozen=True, slots=True)
class ExpressionQuality:
    """How one expression of a video was segmented.

    Attributes:
        video: number of the video in its split
        seed: that generates the video
        id, text, kind: of the expression
        topic: what its clause is about, "look" where it says only how the objects look
        has_target: whether there is anything to find
        right: whether the model says so: no pixel in any frame where there is no target, some where there is one
        J, F, JF: mean over all frames, as MeViS has it
    """

    video: int
    seed: int
    id: str
    text: str
    kind: Kind
    topic: str
    has_target: bool
    right: bool
    J: float
    F: float
    JF: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over expressions, NaN where there are none, and its standard error, NaN for fewer than two."""

    count: int
    mean: float
    error: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Estimate:
        """The mean of the values, which are taken as independent."""
        array = np.array([*values], dtype=np.float64)
        count = len(array)
        return cls(
            count=count,
            mean=float(array.mean()) if count else math.nan,
            error=float(array.std(ddof=1) / math.sqrt(count)) if count > 1 else math.nan,
        )

    def plain(self) -> dict[str, float | None]:
        """The values for JSON, which has no NaN: None instead."""
        return {name: None if math.isnan(value) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class DemoQuality:
    """What `measure` found.

    Attributes:
        rows: one per expression, in order
        seconds: CPU time of generating, segmenting and scoring, that of an earlier, interrupted run included
    """

    rows: tuple[ExpressionQuality, ...]
    seconds: float

    @property
    def num_videos(self) -> int:
        """How many videos were measured."""
        return len({row.video for row in self.rows})

    def kind(self, kind: Kind, measure: str = "JF") -> Estimate:
        """The mean of "J", "F" or "JF" over the expressions of a kind."""
        return Estimate.of(getattr(row, measure) for row in self.rows if row.kind == kind)

    def topics(self) -> dict[tuple[Kind, str], Estimate]:
        """J&F per kind and topic, the worst first."""
        values: dict[tuple[Kind, str], list[float]] = {}
        for row in self.rows:
            values.setdefault((row.kind, row.topic), []).append(row.JF)
        return dict(sorted(((key, Estimate.of(each)) for key, each in values.items()), key=lambda e: e[1].mean))

    @property
    def n_acc(self) -> Estimate:
        """The share of the expressions without a target for which the model finds nothing."""
        return Estimate.of(row.right for row in self.rows if not row.has_target)

    @property
    def t_acc(self) -> Estimate:
        """The share of the expressions with a target for which it finds something."""
        return Estimate.of(row.right for row in self.rows if row.has_target)

    def summary(self) -> dict[str, Any]:
        """The figures as plain values for JSON, fractions between 0 and 1; None instead of NaN."""
        kinds = {
            kind: {measure: self.kind(kind, measure).plain() for measure in ("J", "F", "JF")}
            for kind in KINDS
            if self.kind(kind).count
        }
        return {
            "videos": self.num_videos,
            "kinds": kinds,
            "N-acc": self.n_acc.plain(),
            "T-acc": self.t_acc.plain(),
            "cpu_seconds_per_video": round(self.seconds / max(self.num_videos, 1), 3),
        }


def measure(
    segmenter: Segmenter,
    *,
    split: Split = "test",
    num_videos: int,
    config: DemoConfig | None = None,
    first: int = 0,
    record: Path | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> DemoQuality:
    """Segments generated videos, all expressions of a video together, and scores every expression.

    Args:
        segmenter: what is measured
        split: whose videos
        num_videos: how many
        config: what they look like
        first: number of the first one in its split
        record: a JSON-lines file that keeps the rows of every finished video; where it exists, its videos are
            not segmented again. It knows split, config and the segmenter's settings, but not its weights
        on_progress: told after every video how many of how many are done

    Raises:
        ValueError: for fewer than one video, a negative number of the first one, a record of other settings or
            a broken one, and expressions that the segmenter cannot take
    """
    if num_videos < 1:
        raise ValueError(f"num_videos must be at least 1, got {num_videos}")
    config = config or DemoConfig()
    settings = {"split": split, "config": asdict(config), "segmenter": dict(segmenter.identity)}
    kept = _Record(record, settings) if record is not None else None
    videos: dict[int, _Measured] = dict(kept.videos) if kept else {}
    numbers = range(first, first + num_videos)
    for done, number in enumerate(numbers, 1):
        if number not in videos:
            start = time.process_time()
            video = generate(video_seed(split, number), config)
            rows = measure_video(video, number, segment_video(segmenter, video))
            videos[number] = _Measured(tuple(rows), time.process_time() - start)
            if kept:
                kept.add(number, videos[number])
        if on_progress:
            on_progress(done, num_videos)
    chosen = [videos[number] for number in numbers]
    return DemoQuality(tuple(row for each in chosen for row in each.rows), sum(each.seconds for each in chosen))


def segment_video(segmenter: Segmenter, video: DemoVideo) -> list[Masklet]:
    """The masklets of all expressions of a video, in their order."""
    asked = [Expression(expression.id, expression.text) for expression in video.expressions]
    return Masklet.collect(segmenter.segment(video, asked), asked)


def measure_video(video: DemoVideo, number: int, masklets: Sequence[Masklet]) -> list[ExpressionQuality]:
    """Scores the masklets of all expressions of a video; `number` is the video's in its split."""
    masks = np.stack([video.masks(t) for t in range(len(video))], axis=1)
    scored = VideoMasks(
        name=video.name,
        size=video.size,
        frames=[str(t) for t in range(len(video))],
        objects=dict(zip((thing.id for thing in video.objects), masks, strict=True)),
        predictions={masklet.expression.id: masklet.masks for masklet in masklets},
        queries=[Query(expression.id, expression.object_ids) for expression in video.expressions],
    )
    units = MEVIS.score(scored)
    return [_row(video, number, *pair) for pair in zip(video.expressions, units, strict=True)]


def _row(video: DemoVideo, number: int, expression: DemoExpression, unit: UnitScores) -> ExpressionQuality:
    values = MEVIS.summarize([unit]).dataset
    has_target = bool(unit.truth_area.any())
    clause = expression.meaning.clause
    return ExpressionQuality(
        video=number,
        seed=video.seed,
        id=expression.id,
        text=expression.text,
        kind=expression.kind,
        topic=clause.name if clause else "look",
        has_target=has_target,
        right=bool(no_target_accuracy([unit])["T-acc" if has_target else "N-acc"]),
        J=values["J"],
        F=values["F"],
        JF=values["J&F"],
    )


@dataclass(frozen=True)
class _Measured:
    """The rows of one video, and the CPU seconds that they took."""

    rows: tuple[ExpressionQuality, ...]
    seconds: float


class _Record:
    """A file of JSON lines: the settings, then one line per finished video."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.videos: dict[int, _Measured] = {}
        settings = json.loads(json.dumps(settings))  # as they are read back
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        if lines and not lines[-1].endswith(b"\n"):  # a killed run did not finish it
            os.truncate(path, sum(map(len, lines[:-1])))
            lines.pop()
        if not lines:
            self._append(settings)
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                if number > 1:
                    rows = tuple(ExpressionQuality(**row) for row in entry["rows"])
                    self.videos[int(entry["video"])] = _Measured(rows, float(entry["seconds"]))
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {number} is no line of a record: {error}; remove the file") from error
            if number == 1 and entry != settings:
                raise ValueError(f"{path} records other settings, {entry} instead of {settings}; remove the file")

    def add(self, number: int, measured: _Measured) -> None:
        rows = [asdict(row) for row in measured.rows]
        self._append({"video": number, "seconds": measured.seconds, "rows": rows})

    def _append(self, entry: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
