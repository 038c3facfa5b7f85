"""Ref-DAVIS17: annotators, void pixels, late objects, and the raw texts."""

from __future__ import annotations

from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest

from fiftyone_refvos import types
from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.layouts.ref_davis17 import RefDAVIS17
from fiftyone_refvos.datasets.records import FolderMedia
from fiftyone_refvos.datasets.registry import recognise
from fiftyone_refvos.fields import read_masklets
from tests.label_images import (
    CORNER,
    LEFT,
    RIGHT,
    label_map,
    masks_of,
    records,
    truth,
    unpacked,
    write_json,
    write_label_maps,
)
from tests.mevis_folder import SIZE, write_images

FRAMES = ["00000", "00001", "00002"]
EMPTY = np.zeros(SIZE, dtype=bool)
MAPS = {
    "00000": label_map(_1=LEFT, _255=CORNER),
    "00001": label_map(_1=LEFT, _3=RIGHT),
    "00002": label_map(_255=LEFT, _3=RIGHT),
}


def write_davis(root: Path, split: str = "valid") -> Path:
    """A video with the objects 1 and 3, which comes late."""
    expressions = {str(n): {"exp": f"expression {n}", "obj_id": "1" if n < 4 else "3"} for n in range(8)}
    write_json(
        root / "meta_expressions" / split / "meta_expressions.json",
        {"videos": {"dogs-scale": {"expressions": expressions, "frames": FRAMES}}},
    )
    write_json(root / split / "meta.json", {"videos": {"dogs-scale": {"objects": {"1": {"category": "dog"}}}}})
    write_images(root / split / "JPEGImages" / "dogs-scale", FRAMES)
    write_label_maps(root / split / "Annotations" / "dogs-scale", MAPS)
    return root


def test_void_pixels_are_no_object_and_late_objects_are_found(tmp_path):
    annotations = truth(records(RefDAVIS17(write_davis(tmp_path)), "valid")["dogs-scale"])
    assert [(each.id, each.category) for each in annotations.objects] == [("1", "dog"), ("3", None)]
    assert np.array_equal(masks_of(annotations, "1"), [LEFT, LEFT, EMPTY])
    assert np.array_equal(masks_of(annotations, "3"), [EMPTY, RIGHT, RIGHT])
    assert annotations.void is not None
    assert np.array_equal(unpacked(annotations.void, SIZE), [CORNER, EMPTY, LEFT])


def test_samples_have_annotators_and_void_pixels(tmp_path):
    sample = fo.Dataset.from_dir(str(write_davis(tmp_path)), dataset_type=types.RefDAVIS17).first()
    assert sample.tags == ["valid"]
    labels = sample["expressions"].detections
    assert [label.annotator for label in labels] == [0, 1, 2, 3, 0, 1, 2, 3]
    assert [label.object_ids for label in labels] == [["1"]] * 4 + [["3"]] * 4
    assert [len(sample.frames[n].void.detections) for n in (1, 2, 3)] == [1, 0, 1]
    assert int(sample.frames[1].void.detections[0].mask.sum()) == CORNER.sum()
    found = {masklet.expression.id: masklet for masklet in read_masklets(sample, "ground_truth", exact=True)}
    assert np.array_equal([found["6"].union(t) for t in range(3)], [EMPTY, RIGHT, RIGHT])
    assert sample.metadata.frame_rate == 24


@pytest.mark.parametrize("hint", ["obj_id in valid", "DAVIS", "meta.json"])
def test_it_is_told_from_refer_youtube_vos(tmp_path, hint):
    write_davis(tmp_path, "valid" if hint == "obj_id in valid" else "train")
    if hint == "DAVIS":
        (tmp_path / "DAVIS").mkdir()
        (tmp_path / "train" / "meta.json").unlink()
    assert recognise(tmp_path) == [RefDAVIS17]


def test_categories_are_found_in_the_semantics_of_davis(tmp_path):
    root = write_davis(tmp_path)
    (root / "valid" / "meta.json").unlink()
    write_json(root / "DAVIS" / "davis_semantics.json", {"dogs-scale": {"1": "dog", "3": "scale"}})
    annotations = truth(records(RefDAVIS17(root), "valid")["dogs-scale"])
    assert [each.category for each in annotations.objects] == ["dog", "scale"]


def write_raw(root: Path) -> Path:
    """DAVIS 2017 itself and the text files: misspelt names, two encodings, quotes in a text, an empty line."""
    texts = root / "davis_text_annotations"
    texts.mkdir(parents=True)
    lines = 'dog-scale 1 "the “left”  one"\nother 1 "x"\n\ndogs-scale 3 "a "quoted" thing"\n'
    (texts / "Davis17_annot1.txt").write_text(lines, encoding="utf-8")
    (texts / "Davis17_annot1_full_video.txt").write_text('dogs-scale 3 "full"\r\n', encoding="utf-8")
    (texts / "Davis17_annot2.txt").write_text('dogs-scale 1 "a café"\n', encoding="latin-1")
    (texts / "Davis17_annot2_full_video.txt").write_text('dogs-scale 1 "full café"\n', encoding="latin-1")
    sets = root / "DAVIS" / "ImageSets" / "2017"
    sets.mkdir(parents=True)
    (sets / "val.txt").write_text("dogs-scale\n")
    write_images(root / "DAVIS" / "JPEGImages" / "480p" / "dogs-scale", FRAMES)
    write_label_maps(root / "DAVIS" / "Annotations_unsupervised" / "480p" / "dogs-scale", MAPS)
    return root


def test_without_meta_expressions_the_raw_texts_are_read(tmp_path):
    layout = RefDAVIS17(write_raw(tmp_path))
    assert layout.splits() == ("valid",)
    (record,) = layout.records("valid")
    assert isinstance(record.media, FolderMedia)
    assert record.media.names == ("00000.jpg", "00001.jpg", "00002.jpg")
    found = [(each.id, each.text, each.object_ids, each.attributes["annotator"]) for each in record.expressions]
    assert found == [
        ("0", "the “left”  one", ("1",), 0),
        ("2", "a café", ("1",), 2),
        ("3", "full café", ("1",), 3),
        ("8", 'a "quoted" thing', ("3",), 0),
        ("9", "full", ("3",), 1),
    ]
    assert np.array_equal(masks_of(truth(record), "3"), [EMPTY, RIGHT, RIGHT])


def test_a_line_of_another_form_is_named(tmp_path):
    root = write_raw(tmp_path)
    (root / "davis_text_annotations" / "Davis17_annot1.txt").write_text("dogs-scale the left one\n")
    with pytest.raises(DatasetError, match=r"annot1\.txt, line 1 is 'dogs-scale the left one'"):
        RefDAVIS17(root).records("valid")
