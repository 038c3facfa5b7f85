"""Annotation images with one object per pixel: palette, overlaps, numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fiftyone_refvos.datasets.masks import to_rle
from fiftyone_refvos.datasets.records import Annotations, FileMedia, MediaRecord, ObjectRecord
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.label_maps import label_map, label_numbers, voc_palette
from fiftyone_refvos.exports.records import Exported
from tests.mevis_folder import SIZE, box_mask
from tests.shared import shared_path


def exported(*ids: str) -> Exported:
    record = MediaRecord("some/video", "train", FileMedia(Path("a.mp4")), ())
    return Exported(record, Annotations(SIZE, tuple(ObjectRecord(id_, (None,)) for id_ in ids)), ("00000",))


def test_the_palette_is_that_of_the_datasets(tmp_path):
    assert voc_palette()[:12] == (0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0)
    assert voc_palette()[-3:] == (224, 224, 192)
    original = next(shared_path("data", "Refer-YouTube-VOS", "train", "Annotations").rglob("*.png"))
    with Image.open(original) as image:
        stored = image.getpalette()
        assert stored is not None
        assert tuple(stored) == voc_palette()[: len(stored)]
        pixels = np.array(image)
    masks = {int(value): to_rle(pixels == value) for value in np.unique(pixels) if value}
    label_map(masks, pixels.shape).save(tmp_path / "again.png")
    with Image.open(tmp_path / "again.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.array(image), pixels)


def test_of_overlapping_objects_the_smaller_one_lies_on_top_and_the_loss_is_counted():
    large, small = box_mask(0, 0, 20, 20), box_mask(10, 10, 15, 15)
    drawn = label_map({1: to_rle(small), 2: to_rle(large), 3: None}, SIZE)
    assert (drawn.pixels[small] == 1).all()
    assert (drawn.pixels[large & ~small] == 2).all()
    assert not drawn.pixels[~large & ~small].any()
    assert drawn.hidden == 100


def test_of_equally_large_objects_the_higher_number_lies_on_top():
    one, two = box_mask(0, 0, 10, 10), box_mask(0, 5, 10, 10)
    drawn = label_map({2: to_rle(two), 1: to_rle(one)}, SIZE)
    assert (drawn.pixels[two] == 2).all()
    assert drawn.hidden == 50


def test_void_lies_below_the_objects():
    thing, void = box_mask(0, 0, 10, 10), box_mask(5, 5, 10, 10)
    drawn = label_map({254: to_rle(thing)}, SIZE, to_rle(void))
    assert (drawn.pixels[thing] == 254).all()
    assert (drawn.pixels[void & ~thing] == 255).all()
    assert drawn.hidden == 0


def test_objects_keep_ids_that_are_numbers_from_1_and_are_counted_otherwise():
    assert label_numbers(exported("2", "254")) == {"2": 2, "254": 254}
    assert label_numbers(exported("0", "1")) == {"0": 1, "1": 2}
    assert label_numbers(exported("a", "7")) == {"a": 1, "7": 2}
    with pytest.raises(ExportError, match="object '255' of 'some/video' would be number 255"):
        label_numbers(exported("1", "255"))
