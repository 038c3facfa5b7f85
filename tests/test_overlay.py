"""Masks drawn over frames, and the videos that are written."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiftyone_refvos.overlay import draw_masks, expression_colors, write_video
from fiftyone_refvos.video import Frame, open_video
from tests.numbered import PICTURES, numbered, numbers
from tests.shared import shared_path

GREY = np.full((12, 16, 3), 100, dtype=np.uint8)
SQUARE = np.zeros((12, 16), dtype=bool)
SQUARE[3:9, 4:12] = True


def test_fill_and_contour() -> None:
    drawn = draw_masks(GREY, SQUARE[None], [(200, 0, 100)], alpha=0.25)
    assert drawn.dtype == np.uint8
    assert (drawn[~SQUARE] == 100).all()
    inner = np.zeros_like(SQUARE)
    inner[4:8, 5:11] = True
    assert (drawn[inner] == (125, 75, 100)).all()
    assert (drawn[SQUARE & ~inner] == (200, 0, 100)).all()
    assert (GREY == 100).all()  # the frame itself is untouched


def test_contour_is_wider_on_large_frames() -> None:
    frame, mask = np.zeros((720, 960, 3), dtype=np.uint8), np.zeros((1, 720, 960), dtype=bool)
    mask[0, 100:400, 100:400] = True
    drawn = draw_masks(frame, mask, [(255, 255, 255)], alpha=0.5)
    assert drawn[250, 100:105, 0].tolist() == [255, 255, 255, 128, 128]


def test_no_contour_along_the_border_of_the_frame() -> None:
    everything = np.ones((1, 12, 16), dtype=bool)
    assert (draw_masks(GREY, everything, [(0, 0, 0)], alpha=0.5) == 50).all()


def test_later_masks_and_all_contours_lie_on_top() -> None:
    other = np.zeros_like(SQUARE)
    other[0:12, 6:10] = True
    drawn = draw_masks(GREY, np.stack([SQUARE, other]), [(0, 0, 0), (250, 250, 250)], alpha=1)
    assert (drawn[5, 7] == 250).all()  # inside both
    assert (drawn[3, 7] == 0).all()  # the first one's contour, inside the second


def test_nothing_to_draw() -> None:
    np.testing.assert_array_equal(draw_masks(GREY, np.zeros((0, 12, 16), dtype=bool), []), GREY)
    np.testing.assert_array_equal(draw_masks(GREY, np.zeros((1, 12, 16), dtype=bool), [(9, 9, 9)]), GREY)


@pytest.mark.parametrize(
    ("masks", "colors", "alpha", "message"),
    [
        (np.zeros((1, 12, 15)), [(0, 0, 0)], 0.5, r"shape \(N, 12, 16\), got \(1, 12, 15\)"),
        (np.zeros((12, 16)), [(0, 0, 0)], 0.5, r"shape \(N, 12, 16\), got \(12, 16\)"),
        (np.zeros((2, 12, 16)), [(0, 0, 0)], 0.5, "one colour per mask, got 1 for 2 masks"),
        (np.zeros((1, 12, 16)), [(0, 0, 0)], 1.5, r"alpha must lie in \[0, 1\], got 1.5"),
    ],
)
def test_what_does_not_fit_is_refused(masks, colors, alpha: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_masks(GREY, masks, colors, alpha)


@settings(deadline=None)  # the machine may be busy
@given(st.integers(0, 200), st.integers(0, 200))
def test_colors_are_distinct_and_the_same_for_every_count(fewer: int, more: int) -> None:
    colors = expression_colors(max(fewer, more))
    assert colors.dtype == np.uint8
    assert colors.shape == (max(fewer, more), 3)
    assert len(np.unique(colors, axis=0)) == len(colors)
    np.testing.assert_array_equal(expression_colors(min(fewer, more)), colors[: min(fewer, more)])


def test_first_colors_differ_also_for_the_colour_blind() -> None:
    """Distances as protanopes and deuteranopes see them, by Viénot's projections of linear RGB."""
    linear = (expression_colors(7) / 255.0) ** 2.2
    seen = {
        "all": np.eye(3),
        "protanopia": np.array([[0.1124, 0.8876, 0], [0.1124, 0.8876, 0], [0.0040, -0.0040, 1]]),
        "deuteranopia": np.array([[0.2928, 0.7072, 0], [0.2928, 0.7072, 0], [-0.0223, 0.0223, 1]]),
    }
    for vision, projection in seen.items():
        shown = 255 * np.clip(linear @ projection.T, 0, 1) ** (1 / 2.2)
        distances = np.linalg.norm(shown[:, None] - shown[None], axis=2) + 1000 * np.eye(7)
        assert distances.min() > 30, vision


