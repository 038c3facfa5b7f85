"""Measuring a segmenter on demo videos: known segmenters get known figures, and a checkpoint states its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fiftyone_refvos.demo import DemoConfig, DemoVideo, generate, video_seed
from fiftyone_refvos.demo.quality import DemoQuality, Estimate, measure
from fiftyone_refvos.demo.quality_card import CARD, measure_card, stated, weights_digest, write_card
from fiftyone_refvos.masklet import BoolArray, Expression, FrameResult
from fiftyone_refvos.metrics import score_frame
from fiftyone_refvos.models.registry import SHIPPED
from tests.demo_oracle import meant
from tests.small import glus_tiny

SMALL = DemoConfig(height=48, width=86, num_frames=8)
GLUS_TINY = SHIPPED / "glus-tiny"


class TruthSegmenter:
    """Finds what the oracle reads in the text, and changes the mask `(H, W)` as it is told to."""

    def __init__(self, change: Callable[[BoolArray], BoolArray] = lambda mask: mask, **settings: Any) -> None:
        self.change = change
        self.identity: Mapping[str, Any] = settings
        self.seeds: list[int] = []

    def check(self, expression: Expression) -> None:
        pass

    def segment(
        self,
        frames: Any,
        expressions: Sequence[Expression],
        *,
        key_frames: Mapping[str, int] | None = None,
    ) -> Iterator[FrameResult]:
        self.seeds.append(frames.seed)
        targets = {each.id: [int(id) for id in meant(frames, each.text)] for each in expressions}
        for t in range(len(frames)):
            masks = frames.masks(t)
            for expression in expressions:
                mask = self.change(masks[targets[expression.id]].any(axis=0))[None]
                yield FrameResult(t, expression.id, mask, np.ones(1, dtype=np.float32), bool(mask.any()))


def empty(mask: BoolArray) -> BoolArray:
    return np.zeros_like(mask)


def shifted(mask: BoolArray) -> BoolArray:
    return np.roll(mask, 3, axis=1)


def videos(count: int, first: int = 0) -> list[DemoVideo]:
    return [generate(video_seed("test", number), SMALL) for number in range(first, first + count)]


def test_an_oracle_is_perfect():
    quality = measure(TruthSegmenter(), num_videos=4, config=SMALL)
    assert {row.kind for row in quality.rows} == {"attribute", "relation", "motion", "multi", "no_target"}
    assert all((row.J, row.F, row.JF, row.right) == (1, 1, 1, True) for row in quality.rows)
    assert quality.n_acc == Estimate(sum(row.kind == "no_target" for row in quality.rows), 1, 0)
    assert (quality.t_acc.mean, quality.num_videos) == (1, 4)


def test_finding_nothing_is_right_only_where_there_is_nothing():
    quality = measure(TruthSegmenter(empty), num_videos=4, config=SMALL)
    assert (quality.n_acc.mean, quality.t_acc.mean) == (1, 0)
    assert quality.kind("no_target").mean == 1
    # Frames in which the object is not to be seen count as 1, as MeViS has it; in the others there is nothing.
    seen = {
        (v.seed, e.id): np.mean([v.targets(e, t).any() for t in range(8)]) for v in videos(4) for e in v.expressions
    }
    assert [row.JF for row in quality.rows] == pytest.approx([1 - seen[row.seed, row.id] for row in quality.rows])


def test_finding_something_everywhere_is_wrong_where_there_is_nothing():
    quality = measure(TruthSegmenter(np.ones_like), num_videos=2, config=SMALL)
    assert (quality.n_acc.mean, quality.t_acc.mean) == (0, 1)
    assert quality.kind("no_target", "J").mean == 0  # F is 1: a mask of the whole frame has no boundary


def test_figures_are_those_of_the_metrics_frame_by_frame():
    quality = measure(TruthSegmenter(shifted), num_videos=2, config=SMALL, first=3)
    expected = []
    for video in videos(2, first=3):
        for expression in video.expressions:
            truths = [np.asarray(video.targets(expression, t).any(axis=0)) for t in range(len(video))]
            scores = [score_frame(truth, shifted(truth)) for truth in truths]
            expected.append((np.mean([score.J for score in scores]), np.mean([score.F for score in scores])))
    assert [(row.J, row.F) for row in quality.rows] == expected
    assert [row.JF for row in quality.rows] == [(J + F) / 2 for J, F in expected]
    motion = [row.F for row in quality.rows if row.kind == "motion"]
    assert 0 < quality.kind("motion", "F").mean == np.mean(motion) < 1


def test_rows_name_what_was_asked():
    quality = measure(TruthSegmenter(), num_videos=2, config=SMALL, first=5, split="valid")
    asked = [(n, generate(video_seed("valid", n), SMALL)) for n in (5, 6)]
    assert [(row.video, row.seed, row.id, row.text, row.kind) for row in quality.rows] == [
        (number, video.seed, e.id, e.text, e.kind) for number, video in asked for e in video.expressions
    ]
    by_text = {row.text: row for row in quality.rows}
    for _, video in asked:
        for expression in video.expressions:
            clause = expression.meaning.clause
            assert by_text[expression.text].topic == (clause.name if clause else "look")
            assert by_text[expression.text].has_target == bool(expression.object_ids)


def test_topics_come_worst_first():
    row = measure(TruthSegmenter(), num_videos=1, config=SMALL).rows[0]
    rows = [replace(row, topic=topic, JF=JF) for topic, JF in (("look", 0.9), ("stops", 0.2), ("look", 0.5))]
    topics = DemoQuality(tuple(rows), 1.0).topics()
    assert [*topics] == [(row.kind, "stops"), (row.kind, "look")]
    assert topics[row.kind, "look"].mean == pytest.approx(0.7)


def test_the_standard_error_is_that_of_a_mean():
    estimate = Estimate.of([0.0, 1.0, 1.0, 0.0])
    assert (estimate.count, estimate.mean, estimate.error) == (4, 0.5, pytest.approx(np.sqrt(1 / 3) / 2))


def test_a_summary_is_json_without_nan():
    rows = measure(TruthSegmenter(), num_videos=1, config=SMALL).rows
    quality = DemoQuality(tuple(row for row in rows if row.has_target), 3.0)
    summary = json.loads(json.dumps(quality.summary(), allow_nan=False))
    assert summary["N-acc"] == {"count": 0, "mean": None, "error": None}
    assert summary["kinds"]["attribute"]["JF"] == {"count": 1, "mean": 1.0, "error": None}
    assert "no_target" not in summary["kinds"]
    assert (summary["videos"], summary["cpu_seconds_per_video"]) == (1, 3.0)


class TestRecord:
    def test_an_interrupted_run_goes_on_where_it_was(self, tmp_path):
        record = tmp_path / "records" / "rows.jsonl"
        whole = measure(TruthSegmenter(shifted), num_videos=3, config=SMALL)
        measure(TruthSegmenter(shifted), num_videos=2, config=SMALL, record=record)
        with record.open("a") as file:
            file.write('{"video": 2, "rows": [{"vid')  # killed while writing
        segmenter, told = TruthSegmenter(shifted), []
        again = measure(
            segmenter, num_videos=3, config=SMALL, record=record, on_progress=lambda *done: told.append(done)
        )
        assert again.rows == whole.rows
        assert segmenter.seeds == [video_seed("test", 2)]
        assert told == [(1, 3), (2, 3), (3, 3)]
        last = TruthSegmenter(shifted)
        assert measure(last, num_videos=3, config=SMALL, record=record) == again
        assert not last.seeds

    @pytest.mark.parametrize(
        ("segmenter", "options"),
        [
            (TruthSegmenter(window=3), {"config": SMALL}),
            (TruthSegmenter(window=4), {"config": replace(SMALL, num_frames=9)}),
            (TruthSegmenter(window=4), {"config": SMALL, "split": "valid"}),
        ],
        ids=["segmenter", "config", "split"],
    )
    def test_a_record_of_other_settings_is_refused(self, tmp_path, segmenter, options):
        record = tmp_path / "rows.jsonl"
        measure(TruthSegmenter(window=4), num_videos=1, config=SMALL, record=record)
        before = record.read_bytes()
        with pytest.raises(ValueError, match="rows.jsonl records other settings"):
            measure(segmenter, num_videos=1, record=record, **options)
        assert record.read_bytes() == before

    def test_a_broken_line_is_named(self, tmp_path):
        record = tmp_path / "rows.jsonl"
        measure(TruthSegmenter(), num_videos=1, config=SMALL, record=record)
        with record.open("a") as file:
            file.write('{"video": 1}\n')
        with pytest.raises(ValueError, match="rows.jsonl, line 3 is no line of a record: 'seconds'|'rows'"):
            measure(TruthSegmenter(), num_videos=2, config=SMALL, record=record)


def test_no_videos_are_refused():
    with pytest.raises(ValueError, match="num_videos must be at least 1, got 0"):
        measure(TruthSegmenter(), num_videos=0)


PIXELS = 0.01
"""By how much a mean J or F may differ from the card: other processors flip a few pixels of a mask."""


class TestCard:
    def test_a_card_is_what_measuring_gives(self, tmp_path):
        (tmp_path / "model.safetensors").write_bytes(b"weights")
        path = write_card(tmp_path, TruthSegmenter(shifted), SMALL)
        card = json.loads(path.read_text())
        assert path == tmp_path / CARD
        assert card["quality"] == stated(measure(TruthSegmenter(shifted), num_videos=6, config=SMALL))
        assert measure_card(card, TruthSegmenter(shifted)) == card["quality"]

    def test_the_digest_is_that_of_the_weights_and_not_of_the_card(self, tmp_path):
        (tmp_path / "clip").mkdir()
        (tmp_path / "clip" / "model.safetensors").write_bytes(b"weights")
        before = weights_digest(tmp_path)
        (tmp_path / CARD).write_text("{}")
        assert weights_digest(tmp_path) == before
        (tmp_path / "clip" / "model.safetensors").write_bytes(b"others")
        assert weights_digest(tmp_path) != before

    def test_glus_tiny_ships_with_the_card_of_its_weights(self):
        card = json.loads((GLUS_TINY / CARD).read_text())
        advice = "measure it again: python -m benchmarks.demo_quality --card"
        assert card["weights"] == weights_digest(GLUS_TINY), advice

    def test_glus_tiny_is_as_good_as_its_card_says(self):
        card = json.loads((GLUS_TINY / CARD).read_text())
        differing = differences(card["quality"], measure_card(card, glus_tiny()))
        assert not differing, "stated and found; if that is right: python -m benchmarks.demo_quality --card"

    def test_stale_figures_are_noticed(self):
        quality = json.loads((GLUS_TINY / CARD).read_text())["quality"]
        stale = json.loads(json.dumps(quality))
        stale["kinds"]["motion"]["JF"]["mean"] += 2 * PIXELS
        stale["T-acc"]["mean"] -= 2 / quality["T-acc"]["count"]
        assert [*differences(quality, stale)] == ["motion JF", "T-acc"]
        assert not differences(quality, quality)


def differences(stated: dict[str, Any], found: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Where two cards differ by more than PIXELS in J or F, or by more than one expression in N-acc or T-acc.

    One expression, because a mask of a few pixels that flip is the difference between something and nothing.
    """
    assert {kind: each["JF"]["count"] for kind, each in stated["kinds"].items()} == {
        kind: each["JF"]["count"] for kind, each in found["kinds"].items()
    }
    pairs = {
        f"{kind} {name}": (value["mean"], found["kinds"][kind][name]["mean"], PIXELS)
        for kind, measures in stated["kinds"].items()
        if kind != "no_target"
        for name, value in measures.items()
    }
    for name in ("N-acc", "T-acc"):
        pairs[name] = stated[name]["mean"], found[name]["mean"], 1.001 / stated[name]["count"]
    return {name: (a, b) for name, (a, b, tolerance) in pairs.items() if abs(a - b) > tolerance}


def test_the_shipped_card_names_no_machine():
    assert not any(word in (GLUS_TINY / CARD).read_text() for word in ("seconds", str(Path.home())))
