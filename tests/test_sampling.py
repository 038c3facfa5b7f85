"""Sampling rules against the tables that the published code gave."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_refvos.sampling import (
    ContextMode,
    context_frames,
    memory_positions,
    sliding_window,
    uniform_frames,
)
from tests.shared import shared_path


@pytest.fixture(scope="module")
def schedules() -> dict[str, Any]:
    return json.loads(shared_path("golden", "glus", "schedules.json").read_text())


@pytest.mark.parametrize(("mode", "key"), [("center", "context_script"), ("linspace", "context_demo")])
def test_context_frames_are_the_published_ones(schedules: dict[str, Any], mode: ContextMode, key: str) -> None:
    table = {int(length): frames for length, frames in schedules[key].items()}
    assert len(table) == 46
    for length, frames in table.items():
        assert context_frames(length, mode) == [frame % length for frame in frames]  # -1 is the last frame


def test_context_frames_examples() -> None:
    assert context_frames(1) == [0, 0, 0, 0]
    assert context_frames(2) == [1, 0, 0, 1]
    assert context_frames(22) == [3, 8, 14, 19]
    assert context_frames(22, "linspace") == [0, 7, 14, 21]
    assert context_frames(22, "center", 2) == [5, 16]
    assert context_frames(22, "linspace", 2) == [0, 21]
    assert context_frames(22, "center", 0) == context_frames(22, "linspace", 0) == []


@settings(deadline=None)  # the machine may be busy
@given(st.integers(4, 5000), st.sampled_from(["center", "linspace"]))
def test_context_frames_lie_in_the_video_and_ascend(num_frames: int, mode: ContextMode) -> None:
    frames = context_frames(num_frames, mode)
    assert len(frames) == 4
    assert frames == sorted(set(frames))
    assert frames[0] >= 0
    assert frames[-1] < num_frames


def test_memory_positions_are_the_published_ones(schedules: dict[str, Any]) -> None:
    assert sorted(schedules["memory"]) == ["1", "2", "3", "5"]
    for stride, table in schedules["memory"].items():
        for position, chosen in table.items():
            assert memory_positions(int(position), int(stride)) == chosen


def test_memory_positions_examples() -> None:
    assert memory_positions(0, 3) == []
    assert memory_positions(1, 3) == [0]
    assert memory_positions(20, 3) == [3, 6, 9, 12, 15, 18, 19]  # position 0 drops out here
    assert memory_positions(20, 3, slots=3) == [15, 18, 19]
    assert memory_positions(20, 3, slots=1) == [19]


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 2000), st.integers(1, 20), st.integers(1, 12))
def test_memory_positions_are_distinct_and_past(position: int, stride: int, slots: int) -> None:
    positions = memory_positions(position, stride, slots)
    assert positions == sorted(set(positions))
    assert len(positions) <= slots
    assert all(0 <= kept < position for kept in positions)
    assert positions[-1:] == ([position - 1] if position else [])


@pytest.mark.parametrize(
    ("num_frames", "count", "expected"),
    [
        (1, 5, [0]),
        (3, 5, [0, 1, 2]),
        (10, 1, [0]),
        (10, 5, [0, 2, 4, 6, 9]),
        (11, 5, [0, 2, 5, 7, 10]),
        (5, 5, [0, 1, 2, 3, 4]),
    ],
)
def test_uniform_frames(num_frames: int, count: int, expected: list[int]) -> None:
    assert uniform_frames(num_frames, count) == expected


def test_uniform_frames_round_as_numpy() -> None:
    """Where numpy's floats fall just short of a whole number, the published code takes the frame before."""
    exact = [392 * k // 24 for k in range(25)]
    frames = uniform_frames(393, 25)
    assert frames != exact
    assert frames == np.linspace(0, 392, 25).astype(int).tolist()


@pytest.mark.parametrize(
    ("position", "size", "expected"),
    [(0, 4, [0]), (2, 4, [0, 1, 2]), (3, 4, [0, 1, 2, 3]), (9, 4, [6, 7, 8, 9])],
)
def test_sliding_window(position: int, size: int, expected: list[int]) -> None:
    assert sliding_window(position, size) == expected


MIDDLE: Any = "middle"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: context_frames(0), "num_frames must be at least 1, got 0"),
        (lambda: context_frames(9, "center", -1), "count must not be negative, got -1"),
        (lambda: context_frames(9, MIDDLE), "unknown context mode 'middle': expected 'center' or 'linspace'"),
        (lambda: memory_positions(-1, 3), "position must not be negative, got -1"),
        (lambda: memory_positions(5, 0), "stride must be at least 1, got 0"),
        (lambda: memory_positions(5, 3, 0), "slots must be at least 1, got 0"),
        (lambda: uniform_frames(0, 5), "num_frames must be at least 1, got 0"),
        (lambda: uniform_frames(5, 0), "count must be at least 1, got 0"),
        (lambda: sliding_window(-1, 4), "position must not be negative, got -1"),
        (lambda: sliding_window(3, 0), "size must be at least 1, got 0"),
    ],
)
def test_nonsense_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
