"""A2D-Sentences: masks of a few frames, transposed, in HDF5; sentences in a CSV file."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import fiftyone as fo
import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from fiftyone_refvos import types
from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.fields import read_masklets
from tests.mevis_folder import box_mask
from tests.videos import write_clip

SIZE = (48, 64)
LEFT, RIGHT, LOW = (box_mask(*where, SIZE) for where in ((3, 2, 10, 20), (5, 40, 12, 9), (40, 0, 8, 64)))


def write_h5(path: Path, masks: Mapping[int, NDArray[np.bool_]], labels: Sequence[float] = (), **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stack = np.stack([mask.T.astype(np.uint8) for mask in masks.values()])
    content = {
        "instance": np.array(list(masks), dtype=np.int32),
        "reMask": stack[0] if len(stack) == 1 else stack,
        "id": np.array([labels or [13.0] * len(masks)]),
    } | more
    with h5py.File(path, "w") as file:
        for name, value in content.items():
            if value is not None:
                file[name] = value


def write_a2d(root: Path, sentences: str, missed: str = "", videos: Mapping[str, int] | None = None) -> Path:
    (root / "Release" / "clips320H").mkdir(parents=True)
    rows = []
    for name, split in (videos or {"one": 0, "two": 1}).items():
        write_clip(root / "Release" / "clips320H" / f"{name}.mp4", 6, SIZE)
        rows.append(f"{name},43,00:00:00,00:00:01,{SIZE[0]},{SIZE[1]},6,2,{split}\n")
        write_h5(h5(root, name, 2), {0: LEFT, 4: RIGHT}, [13, 72])
        write_h5(h5(root, name, 5), {4: LOW}, [72])
    (root / "Release" / "videoset.csv").write_text("".join(rows))
    texts = root / "text_annotations"
    (texts / "a2d_annotation.txt").write_text("video_id,instance_id,query\n" + sentences, encoding="utf-8")
    (texts / "a2d_missed_videos.txt").write_text(missed)
    return root


def h5(root: Path, video: str, frame: int) -> Path:
    return root / "text_annotations" / "a2d_annotation_with_instances" / video / f"{frame:05d}.h5"


def load(root: Path, **options: Any) -> fo.Dataset:
    return fo.Dataset.from_dir(str(root), dataset_type=types.A2DSentences, **options)


ONE = "one,0,the man\n"


def test_masks_are_turned_and_few_frames_are_annotated(tmp_path):
    sentences = 'one,0,"a man, in ""black"""\none,4,dög on the right\ntwo,4,a dog\n'
    dataset = load(write_a2d(tmp_path, sentences))
    assert [(s["video_name"], s.tags) for s in dataset] == [("one", ["train"]), ("two", ["test"])]
    sample = dataset.first()
    assert sample.filepath == str(tmp_path / "Release" / "clips320H" / "one.mp4")
    labels = sample["expressions"].detections
    assert [(e.expression_id, e.label, e.object_ids, e.support) for e in labels] == [
        ("0", 'a man, in "black"', ["0"], [1, 6]),
        ("1", "dög on the right", ["4"], [1, 6]),
    ]
    truth = {each.expression.id: each for each in read_masklets(sample, "ground_truth", exact=True)}
    assert truth["0"].frames == (1,)  # the instance is in one file only, and counts nowhere else
    assert truth["1"].frames == (1, 4)
    assert np.array_equal(truth["0"].union(1), LEFT)
    assert np.array_equal(truth["1"].union(1), RIGHT)
    assert np.array_equal(truth["1"].union(4), LOW)
    assert [number for number in sample.frames if sample.frames[number]["ground_truth"] is not None] == [2, 5]
    assert [d.category for d in sample.frames[2].ground_truth.detections] == ["adult-eating", "dog-crawling"]


def test_instances_without_a_sentence_or_without_a_mask_are_no_error(tmp_path):
    sample = load(write_a2d(tmp_path, "one,4,the dog\none,9,who is never seen\n")).first()
    assert [d.expression_id for d in sample.frames[2].ground_truth.detections] == ["0", None]
    assert [each.expression.id for each in read_masklets(sample, "ground_truth")] == ["0"]
    assert sample["expressions"].detections[1].object_ids == ["9"]


def test_missed_videos_and_videos_without_sentences_are_left_out(tmp_path, caplog):
    sentences = ONE + "two,0,x\nnowhere,0,y\n"
    root = write_a2d(tmp_path, sentences, "two\n", {"one": 0, "two": 0, "three": 1})
    assert load(root).values("video_name") == ["one"]
    assert "'nowhere', of which there are sentences" in caplog.text


def test_commas_without_quotes_and_line_ends_of_windows_are_taken(tmp_path):
    sample = load(write_a2d(tmp_path, "one,0,a man, who runs, left\r\n\r\none,4,b\r\n")).first()
    assert [e.label for e in sample["expressions"].detections] == ["a man, who runs, left", "b"]