def test_negative_count_of_colors() -> None:
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        expression_colors(-1)


@pytest.mark.parametrize("rate", [25, 29.97002997002997, Fraction(24000, 1001), 6])
def test_frame_k_is_image_k(tmp_path: Path, rate: float | Fraction) -> None:
    count = write_video(tmp_path / "clip.mp4", iter(PICTURES), rate)
    source = open_video(tmp_path / "clip.mp4")
    assert count == len(source) == 60
    assert float(source.frame_rate) == pytest.approx(float(rate), rel=1e-9)
    assert source.start_time == 0
    assert numbers(source) == list(range(60))
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]


def test_browsers_can_play_it(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_video(path, PICTURES, 25, gop_size=10)
    fields = "codec_name,pix_fmt,nb_frames,color_space,color_range"
    command = [
        "ffprobe",
        "-v",
        "error",
        "-show_entries",
        f"stream={fields}",
        "-of",
        "default=nw=1",
        str(path),
    ]
    shown = dict(line.split("=") for line in subprocess.check_output(command, text=True).split())
    assert shown == {
        "codec_name": "h264",
        "pix_fmt": "yuv420p",
        "nb_frames": "60",
        "color_space": "bt709",
        "color_range": "tv",
    }
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # faststart
    with av.open(str(path)) as container:
        keys = [number for number, packet in enumerate(container.demux(video=0)) if packet.is_keyframe]
    assert max(np.diff(keys)) <= 10


def test_colors_stay(tmp_path: Path) -> None:
    blocks = np.repeat(expression_colors(6)[None], 64, axis=0).repeat(32, axis=1)
    write_video(tmp_path / "colors.mp4", [blocks] * 2, 10, crf=10)
    frame = next(open_video(tmp_path / "colors.mp4").read([1])).astype(int)
    assert np.abs(frame - blocks)[:, 16::32].max() <= 3


def test_odd_sizes_are_padded_right_and_bottom(tmp_path: Path) -> None:
    frames = [numbered(number, 81, 49) for number in range(5)]
    write_video(tmp_path / "odd.mp4", frames, 10, crf=5)
    source = open_video(tmp_path / "odd.mp4")
    assert source.size == (50, 82)
    assert numbers(source) == list(range(5))
    frame = next(source.read([4])).astype(int)
    assert np.abs(frame[:49, :81] - frames[4]).mean() < 6
    assert np.abs(frame[49, :81] - frames[4][48]).mean() < 6


def test_one_image(tmp_path: Path) -> None:
    assert write_video(tmp_path / "one.mp4", [numbered(7)], 24) == 1
    assert numbers(open_video(tmp_path / "one.mp4")) == [7]


def _failing() -> Iterator[Frame]:
    yield PICTURES[0]
    raise RuntimeError("the model stopped")


@pytest.mark.parametrize(
    ("frames", "rate", "error", "message"),
    [
        ([], 25, ValueError, "there is no frame to write"),
        (
            [PICTURES[0], numbered(1, 88)],
            25,
            ValueError,
            r"frame 1 is \(48, 88, 3\), the first is \(48, 80, 3\)",
        ),
        ([PICTURES[0] / 255], 25, ValueError, r"expected frames \(H, W, 3\) uint8, frame 0 is .* float64"),
        (PICTURES, 0, ValueError, "the frame rate must be positive, got 0"),
        (_failing(), 25, RuntimeError, "the model stopped"),
    ],
)
def test_a_failure_leaves_the_former_file(tmp_path: Path, frames, rate, error, message: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"former")
    with pytest.raises(error, match=message):
        write_video(path, frames, rate)
    assert path.read_bytes() == b"former"
    assert list(tmp_path.iterdir()) == [path]


def test_real_clip(tmp_path: Path) -> None:
    source = open_video(shared_path("video", "dog.mp4"))
    height, width = source.size
    mask = np.zeros((1, height, width), dtype=bool)
    mask[0, 300:600, 400:800] = True
    frames = (draw_masks(frame, mask, expression_colors(1)) for frame in source.read(range(5)))
    assert write_video(tmp_path / "dog.mp4", frames, source.frame_rate) == 5
    written = next(open_video(tmp_path / "dog.mp4").read([2])).astype(int)
    original = next(source.read([2])).astype(int)
    assert np.abs(written - original)[~mask[0]].mean() < 3
    assert np.abs(written[303:597, 403:797] - original[303:597, 403:797]).mean() > 30
