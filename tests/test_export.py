"""Exporting: fields, places and views; what lands on disk, and that nothing half-written does."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest

from fiftyone_refvos import types
from fiftyone_refvos.exports.errors import ExportError
from fiftyone_refvos.exports.exporter import replace_folder
from fiftyone_refvos.exports.formats.mevis import MeViS
from fiftyone_refvos.fields import add_expressions, read_masklets, write_masklets
from fiftyone_refvos.masklet import Expression, FrameResult, Masklet
from fiftyone_refvos.overlay import write_video
from tests.mevis_folder import SIZE, box_mask, rle, simple_mevis, write_mevis


@pytest.fixture
def dataset(tmp_path) -> fo.Dataset:
    return fo.Dataset.from_dir(str(simple_mevis(tmp_path / "source")), dataset_type=types.MeViS)


def export(samples: Any, folder: Path, field: str | None = "ground_truth", **options: Any) -> None:
    samples.export(str(folder), dataset_type=types.MeViS, masklets_field=field, **options)


def imported(folder: Path) -> fo.Dataset:
    return fo.Dataset.from_dir(str(folder), dataset_type=types.MeViS)


def contents(dataset: fo.Dataset, field: str = "ground_truth") -> dict[str, Any]:
    """Names, frames, expressions and masklets of every video."""
    return {
        sample["video_name"]: (
            sample.tags,
            sample["frame_names"],
            [(each.expression_id, each.label, each.object_ids) for each in sample["expressions"].detections],
            [(each.expression, each.frames, each.masks) for each in read_masklets(sample, field, exact=True)],
        )
        for sample in dataset
    }


def predict(sample: fo.Sample, field: str = "model", shift: int = 0) -> None:
    """Writes masklets of one object for the first two expressions of a sample, as a model would."""
    count = len(sample["frame_names"])
    results = [
        FrameResult(t, id_, box_mask(t + shift, int(id_), 6, 7)[None], np.array([0.5], np.float32), True)
        for t in range(count)
        for id_ in ("0", "1")
    ]
    expressions = [Expression(each.expression_id, each.label) for each in sample["expressions"].detections[:2]]
    write_masklets(sample, field, Masklet.collect(results, expressions))


def test_what_was_imported_comes_back_the_same(dataset, tmp_path):
    export(dataset, tmp_path / "out")
    assert contents(imported(tmp_path / "out")) == contents(dataset)
    original = tmp_path / "source" / "train" / "JPEGImages" / "one" / "00002.jpg"
    assert (tmp_path / "out" / "train" / "JPEGImages" / "one" / "00002.jpg").read_bytes() == original.read_bytes()


def test_an_object_without_pixels_and_a_no_target_come_back(tmp_path):
    videos = {
        "v": {
            "expressions": {
                "0": {"exp": "über  alles", "obj_id": [0, 4], "anno_id": [7, 9]},
                "1": {"exp": "no such thing", "obj_id": [], "anno_id": []},
            },
            "frames": ["00012", "00015"],
        }
    }
    masks: dict[str, list[Any]] = {"7": [rle(box_mask(1, 1, 5, 5)), None], "9": [None, None]}
    dataset = imported(write_mevis(tmp_path / "in", videos, masks))
    export(dataset, tmp_path / "out")
    meta = json.loads((tmp_path / "out" / "train" / "meta_expressions.json").read_text())
    first, second = meta["videos"]["v"]["expressions"].values()
    assert first == {"exp": "über  alles", "obj_id": [0, 4], "anno_id": [7, 0]}  # the number of empty masks is lost
    assert second == {"exp": "no such thing", "obj_id": [], "anno_id": []}
    stored = json.loads((tmp_path / "out" / "train" / "mask_dict.json").read_text())
    assert stored == {"7": masks["7"], "0": masks["9"]}
    assert contents(imported(tmp_path / "out")) == contents(dataset)


def test_masklets_of_a_model_are_objects_of_their_own(dataset, tmp_path):
    for n, sample in enumerate(dataset):
        predict(sample, shift=n)
    export(dataset, tmp_path / "out", "model")
    again = imported(tmp_path / "out")
    for before, after in zip(dataset, again, strict=True):
        ours = {each.expression.id: each for each in read_masklets(before, "model")}
        theirs = {each.expression.id: each for each in read_masklets(after, "ground_truth")}
        assert theirs.keys() == ours.keys() == {"0", "1"}
        for id_, masklet in ours.items():
            assert masklet.masks == theirs[id_].masks
        # The third was not looked for, which is not the same as "there is no such thing".
        assert [each.label for each in after["expressions"].detections] == ["the left one", "the right one"]


def test_masklets_that_share_no_frame_are_different_objects(dataset, tmp_path):
    sample = dataset.first()
    expressions = [Expression(each.expression_id, each.label) for each in sample["expressions"].detections]
    seen = {"0": (0, 1), "1": (2, 3), "2": (0, 1, 2)}
    results = [
        FrameResult(t, id_, box_mask(2, 2, 5, 5)[None] & (t in frames), np.ones(1, np.float32), t in frames)
        for t in range(4)
        for id_, frames in seen.items()
    ]
    write_masklets(sample, "model", Masklet.collect(results, expressions))
    export(dataset.limit(1), tmp_path / "out", "model")
    again = read_masklets(imported(tmp_path / "out").first(), "ground_truth")
    assert {each.expression.id: tuple(np.flatnonzero(each.found)) for each in again} == seen


def test_truth_that_was_changed_for_one_expression_stays_so(dataset, tmp_path):
    sample = dataset.first()
    (changed, *_) = (each for each in sample.frames[1]["ground_truth"].detections if each.expression_id == "0")
    changed.mask = np.logical_and(changed.mask, np.indices(changed.mask.shape)[0] > 0)
    sample.save()
    export(dataset.limit(1), tmp_path / "out")
    before, after = (read_masklets(each, "ground_truth") for each in (sample, imported(tmp_path / "out").first()))
    for mine, its in zip(before, after, strict=True):
        assert [its.union(t).tolist() for t in its.frames] == [mine.union(t).tolist() for t in mine.frames]


def test_without_a_field_the_ones_that_exist_are_named(dataset, tmp_path):
    with pytest.raises(ExportError, match="masklets_field=, one of: ground_truth"):
        export(dataset, tmp_path / "out", None)
    with pytest.raises(ExportError, match="no masklets in 'glus'"):
        export(dataset, tmp_path / "out", "glus")
    assert not (tmp_path / "out").exists()


def test_a_field_may_be_named_with_its_prefix(dataset, tmp_path):
    export(dataset, tmp_path / "out", "frames.ground_truth")
    assert (tmp_path / "out" / "train" / "mask_dict.json").is_file()


def test_an_existing_folder_is_replaced_only_when_asked(dataset, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(ExportError, match="overwrite=True"):
        export(dataset, out)
    assert (out / "mine.txt").read_text() == "keep"
    export(dataset, out, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["train"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_the_folder_that_holds_the_images_is_never_replaced(dataset, tmp_path):
    with pytest.raises(ExportError, match="which the samples need"):
        export(dataset, tmp_path / "source", overwrite=True)
    assert (tmp_path / "source" / "train" / "JPEGImages" / "one" / "00002.jpg").is_file()


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_interrupted_export_leaves_what_was_there(dataset, tmp_path, monkeypatch, overwrite):
    out = tmp_path / "out"
    if overwrite:
        out.mkdir()
        (out / "mine.txt").write_text("keep")
    add = MeViS.add
    done: list[Any] = []

    def interrupted(self: MeViS, exported: Any) -> None:
        if done:
            raise KeyboardInterrupt
        add(self, exported)
        done.append(exported)

    monkeypatch.setattr(MeViS, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(dataset, out, overwrite=overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == (["out", "source"] if overwrite else ["source"])
    if overwrite:
        assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_what_cannot_be_put_in_its_place_leaves_what_was_there(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "gone", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]
    assert (out / "mine.txt").read_text() == "keep"


def test_the_current_folder_is_not_replaced(dataset, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(ExportError, match="current folder"):
        export(dataset, Path("."))
    export(dataset, Path("in_it"))
    assert (tmp_path / "here" / "in_it" / "train" / "mask_dict.json").is_file()


def test_archives_of_folders_replace_nothing_unasked(dataset, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ExportError, match="out exists"):
        export(dataset, tmp_path / "out.zip")  # FiftyOne would remove the folder afterwards
    (tmp_path / "out").rmdir()
    export(dataset, tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert "out/train/mask_dict.json" in archive.namelist()
    before = (tmp_path / "out.zip").read_bytes()
    with pytest.raises(ExportError, match=r"out\.zip exists"):
        export(dataset, tmp_path / "out.zip")
    assert (tmp_path / "out.zip").read_bytes() == before
    export(dataset, tmp_path / "out.zip", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.zip", "source"]


def test_a_view_exports_the_samples_expressions_and_masks_that_it_shows(dataset, tmp_path):
    view = dataset.match({"video_name": "two"}).filter_labels("expressions", fo.ViewField("expression_id") == "0")
    export(view, tmp_path / "out")
    (sample,) = imported(tmp_path / "out")
    assert sample["video_name"] == "two"
    assert [each.label for each in sample["expressions"].detections] == ["the left one"]
    masks = json.loads((tmp_path / "out" / "train" / "mask_dict.json").read_text())
    assert list(masks) == ["2"]  # the object of the hidden expression is left out
    predict(dataset.first())
    confident = dataset.limit(1).filter_labels("frames.model", fo.ViewField("expression_id") == "1")
    export(confident, tmp_path / "masks", "model")
    masks = json.loads((tmp_path / "masks" / "train" / "mask_dict.json").read_text())
    assert len(masks) == 1


def test_images_can_be_linked_or_left_out(dataset, tmp_path):
    export(dataset, tmp_path / "links", export_media="symlink")
    link = tmp_path / "links" / "train" / "JPEGImages" / "one" / "00002.jpg"
    assert link.is_symlink()
    assert link.resolve() == tmp_path / "source" / "train" / "JPEGImages" / "one" / "00002.jpg"
    export(dataset, tmp_path / "labels", export_media=False)
    assert sorted(path.name for path in (tmp_path / "labels" / "train").iterdir()) == [
        "mask_dict.json",
        "meta_expressions.json",
    ]
    with pytest.raises(ExportError, match="export_media='move'"):
        export(dataset, tmp_path / "moved", export_media="move")


def test_video_files_are_decoded_into_frames(dataset, tmp_path):
    for name in ("frames_dir", "frame_names", "frame_size"):
        dataset.delete_sample_field(name)
    dataset.clear_frame_field("ground_truth")
    sample = dataset.first()
    size = (34, 48)  # of the mp4
    results = [FrameResult(t, "0", np.ones((1, *size), bool), np.ones(1, np.float32), True) for t in range(4)]
    write_masklets(sample, "model", Masklet.collect(results, [Expression("0", "the left one")]))
    export(dataset.limit(1), tmp_path / "out", "model")
    again = imported(tmp_path / "out").first()
    assert again["frame_names"] == ["00000.jpg", "00001.jpg", "00002.jpg", "00003.jpg"]
    assert again["frame_size"] == [48, 34]
    assert next(iter(read_masklets(again, "ground_truth"))).union(3).all()


def test_the_only_frame_of_a_video_file_is_numbered_as_others_are(fiftyone_home, tmp_path):
    write_video(tmp_path / "short.mp4", iter([np.zeros((34, 48, 3), np.uint8)]), 24.0)
    short = fo.Dataset()
    short.add_sample(fo.Sample(filepath=str(tmp_path / "short.mp4")))
    sample = short.first()
    add_expressions(sample, ["it"])
    (label,) = sample["expressions"].detections
    results = [FrameResult(0, label.expression_id, np.ones((1, 34, 48), bool), np.ones(1, np.float32), True)]
    write_masklets(sample, "model", Masklet.collect(results, [Expression(label.expression_id, "it")]))
    export(short, tmp_path / "out", "model")
    assert [path.name for path in (tmp_path / "out" / "train" / "JPEGImages" / "short").iterdir()] == ["00000.jpg"]


def test_two_videos_of_one_name_are_refused(dataset, tmp_path):
    for sample in dataset:
        sample["video_name"] = "same"
        sample.save()
    with pytest.raises(ExportError, match="is called 'same', and so is"):
        export(dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["../escape", "/absolute", "a/../../b"])
def test_names_that_lead_out_of_the_folder_are_refused(dataset, tmp_path, name):
    sample = dataset.first()
    sample["video_name"] = name
    sample.save()
    with pytest.raises(ValueError, match="leads out of"):
        export(dataset, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_samples_without_masks_clips_and_images_are_refused(dataset, tmp_path):
    dataset.add_frame_field("model", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    with pytest.raises(ExportError, match="has no masks"):
        export(dataset, tmp_path / "out", "model")
    with pytest.raises(ExportError, match="holds clips"):
        export(dataset.to_clips("expressions"), tmp_path / "out")
    images = fo.Dataset()
    images.add_sample(fo.Sample(filepath=str(tmp_path / "source" / "train" / "JPEGImages" / "one" / "00000.jpg")))
    with pytest.raises(ExportError, match="image samples"):
        export(images, tmp_path / "out")


def test_the_split_is_the_tag_unless_another_is_asked_for(dataset, tmp_path):
    export(dataset, tmp_path / "out", split="valid")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["valid"]


def test_unnamed_sizes_stay(dataset, tmp_path):
    export(dataset, tmp_path / "out")
    assert imported(tmp_path / "out").first()["frame_size"] == [SIZE[1], SIZE[0]]


def test_what_a_reader_would_miss_is_told(dataset, tmp_path, caplog):
    predict(dataset.first())
    export(dataset.limit(1), tmp_path / "out", "model", split="eval")
    assert "1 expressions were left out, as 'model' has no masklets of them" in caplog.text
    assert "look for the splits ('train', 'valid_u', 'valid', 'test'), not ['eval']: pass split=" in caplog.text
    assert "edited" not in caplog.text
    sample = dataset.first()
    sample["expressions"].detections[0].label = "another text"
    sample.save()
    export(dataset.limit(1), tmp_path / "edited", "model")
    assert "1 expressions were edited after their masklets in 'model' were made" in caplog.text