def test_one_instance_with_all_three_axes_is_taken(tmp_path):
    root = write_a2d(tmp_path, ONE)
    write_h5(
        h5(root, "one", 2), {0: LEFT}, reMask=LEFT.T[None].astype(np.float64), instance=np.array([[0.0]]), id=None
    )
    (truth,) = read_masklets(load(root).first(), "ground_truth", exact=True)
    assert np.array_equal(truth.union(1), LEFT)


class Linked:
    """Files whose arrays lie elsewhere, or need other code to be unpacked."""

    @staticmethod
    def soft(root: Path) -> None:
        other = root / "other.h5"
        write_h5(other, {0: LEFT})
        with h5py.File(h5(root, "one", 2), "a") as file:
            del file["reMask"]
            file["reMask"] = h5py.ExternalLink(other, "reMask")

    @staticmethod
    def raw(root: Path) -> None:
        secret = root / "secret"
        secret.write_bytes(bytes(range(256)) * 24)
        with h5py.File(h5(root, "one", 2), "a") as file:
            del file["reMask"]
            shape = (2, SIZE[1], SIZE[0])
            file.create_dataset("reMask", shape, np.uint8, external=[(str(secret), 0, 6144)])

    @staticmethod
    def plugin(root: Path) -> None:
        with h5py.File(h5(root, "one", 2), "a") as file:
            del file["reMask"]
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            plist.set_chunk((1, 8, 8))
            plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
            space = h5py.h5s.create_simple((2, SIZE[1], SIZE[0]))
            h5py.h5d.create(file.id, b"reMask", h5py.h5t.NATIVE_UINT8, space, plist)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: h5(root, "one", 2).write_bytes(b"no hdf5"), r"00002\.h5 cannot be read"),
        (lambda root: h5(root, "one", 2).write_bytes(h5(root, "one", 2).read_bytes()[:900]), r"00002\.h5"),
        (
            lambda root: write_h5(h5(root, "one", 2), {0: LEFT}, reMask=None),
            r"00002\.h5 has no 'reMask', only id, ins",
        ),
        (lambda root: write_h5(h5(root, "one", 2), {0: LEFT}, reMask=LEFT), r"'reMask' is 48x64 .*1x64x48"),
        (lambda root: write_h5(h5(root, "one", 2), {0: LEFT}, instance=[0, 1]), r"for the instances \[0, 1\]"),
        (lambda root: write_h5(h5(root, "one", 2), {0: LEFT}, instance=["a"]), "no array of numbers"),
        (lambda root: write_h5(h5(root, "one", 7), {0: LEFT}), r"00007\.h5 is about frame 7, but .*one\.mp4"),
        (Linked.soft, "no array of numbers in the file itself"),
        (Linked.raw, "no array of numbers in the file itself"),
        (Linked.plugin, "HDF5 filter 32015"),
        (lambda root: (root / "Release" / "clips320H" / "one.mp4").unlink(), r"one\.mp4"),
        (lambda root: shutil.rmtree(h5(root, "one", 2).parent), r"one has no annotations"),
        (lambda root: (root / "Release" / "videoset.csv").write_text("one,43,2\n"), r"videoset\.csv, line 1"),
    ],
)
def test_damaged_files_give_errors_that_name_them(tmp_path, damage, message):
    root = write_a2d(tmp_path, ONE)
    damage(root)
    with pytest.raises(ValueError, match=message):
        load(root)


@pytest.mark.parametrize(
    ("sentences", "message"),
    [
        ("one,0\n", "line 2 is not video_id,instance_id,query"),
        ('one,0,"the man\none,4,b\n', "quote that is not closed"),
        ("one,first,the man\n", "the instance is 'first'"),
        ("../one,0,the man\n", "no split|has no video"),
    ],
)
def test_damaged_sentences_give_errors_that_name_the_line(tmp_path, caplog, sentences, message):
    root = write_a2d(tmp_path, sentences)
    if sentences.startswith(".."):
        assert len(load(root)) == 0
        assert "'../one'" in caplog.text
    else:
        with pytest.raises(DatasetError, match=message):
            load(root)


def test_names_that_lead_out_of_the_folder_are_refused(tmp_path):
    root = write_a2d(tmp_path, "../one,0,the man\n")
    (root / "Release" / "videoset.csv").write_text("../one,43,0,0,48,64,6,2,0\n")
    with pytest.raises(DatasetError, match="leads out of"):
        load(root)


def test_without_h5py_the_error_has_the_command_that_brings_it(tmp_path, monkeypatch):
    root = write_a2d(tmp_path, ONE)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DatasetError, match=r"pip install 'fiftyone-refvos\[datasets\]'"):
        load(root)
