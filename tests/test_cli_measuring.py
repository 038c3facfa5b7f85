"""The verbs that measure: each does what its library call does, and prints it."""

from __future__ import annotations

import json
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest

import fiftyone_refvos as rv
from fiftyone_refvos.cli import main
from fiftyone_refvos.fields import read_expressions, write_masklets
from tests.fields_data import boxes, masklet, video_sample

SIZE, T = (40, 60), 4
SQUARE = boxes([(4, 5 + t) for t in range(T)], SIZE, side=9)


@pytest.fixture
def videos(dataset) -> fo.Dataset:
    """Two videos: in the first the model loses the dog in half of the frames, in the second it finds no cat."""
    for number, (text, lost) in enumerate([("the dog", 2), ("the cat", 0)]):
        sample = video_sample(dataset, f"/videos/{number}.mp4", texts=[text], num_frames=T)
        metadata = fo.VideoMetadata(total_frame_count=T, frame_height=SIZE[0], frame_width=SIZE[1])
        dataset.set_values("metadata", {sample.id: metadata}, key_field="id")
        (expression,) = read_expressions(sample)
        predicted = SQUARE.copy()
        predicted[lost:] = False
        for field, masks in (("ground_truth", SQUARE), ("model", predicted), ("better", SQUARE)):
            write_masklets(sample, field, [masklet(masks, expression=expression)])
    return dataset


def test_pseudo_labels_are_written_and_exported(videos, tmp_path: Path, capsys) -> None:
    arguments = ["pseudo-labels", videos.name, "--pred-field", "model", "--export", str(tmp_path / "out")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "IoU of 2 expressions of 2 videos in 'frames.model'" in printed
    assert "2 files written to" in printed
    assert json.loads((tmp_path / "out" / "0" / "0.json").read_text()) == [1.0, 1.0, 0.0, 0.0]
    assert main(arguments) == 1  # the files are there
    assert "overwrite" in capsys.readouterr().err
    assert main(["pseudo-labels", videos.name, "--pred-field", "model", "--gt-field", "gone"]) == 1
    with pytest.raises(SystemExit):
        main(["pseudo-labels", videos.name, "--pred-field", "model", "--absent-policy", "two"])


def test_failures_are_printed_worst_first_and_kept_as_a_view(videos, capsys) -> None:
    assert main(["find-failures", videos.name, "model", "--save-view", "bad"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(lines[:2]) == ["     1  late loss", "     1  missed object"]
    assert lines[2] == "1.0000  missed object  frames 1-4  /videos/1.mp4  the cat"
    assert lines[3] == "0.5000  late loss  frames 3-4  /videos/0.mp4  the dog"
    assert lines[4] == "saved as view 'bad'"
    videos.reload()
    saved = videos.load_saved_view("bad")
    assert saved.values("filepath") == ["/videos/1.mp4", "/videos/0.mp4"]
    assert main(["find-failures", videos.name, "model", "--view", "bad", "--kind", "late loss"]) == 0
    assert "missed object" not in capsys.readouterr().out
    assert main(["find-failures", videos.name, "model", "--save-view", "bad"]) == 1
    assert "there is a saved view 'bad' already" in capsys.readouterr().err
    assert main(["find-failures", videos.name, "better"]) == 0
    assert capsys.readouterr().out == "no failures\n"


def test_the_comparison_is_printed_and_its_regressions_kept(videos, capsys) -> None:
    rv.evaluate(videos, "better", eval_key="old")
    rv.evaluate(videos, "model", eval_key="new")
    assert main(["compare", videos.name, "old", "new", "--save-view", "worse"]) == 0
    printed = capsys.readouterr().out
    assert "new against old by JF: 0 wins, 2 losses, 0 ties, mean -0.7500" in printed
    assert "saved as view 'worse'" in printed
    videos.reload()
    saved = videos.load_saved_view("worse")
    assert saved.values("filepath") == ["/videos/1.mp4", "/videos/0.mp4"]
    assert saved.count("frames.ground_truth.detections") == 2 * T  # the App shows the masks, too
    assert main(["compare", videos.name, "old", "newest"]) == 1
    assert "there are: new, old" in capsys.readouterr().err


def test_protocols_by_name(videos, capsys) -> None:
    arguments = ["evaluate", videos.name, "--pred-field", "model", "--eval-key", "run", "--protocol"]
    assert main([*arguments, "davis17-unsupervised"]) == 0
    assert "protocol davis17-unsupervised, fractions" in capsys.readouterr().out
    assert main([*arguments, "gres"]) == 1
    assert "'gres' is for images" in capsys.readouterr().err
    videos.reload()
    assert np.isclose(videos.first()["run_J"], 0.5)
