"""The command line: each verb does what its library call does, and errors are one line."""

from __future__ import annotations

from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.cli import main
from fiftyone_refvos.video import open_video
from tests.small import glus_tiny
from tests.videos import write_clip


def test_segment_writes_into_a_dataset(dataset, tmp_path: Path, capsys) -> None:
    dataset.add_sample(fo.Sample(filepath=str(write_clip(tmp_path / "clip.mp4"))))
    arguments = [
        "segment",
        dataset.name,
        "--label-field",
        "tiny",
        "--prompt",
        "the square",
        "--device",
        "cpu",
    ]
    assert main(arguments) == 0
    assert "1 masklets of 1 videos written to 'frames.tiny'" in capsys.readouterr().out
    dataset.reload()
    (masklet,) = fields.read_masklets(dataset.first(), "tiny")
    assert masklet.frames == (0, 1, 2, 3, 4, 5)
    assert main([*arguments[:4], "--prompt-field", "expressions", "--device", "cpu"]) == 0
    assert "1 videos were complete" in capsys.readouterr().out


def test_segment_with_failures_has_exit_status_1(dataset, tmp_path: Path, capsys) -> None:
    dataset.add_sample(fo.Sample(filepath=str(tmp_path / "gone.mp4")))
    assert main(["segment", dataset.name, "--label-field", "tiny", "--prompt", "x", "--device", "cpu"]) == 1
    assert "failed: " in capsys.readouterr().out


def test_errors_are_one_line(capsys) -> None:
    assert main(["segment", "no-such-dataset", "--label-field", "tiny"]) == 1
    error = capsys.readouterr().err
    assert "no-such-dataset" in error
    assert "Traceback" not in error
    assert main(["segment-video", "gone.mp4", "a dog", "--device", "cpu"]) == 1
    assert "refvos segment-video: gone.mp4: there is no such file" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["segment"])


def test_segment_video_needs_no_dataset(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "clip.mp4", num_frames=5, size=(49, 63))
    model = ["--model", "glus-tiny", "--device", "cpu"]
    assert main(["segment-video", "clip.mp4", "the square", "a dog", *model]) == 0
    printed = capsys.readouterr().out
    assert "'the square': " in printed
    assert "overlay: clip_masklets.mp4" in printed
    overlay = open_video(tmp_path / "clip_masklets.mp4")
    assert (len(overlay), overlay.size, overlay.frame_rate) == (5, (50, 64), 10)


def test_segment_video_gives_the_masklets_and_draws_them(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    result = rv.segment_video(path, "the square", model=glus_tiny(), output=tmp_path / "out.mp4")
    (masklet,) = result.masklets
    expected = {r.frame: r.masks for r in glus_tiny().segment(open_video(path), [masklet.expression])}
    assert all((masklet.union(frame) == expected[frame][0]).all() for frame in expected)
    plain, drawn = (next(open_video(p).read([0])).astype(int) for p in (path, result.overlay))
    inside = masklet.union(0)
    difference = np.abs(plain - drawn).max(axis=2)
    assert np.median(difference[inside]) > 20
    assert np.median(difference[~inside]) < 10


def test_segment_video_refuses_an_overlay_that_cannot_be_written_before_it_works(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    content = path.read_bytes()
    with pytest.raises(ValueError, match="would replace the video"):
        rv.segment_video(path, "x", model=glus_tiny(), output=path)
    with pytest.raises(ValueError, match="make the folder .*gone first"):
        rv.segment_video(path, "x", model="glus", output=tmp_path / "gone" / "out.mp4")
    with pytest.raises(ValueError, match="loaded already, so device cannot be set"):
        rv.segment_video(path, "x", model=glus_tiny(), output=tmp_path / "out.mp4", device="cpu")
    assert path.read_bytes() == content


def test_demo_of_what_is_no_video_leaves_no_dataset(tmp_path: Path, fiftyone_home, capsys) -> None:
    (tmp_path / "notes.txt").write_text("words")
    assert main(["demo", "--video", str(tmp_path / "notes.txt")]) == 1
    assert "is no readable video" in capsys.readouterr().err
    assert not fo.dataset_exists("refvos-clip")
    clip = write_clip(tmp_path / "clip.mp4")
    assert main(["demo", "--video", str(clip), "--expression", "the square"]) == 0
    assert "The dataset 'refvos-clip' now holds" in capsys.readouterr().out
    fo.delete_dataset("refvos-clip")


def test_demo_masks_the_objects_that_are_meant_in_generated_videos(fiftyone_home, capsys) -> None:
    assert main(["demo", "--videos", "1"]) == 0
    assert "The dataset 'refvos-demo-1' now holds" in capsys.readouterr().out
    dataset = fo.load_dataset("refvos-demo-1")
    assert rv.evaluate(dataset, "glus_tiny", eval_key="demo").metrics()["J&F"] > 0.75
    dataset.delete()


def test_segment_video_takes_an_image_folder(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for number in range(3):
        pixels = np.full((40, 60, 3), 60 * number, dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "frames" / f"{number}.png")
    result = rv.segment_video(tmp_path / "frames", ["x", "x"], model=glus_tiny(), output=tmp_path / "o.mp4")
    assert len(result.masklets) == 1  # the same text twice is one expression
    assert len(open_video(result.overlay)) == 3
    Image.fromarray(np.zeros((41, 60, 3), dtype=np.uint8)).save(tmp_path / "frames" / "3.png")
    with pytest.raises(ValueError, match=r"3\.png"):
        rv.segment_video(tmp_path / "frames", "x", model=glus_tiny(), output=tmp_path / "p.mp4")
    assert not (tmp_path / "p.mp4").exists()
