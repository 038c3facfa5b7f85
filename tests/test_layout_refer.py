"""RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO: references become expressions of images, with exact masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest

from fiftyone_refvos import types
from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.importer import ReferringDatasetImporter, importer_for
from fiftyone_refvos.datasets.layouts.refer import GRefCOCO, RefCOCO, RefCOCOg
from fiftyone_refvos.datasets.registry import recognise
from fiftyone_refvos.fields import read_masklets
from tests.mevis_folder import SIZE, box_mask, picture, rle
from tests.refer_folder import ANNOTATIONS, REFS, annotation, box, ref
from tests.refer_folder import write_refer as write


def load(root: Path, kind: Any = types.RefCOCO, **options: Any) -> fo.Dataset:
    return fo.Dataset.from_dir(str(root), dataset_type=kind, **options)


def truth(sample: fo.Sample) -> dict[str, np.ndarray]:
    return {each.expression.id: each.union(0) for each in read_masklets(sample, "ground_truth", exact=True)}


def test_an_image_has_the_sentences_of_its_split_and_all_objects(tmp_path):
    dataset = load(write(tmp_path, REFS))
    assert dataset.media_type == "image"
    assert [(s.tags, s["image_name"], s["image_id"]) for s in dataset] == [
        (["train"], "COCO_train2014_000000000007", 7),
        (["val"], "COCO_train2014_000000000007", 7),
        (["testA"], "COCO_train2014_000000000008", 8),
    ]
    sample = dataset.first()
    assert sample.filepath == str(tmp_path / "images/mscoco/images/train2014/COCO_train2014_000000000007.jpg")
    assert (sample.metadata.width, sample.metadata.height) == (SIZE[1], SIZE[0])
    labels = sample["expressions"].classifications
    assert [(e.expression_id, e.label, e.ref_id, e.sent_id, e.object_ids) for e in labels] == [
        ("100", "the left one", 1, 100, ["11"]),
        ("101", "das linke Ümläut 左", 1, 101, ["11"]),
        ("102", "the right one", 2, 102, ["12"]),
    ]
    right = box_mask(5, 20, 10, 10) | box_mask(10, 25, 10, 15)
    found = truth(sample)
    assert np.array_equal(found["100"], box_mask(3, 2, 6, 8))
    assert np.array_equal(found["101"], box_mask(3, 2, 6, 8))
    assert np.array_equal(found["102"], right)
    detections = sample["ground_truth"].detections
    assert [(d.object_id, d.anno_id, d.category, d.expression_id, d.label) for d in detections] == [
        ("11", "11", "cat", "100", "the left one"),
        ("11", "11", "cat", "101", "das linke Ümläut 左"),
        ("12", "12", "dog", "102", "the right one"),
        ("14", "14", "cat", None, "cat"),
    ]


def test_an_import_goes_on_where_images_are_in_several_splits(tmp_path):
    write(tmp_path, REFS)
    dataset = load(tmp_path, split="val")
    dataset.add_dir(str(tmp_path), dataset_type=types.RefCOCO)
    assert [(s.tags[0], s["image_id"]) for s in dataset] == [("val", 7), ("train", 7), ("testA", 8)]


def test_datasets_that_share_images_can_be_in_one_dataset(tmp_path):
    write(tmp_path, REFS)
    write(tmp_path, [ref(0, 7, 11, [(100, "the cat, not where")])], folder="refcoco+")
    dataset = load(tmp_path)
    for _ in range(2):
        dataset.add_dir(str(tmp_path), dataset_type=types.RefCOCOPlus)
        texts = [sample["expressions"].classifications[0].label for sample in dataset]
        assert texts.count("the cat, not where") == 1
        assert len(dataset) == 4


def test_a_reference_of_grefcoco_means_several_objects_or_none(tmp_path):
    refs = [
        ref(0, 7, [11, "12", 11], [(0, "both")]),
        ref(1, 7, [-1], [(1, "the elephant")]),
        ref(2, 8, ["13"], [(2, "one")], "testB"),
    ]
    write(tmp_path, refs, folder="grefcoco", name="grefs(unc).json", images="images/train2014")
    dataset = load(tmp_path, types.GRefCOCO)
    labels = dataset.first()["expressions"].classifications
    assert [(e.object_ids, e.no_target) for e in labels] == [(["11", "12"], False), ([], True)]
    found = truth(dataset.first())
    both = box_mask(3, 2, 6, 8) | box_mask(5, 20, 10, 10) | box_mask(10, 25, 10, 15)
    assert np.array_equal(found["0"], both)
    assert not found["1"].any()
    assert dataset.last().tags == ["testB"]


def test_an_image_without_objects_is_annotated_as_empty(tmp_path):
    write(tmp_path, [ref(0, 8, [-1], [(0, "a dog")])], [], folder="grefcoco", name="grefs(unc).json")
    sample = load(tmp_path, types.GRefCOCO).first()
    assert sample["ground_truth"].detections == []
    assert sample["expressions"].classifications[0].no_target


def test_of_several_authors_one_is_read_and_not_mixed(tmp_path):
    write(tmp_path, [ref(1, 7, 11, [(1, "google's")], "val")], folder="refcocog", name="refs(google).p")
    assert load(tmp_path, types.RefCOCOg).first()["expressions"].classifications[0].label == "google's"
    write(tmp_path, [ref(1, 7, 11, [(1, "umd's")], "test")], folder="refcocog", name="refs(umd).p")
    (sample,) = load(tmp_path, types.RefCOCOg)
    assert (sample.tags, sample["expressions"].classifications[0].label) == (["test"], "umd's")


def test_ids_as_text_and_sentences_that_come_twice_are_taken(tmp_path):
    annotations = [annotation("11", 7, [box(2, 3, 10, 9)])]
    refs = [ref(1, 7, "11", [(5, "same"), (5, "same")]), ref(2, 7, 11, [(5, "same"), (6, "same")])]
    sample = load(write(tmp_path, refs, annotations, protocol=0)).first()
    labels = sample["expressions"].classifications
    assert [(e.expression_id, e.ref_id) for e in labels] == [("5", 1), ("5_2", 1), ("5_3", 2), ("6", 2)]
    assert all(np.array_equal(mask, box_mask(3, 2, 6, 8)) for mask in truth(sample).values())
    assert len(truth(sample)) == 4


def test_run_lengths_and_polygons_that_leave_the_image_or_enclose_nothing(tmp_path):
    crowd = box_mask(1, 2, 3, 4)
    runs = [int(n) for n in np.diff(np.flatnonzero(np.diff(np.r_[2, crowd.T.ravel(), 2])))]
    annotations = [
        annotation(1, 7, {"size": list(SIZE), "counts": runs}),
        annotation(2, 7, rle(crowd)),
        annotation(3, 7, [box(-4, -3, 6, 5)]),
        annotation(4, 7, [[3, 3, 9, 9], box(2, 3, 10, 9), [1, 1]]),
        annotation(5, 7, [[3, 3, 9, 9]]),
    ]
    refs = [ref(n, 7, n, [(n, f"number {n}")]) for n in range(1, 6)]
    found = truth(load(write(tmp_path, refs, annotations)).first())
    expected = [crowd, crowd, box_mask(0, 0, 5, 6), box_mask(3, 2, 6, 8), np.zeros(SIZE, dtype=bool)]
    for n, mask in enumerate(expected, start=1):
        assert np.array_equal(found[str(n)], mask), n


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 2, 3, 4, 5]],
        [[0, 0, 1e9, 0, 1e9, 1e9]],
        [[0, 0, float("nan"), 0, 5, 5]],
        [[0, 0, "5", 0, 5, 5]],
        [1, 2, 3, 4, 5, 6],
        {"size": [5, 5], "counts": [25]},
    ],
)
def test_damaged_segmentations_name_annotation_and_image(tmp_path, segmentation):
    write(tmp_path, REFS[:1], [annotation(11, 7, segmentation)])
    with pytest.raises(DatasetError, match=r"instances\.json, annotation 11 of image 7"):
        load(tmp_path)


def _resize(root: Path) -> None:
    picture(0, (20, 20)).save(next(root.glob("images/**/*07.jpg")))


def _remove_image(root: Path) -> None:
    next(root.glob("images/**/*07.jpg")).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: write(root, [ref(9, 7, 99, [(0, "x")])]), r"reference 9 names the annotation 99"),
        (lambda root: write(root, [ref(9, 7, 13, [(0, "x")])]), r"reference 9 names the annotation 13.*image 7"),
        (lambda root: write(root, [ref(9, 77, 11, [(0, "x")])]), r"does not list the image 77, which reference 9"),
        (lambda root: write(root, [{"ref_id": 1}]), r"refs\(unc\)\.p, reference 0 has no 'ann_id'"),
        (lambda root: write(root, REFS, [ANNOTATIONS[0]] * 2), "annotation 11 of image 7 is there twice"),
        (lambda root: (root / "refcoco" / "instances.json").unlink(), r"instances\.json is missing"),
        (lambda root: (root / "refcoco" / "instances.json").write_text("{}"), r"instances\.json has no 'categories'"),
        (lambda root: (root / "refcoco" / "refs(unc).p").write_bytes(b"cos\nsystem\n."), r"os\.system"),
        (_resize, r"0007\.jpg is 20x20, but .*instances\.json says 33x47"),
        (_remove_image, r"0007\.jpg cannot be read"),
    ],
)
def test_damaged_folders_give_errors_that_name_what_is_wrong(tmp_path, damage, message):
    write(tmp_path, REFS[:1])
    damage(tmp_path)
    with pytest.raises(DatasetError, match=message):
        load(tmp_path)


def test_missing_images_can_be_skipped_and_are_listed(tmp_path):
    write(tmp_path, REFS)
    _remove_image(tmp_path)
    importer: ReferringDatasetImporter = importer_for(RefCOCO)(tmp_path, skip_failures=True)
    dataset = fo.Dataset()
    dataset.add_importer(importer)
    assert dataset.values("image_id") == [8]
    assert [(f.split, f.name) for f in importer.failures] == [
        ("train", "COCO_train2014_000000000007"),
        ("val", "COCO_train2014_000000000007"),
    ]


def test_the_folder_of_all_four_and_that_of_one_are_recognised(tmp_path):
    write(tmp_path, REFS)
    write(tmp_path, REFS, folder="refcocog", name="refs(umd).p")
    assert recognise(tmp_path) == [RefCOCO, RefCOCOg]
    assert recognise(tmp_path / "refcocog") == [RefCOCOg]
    assert load(tmp_path / "refcocog", types.RefCOCOg, split="val").values("image_id") == [7]
    with pytest.raises(DatasetError, match="no split of gRefCOCO"):
        importer_for(GRefCOCO)(tmp_path).preview()
