"""Frames of image folders, and clips of any source."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fiftyone_refvos.video import (
    Frame,
    VideoError,
    VideoFrames,
    clip,
    open_frames,
    open_frames_dir,
    open_video,
)
from tests.numbered import PICTURES, encode, numbered, numbers
from tests.shared import shared_path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Five numbered PNGs, those with numbers as names first and in their order, and files that are no frames."""
    for number, name in enumerate(["1.png", "2.png", "10.png", "a.PNG", "b.png"]):
        Image.fromarray(numbered(number)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / "._1.png").write_text("what macOS leaves behind")
    return tmp_path


def test_folder(images: Path) -> None:
    source = open_frames(images)
    assert source.name == str(images)
    assert source.size == (48, 80)
    assert numbers(source) == list(range(5))
    assert numbers(source, [4, 0, 4]) == [4, 0, 4]
    for frame, number in zip(source.read([3]), [3], strict=True):
        np.testing.assert_array_equal(frame, numbered(number))
    assert numbers(pickle.loads(pickle.dumps(source))) == list(range(5))


def test_folder_with_names(images: Path) -> None:
    source = open_frames_dir(images, ["b.png", "1.png"])
    assert numbers(source) == [4, 0]
    with pytest.raises(IndexError, match="no frame 2: its frames are 0 to 1"):
        numbers(source, [2])


def test_folder_errors(images: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(VideoError, match=r"holds no images; put the frames there as \.bmp"):
        open_frames(empty)
    with pytest.raises(VideoError, match="there is no such folder"):
        open_frames_dir(empty / "missing")
    with pytest.raises(VideoError, match=r"7.png: there is no such image; check the list"):
        numbers(open_frames_dir(images, ["1.png", "7.png"]))
    Image.fromarray(numbered(0, 96, 48)).save(images / "2.png")
    with pytest.raises(VideoError, match=r"2.png: is 96x48, but 1.png is 80x48; bring all frames"):
        numbers(open_frames_dir(images))
    noise = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(images / "cut.jpg")
    (images / "cut.jpg").write_bytes((images / "cut.jpg").read_bytes()[:1500])
    for name, content in [("cut.jpg", None), ("text.png", b"text"), ("empty.png", b"")]:
        if content is not None:
            (images / name).write_bytes(content)
        with pytest.raises(VideoError, match=rf"{name}: is no readable image .*; copy"):
            open_frames_dir(images, [name])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_as_by_opencv(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(numbered(9)).save(tmp_path / "0.jpg", exif=exif)
    source = open_frames_dir(tmp_path)
    expected = _opencv(tmp_path / "0.jpg")
    np.testing.assert_array_equal(next(source.read([0])), expected)
    assert source.size == expected.shape[:2]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1"])
def test_other_image_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    Image.fromarray(numbered(3)).convert(mode).save(tmp_path / "0.png")
    assert next(open_frames_dir(tmp_path).read([0])).shape == (48, 80, 3)


@pytest.fixture
def video(tmp_path: Path) -> VideoFrames:
    return open_video(encode(tmp_path / "constant.mp4", PICTURES))


def test_clip(video: VideoFrames, images: Path) -> None:
    part = clip(video, 10, 19)
    assert len(part) == 10
    assert part.size == video.size
    assert numbers(part) == list(range(10, 20))
    assert numbers(part, [9, 0]) == [19, 10]
    assert numbers(clip(part, 2, 2)) == [12]
    assert numbers(clip(open_frames(images), 1, 3)) == [1, 2, 3]
    assert numbers(pickle.loads(pickle.dumps(part)), [1]) == [11]
    with pytest.raises(IndexError, match=r"constant.mp4\[10..19\] has no frame 10: its frames are 0 to 9"):
        numbers(part, [10])


@pytest.mark.parametrize(("first", "last"), [(-1, 3), (3, 2), (0, 60)])
def test_clip_outside(video: VideoFrames, first: int, last: int) -> None:
    with pytest.raises(IndexError, match=f"frames {first} to {last} are no clip of .*: its frames are 0 to 59"):
        clip(video, first, last)


def test_dataset_frames() -> None:
    folder = next(path for path in sorted(shared_path("data", "mevis").rglob("JPEGImages/*")) if path.is_dir())
    source = open_frames_dir(folder)
    for name, frame in zip(source.names[:3], source.read(range(3)), strict=True):
        np.testing.assert_array_equal(frame, _opencv(folder / name))


def _opencv(path: Path) -> Frame:
    image = cv2.imread(str(path))
    assert image is not None
    return image[..., ::-1].astype(np.uint8)
