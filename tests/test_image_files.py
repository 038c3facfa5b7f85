"""Image files of every kind, read as one: RGB with eight bits, as it is displayed."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import SAMPLEFORMAT

from fiftyone_refvos.image_files import open_image, read_image
from fiftyone_refvos.video import VideoError

DEEP = np.array([[0, 255, 256], [32768, 65279, 65535]], dtype=np.uint16)
SHALLOW = [[0, 0, 1], [128, 254, 255]]
COLOURS = np.random.default_rng(0).integers(0, 256, (3, 5, 3), dtype=np.uint8)


def save(path: Path, pixels: Any, mode: str | None = None, **options: Any) -> Path:
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def test_colours_come_as_they_are(tmp_path: Path) -> None:
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", COLOURS)), COLOURS)


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_is_the_same_in_every_channel(tmp_path: Path, mode: str) -> None:
    path = save(tmp_path / "a.png", COLOURS, mode)
    grey = np.array(Image.fromarray(COLOURS).convert("1" if mode == "1" else "L").convert("L"))
    np.testing.assert_array_equal(read_image(path), np.repeat(grey[..., None], 3, axis=2))


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    image.putpalette([10, 20, 30, 200, 100, 0])
    image.save(tmp_path / "a.png", transparency=0)
    assert read_image(tmp_path / "a.png").tolist() == [[[10, 20, 30], [200, 100, 0]]]


def test_opacity_is_ignored_as_by_opencv(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", np.array([[[10, 20, 30, 0], [200, 100, 0, 128]]], dtype=np.uint8))
    assert read_image(path).tolist() == [[[10, 20, 30], [200, 100, 0]]]
    by_opencv = cv2.imread(str(path))
    assert by_opencv is not None
    np.testing.assert_array_equal(read_image(path), by_opencv[..., ::-1])


def test_inks_become_light(tmp_path: Path) -> None:
    white = np.full((8, 8, 3), 255, dtype=np.uint8)
    assert (read_image(save(tmp_path / "a.tiff", white, "CMYK")) == 255).all()
    assert (read_image(save(tmp_path / "b.tiff", white * 0, "CMYK")) == 0).all()


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm"])
def test_of_16_bits_the_upper_eight_count(tmp_path: Path, name: str) -> None:
    pixels = read_image(save(tmp_path / name, DEEP))
    assert (pixels.dtype, pixels[..., 0].tolist()) == (np.uint8, SHALLOW)
    assert (pixels == pixels[..., :1]).all()


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_of_16_bits_are_scaled_as_grey_is(tmp_path: Path, channels: int) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.dstack([DEEP] * channels))
    assert read_image(tmp_path / "a.png")[..., 0].tolist() == SHALLOW


def test_the_orientation_of_16_bits_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path / "a.png", DEEP, exif=exif)
    np.testing.assert_array_equal(read_image(path)[..., 0], np.rot90(SHALLOW, -1))


DARK = np.full((2, 3), 200)


@pytest.mark.parametrize(
    "values",
    [DEEP.astype(np.float32), DEEP.astype(np.int32) * 2, DARK.astype(np.int32), DARK.astype(np.int32) - 205],
)
def test_32_bits_tell_no_brightness(tmp_path: Path, values: Any) -> None:
    path = save(tmp_path / "a.tiff", values)
    with pytest.raises(
        VideoError, match=r"a.tiff: has 32 bits per pixel, which tell no brightness; convert it to 8 or 16"
    ):
        read_image(path)


def test_32_bits_without_a_sign_tell_no_brightness(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tiff", DARK.astype(np.int32))
    signed, unsigned = (struct.pack("<HHLL", SAMPLEFORMAT, 3, 1, value) for value in (2, 1))
    assert signed in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(signed, unsigned))
    with pytest.raises(VideoError, match=r"a.tiff: has 32 bits per pixel, which tell no brightness"):
        read_image(path)


@pytest.mark.parametrize("value", [-5, 5])
@pytest.mark.parametrize(("kind", "bits"), [(np.int8, 8), (np.int16, 16)])
def test_signed_integers_tell_no_brightness_and_are_called_so(
    tmp_path: Path, kind: type[np.signedinteger[Any]], bits: int, value: int
) -> None:
    cv2.imwrite(str(tmp_path / "a.tiff"), np.full((2, 3), value, dtype=kind))
    with pytest.raises(VideoError, match=rf"a.tiff: has signed integers of {bits} bits, .* 16 bits, unsigned"):
        read_image(tmp_path / "a.tiff")


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = save(tmp_path / "a.jpg", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:1500] if content is None else content)
    with pytest.raises(VideoError, match=r"a.jpg: is no readable image .*; copy or download it again"):
        open_image(path)


def test_an_image_of_one_pixel_is_a_video_of_one_frame(tmp_path: Path) -> None:
    source = open_image(save(tmp_path / "a.png", COLOURS[:1, :1]))
    assert (len(source), source.size, source.name) == (1, (1, 1), str(tmp_path / "a.png"))
    assert [frame.tolist() for frame in source.read([0, 0])] == [COLOURS[:1, :1].tolist()] * 2
    with pytest.raises(IndexError, match=r"a.png is an image, and has no frame 1"):
        next(source.read([1]))
