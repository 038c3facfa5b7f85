"""What `refvos` says while it works, in a terminal and in a file."""

import sys

import pytest

from fiftyone_refvos.cli.progress import ProgressLine
from fiftyone_refvos.segment import Progress


@pytest.fixture
def clock(monkeypatch):
    """What the line, and nothing else, takes for the time; `told` moves it. Elsewhere time has to go on."""
    now = [1000.0]
    monkeypatch.setattr("fiftyone_refvos.cli.progress.monotonic", lambda: now[0])
    return now


def told(clock, line: ProgressLine, seconds: float) -> None:
    for video in range(1, 5):
        clock[0] += seconds
        line(Progress(video, 4, video / 4))


def test_a_terminal_has_one_line_which_ends_with_the_run(clock, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    told(clock, ProgressLine(), seconds=1)
    assert capsys.readouterr().err == "".join(f"\rvideo {n}/4, {25 * n:3}%" for n in range(1, 5)) + "\n"


def test_the_end_may_be_told_twice(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with ProgressLine() as line:
        for _ in range(2):
            line(Progress(2, 2, 1.0))
    assert capsys.readouterr().err == "\rvideo 2/2, 100%\n"


def test_what_follows_work_that_stopped_early_has_a_line_of_its_own(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with ProgressLine("step") as line:
        line(Progress(1, 2, 0.5))
    print("stopped", file=sys.stderr)
    assert capsys.readouterr().err == "\rstep 1/2,  50%\nstopped\n"


@pytest.mark.parametrize(
    ("seconds", "lines"),
    [(10, []), (35, ["step 2/4,  50%", "step 4/4, 100%"]), (90, [f"step {n}/4, {25 * n:3}%" for n in range(1, 5)])],
)
def test_a_file_has_a_line_each_minute(clock, capsys, seconds, lines):
    told(clock, ProgressLine("step"), seconds)
    assert capsys.readouterr().err.splitlines() == lines
