"""The operators that import predictions and export masklets, through FiftyOne's real registry, executor and queue."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.executor import ExecutionError
from PIL import Image

import fiftyone_refvos as rv
from fiftyone_refvos import types
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.records import Exported
from fiftyone_refvos.exports.registry import FORMATS
from fiftyone_refvos.fields import read_masklets
from tests.mevis_folder import simple_mevis, write_mevis
from tests.operating import execute, form, messages, outputs, reason, run_queued, texts, uri
from tests.submissions import as_folder, as_zip, check, pngs

PREDICTIONS, EXPORT = "import_predictions", "export_masklets"


@pytest.fixture
def dataset(tmp_path) -> fo.Dataset:
    """Two videos of 4 frames with three expressions each."""
    return fo.Dataset.from_dir(str(simple_mevis(tmp_path / "data")), dataset_type=types.MeViS)


@pytest.fixture
def submission(tmp_path) -> Path:
    """Masks for the first two expressions of every video."""
    return as_zip(tmp_path / "sub-1.zip", pngs())


def chosen(path: Path | str) -> dict[str, str]:
    """A path as the file explorer of the App gives it."""
    return {"absolute_path": str(path), "name": Path(path).name, "type": "file"}


def invalid(inputs: dict[str, Any]) -> dict[str, str]:
    """The messages of the invalid inputs by name."""
    return {name: each["error_message"] for name, each in inputs.items() if each["invalid"]}


def tree(folder: Path) -> dict[str, bytes]:
    """The contents of all files in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- predictions ---


def test_predictions_become_masklets(dataset, submission):
    result = foo.get_operator(uri(PREDICTIONS))(dataset, submission).result
    assert result == {
        "label_field": "sub_1",
        "num_videos": 2,
        "num_expressions": 4,
        "num_missing": 2,
        "num_unknown": 0,
        "num_failed": 0,
        "failures": [],
    }
    check(dataset, "sub_1")
    shown = texts(outputs(PREDICTIONS, result))
    assert "4 masklets written into 'frames.sub_1'" in shown
    assert "Expressions of these videos that the file has nothing of" in shown


def test_predictions_for_the_target_alone(dataset, submission):
    execute(PREDICTIONS, dataset.limit(1), path=chosen(submission), label_field="theirs")
    assert len(read_masklets(dataset.first(), "theirs")) == 2
    assert read_masklets(dataset.last(), "theirs") == []


def test_a_broken_video_is_listed(dataset, tmp_path):
    folder = as_folder(tmp_path / "out", pngs())
    (folder / "one" / "0" / "00002.png").unlink()
    with pytest.raises(Exception, match=r"has no one/0/00002\.png"):
        execute(PREDICTIONS, dataset, path=chosen(folder))
    dataset.reload()
    result = execute(PREDICTIONS, dataset, path=chosen(folder), skip_failures=True).result
    assert (result["num_videos"], result["num_failed"]) == (1, 1)
    assert "00002.png" in result["failures"][0]["reason"]


def test_what_was_in_an_overwritten_field_is_gone(dataset, submission):
    rv.segment(dataset, "glus-tiny", label_field="mine")
    assert len(read_masklets(dataset.first(), "mine")) == 3
    shown = form(PREDICTIONS, dataset, path=chosen(submission), label_field="mine")
    assert "it was made by glus-tiny" in texts(shown)
    with pytest.raises(ExecutionError, match=reason("overwrite") + "Tick this, or choose another"):
        execute(PREDICTIONS, dataset, path=chosen(submission), label_field="mine")
    execute(PREDICTIONS, dataset, path=chosen(submission), label_field="mine", overwrite=True)
    dataset.reload()
    check(dataset, "mine")
    shown = form(PREDICTIONS, dataset, path=chosen(submission), label_field="mine")
    assert not invalid(shown)
    assert "It is read again" in texts(shown)


def test_the_form_tells_what_predictions_are(dataset, submission, tmp_path):
    shown = form(PREDICTIONS, dataset, path=chosen(submission))
    assert not invalid(shown)
    assert shown["label_field"]["view"]["placeholder"] == "sub_1"
    assert "a zipped submission of 2 videos, 2 of the 2 of the target" in texts(shown["preview"])
    shown = form(PREDICTIONS, dataset.limit(1), path=chosen(submission))
    assert "of 2 videos, 1 of the 1 of the target" in texts(shown["preview"])
    folder = as_folder(tmp_path / "out", pngs(("one", "three"), top="Annotations/"))
    shown = form(PREDICTIONS, dataset, path=chosen(folder))
    assert "a submission with folders for 1 of the 2 videos of the target" in texts(shown["preview"])
    foreign = form(PREDICTIONS, dataset, path=chosen(tmp_path))["preview"]
    assert foreign["view"]["name"] == "Warning"
    assert "for 0 of the 2 videos of the target, such as one, two" in texts(foreign)


def test_wrong_predictions_are_named(dataset, tmp_path):
    gone = tmp_path / "gone.json"
    assert f"There is no file or folder {gone}" in invalid(form(PREDICTIONS, dataset, path=chosen(gone)))["path"]
    assert "not an absolute path" in invalid(form(PREDICTIONS, dataset, path=chosen("gone.json")))["path"]
    results = tmp_path / "results.json"
    results.write_text("[]")
    shown = form(PREDICTIONS, dataset, path=chosen(results))
    assert "pass annotations=, the file with their names" in invalid(shown)["preview"]
    assert "annotations" in shown
    shown = form(PREDICTIONS, dataset, path=chosen(results), annotations=chosen(gone))
    assert list(invalid(shown)) == ["annotations"]
    with pytest.raises(ExecutionError, match=reason("format") + "Invalid enum value"):
        execute(PREDICTIONS, dataset, path=chosen(results), format="coco")
    assert "label_field" in invalid(form(PREDICTIONS, dataset, path=chosen(results), label_field="frame_number"))
    dataset.delete_sample_field("expressions")
    assert list(form(PREDICTIONS, dataset)) == ["expressions_field"]


def test_the_app_shows_the_field_of_predictions(dataset, submission):
    *progress, reload, activate, report = messages(PREDICTIONS, dataset, path=chosen(submission))
    assert progress[-1][1]["label"] == "2/2 videos"
    assert reload[0] == "reload_dataset"
    assert activate == ("set_active_fields", {"fields": ["frames.ground_truth", "frames.sub_1"]})
    assert report[1]["results"]["num_expressions"] == 4


def test_scheduled_predictions(dataset, submission):
    dataset.persistent = True
    foo.get_operator(uri(PREDICTIONS))(dataset, submission, "theirs", delegate=True)
    queued, done = run_queued(PREDICTIONS, dataset)
    assert queued.label == f"Import predictions: {submission} → theirs"
    assert done.run_state == "completed", done.result.error
    check(dataset, "theirs")
    dataset.delete()


# --- exporting ---


def test_an_export_writes_what_fiftyone_writes(dataset, tmp_path):
    result = foo.get_operator(uri(EXPORT))(dataset, "mevis", "ground_truth", tmp_path / "out").result
    dataset.export(str(tmp_path / "direct"), dataset_type=types.MeViS, masklets_field="ground_truth")
    assert tree(tmp_path / "out") == tree(tmp_path / "direct")
    assert (result["path"], result["num_samples"]) == (str(tmp_path / "out"), 2)
    assert f"are in {tmp_path / 'out'}" in texts(outputs(EXPORT, result))


def test_the_target_the_split_and_what_becomes_of_images(dataset, tmp_path):
    given = {"format": "mevis", "masklets_field": "ground_truth", "split": "valid"}
    execute(EXPORT, dataset.limit(1), export_dir=chosen(tmp_path / "links"), export_media="symlink", **given)
    (link, *_) = sorted((tmp_path / "links" / "valid" / "JPEGImages" / "one").iterdir())
    assert link.resolve() == tmp_path / "data" / "train" / "JPEGImages" / "one" / "00000.jpg"
    assert not (tmp_path / "links" / "valid" / "JPEGImages" / "two").exists()
    execute(EXPORT, dataset, export_dir=chosen(tmp_path / "labels"), export_media="none", **given)
    assert sorted(tree(tmp_path / "labels")) == ["valid/mask_dict.json", "valid/meta_expressions.json"]


def test_the_form_lists_formats_and_tells_the_size(dataset, tmp_path):
    shown = form(EXPORT, dataset)
    video_formats = [name for name, each in FORMATS.items() if "video" in each.media_types]
    assert shown["format"]["type"]["values"] == video_formats
    assert (shown["masklets_field"]["type"]["values"], shown["masklets_field"]["default"]) == (
        ["ground_truth"],
        "ground_truth",
    )
    assert "preview" not in shown
    given = {"format": "mevis", "masklets_field": "ground_truth", "export_dir": chosen(tmp_path / "out")}
    shown = form(EXPORT, dataset, **given)
    assert not invalid(shown)
    assert FORMATS["mevis"].description in texts(shown["format_notice"])
    (tmp_path / "data" / "train" / "JPEGImages" / "one" / "00000.jpg").write_bytes(bytes(10**6))
    shown = form(EXPORT, dataset, **given)
    # 4 and 3 masks of the objects, each of them in two of the three expressions
    assert re.search(
        r"2 samples, 6 expressions, 28 masks; the images .* take about 9\d\d\.\dKB", texts(shown["preview"])
    )
    one = form(EXPORT, dataset.limit(1), **given, export_media="symlink")["preview"]
    assert one["view"]["label"] == f"{tmp_path / 'out'}: 1 samples, 3 expressions, 14 masks"
    assert list(tmp_path.glob("out*")) == []  # a form writes nothing


def test_nothing_is_replaced_without_the_tick(dataset, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("keep me")
    given = {"format": "mevis", "masklets_field": "ground_truth", "export_dir": chosen(out)}
    shown = form(EXPORT, dataset, **given)
    assert f"{out} exists" in invalid(shown)["check"]
    assert f"delete {out}, with the 1 files and folders in it" in texts(shown["overwrite"])
    with pytest.raises(ExecutionError, match=reason("check")):
        execute(EXPORT, dataset, **given)
    assert tree(out) == {"mine.txt": b"keep me"}
    assert not invalid(form(EXPORT, dataset, **given, overwrite=True))
    execute(EXPORT, dataset, **given, overwrite=True)
    assert "mine.txt" not in tree(out)
    assert "train/meta_expressions.json" in tree(out)
    # Not even with the tick what the samples need.
    given["export_dir"] = chosen(tmp_path / "data")
    assert "which the samples need" in invalid(form(EXPORT, dataset, **given, overwrite=True))["check"]


def test_samples_without_masks_are_told_before_the_export(dataset, tmp_path):
    write_mevis(tmp_path / "data", {"v": {"expressions": {"0": {"exp": "what?"}}, "frames": ["0"]}}, None, "valid")
    dataset.add_dir(str(tmp_path / "data"), dataset_type=types.MeViS, split="valid")
    given = {"format": "mevis", "masklets_field": "ground_truth", "export_dir": chosen(tmp_path / "out")}
    assert "1 of the 3 samples have no masks in 'ground_truth'" in invalid(form(EXPORT, dataset, **given))["check"]
    assert not invalid(form(EXPORT, dataset.match_tags("train"), **given))


def test_wrong_folders_are_named(dataset, tmp_path):
    given = {"format": "mevis", "masklets_field": "ground_truth"}
    (tmp_path / "file").write_text("")
    for path, message in (
        ("out", "not an absolute path"),
        (tmp_path / "gone" / "out", f"There is no folder {tmp_path / 'gone'}"),
        (tmp_path / "file", "is a file, but has to be a folder"),
    ):
        assert message in invalid(form(EXPORT, dataset, export_dir=chosen(path), **given))["export_dir"]
    if os.getuid():  # root may write everywhere
        assert "cannot be written" in invalid(form(EXPORT, dataset, export_dir=chosen("/out"), **given))["export_dir"]
    with pytest.raises(ExecutionError, match=reason("format") + "Invalid enum value"):
        execute(EXPORT, dataset, export_dir=chosen(tmp_path / "out"), **given | {"format": "gone"})
    clips = dataset.to_clips("expressions")
    shown = form(EXPORT, clips, export_dir=chosen(tmp_path / "out"), **given)
    assert "holds clips, frames or patches" in invalid(shown)["check"]


class OneFile(Format):
    """The names of the videos in one file."""

    name = "names"
    title = "Names"
    description = "for nobody"
    archive = "names.txt"

    def add(self, exported: Exported) -> None:
        with (self.root / "names.txt").open("a") as file:
            file.write(exported.name)


def test_an_archive_is_a_file_and_has_no_images(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(FORMATS, "names", OneFile)
    given = {"format": "names", "masklets_field": "ground_truth"}
    shown = form(EXPORT, dataset, **given)
    assert "export_media" not in shown
    assert "instead of names.txt in it" in shown["export_dir"]["view"]["label"]
    for path, written in (("a.txt", "a.txt"), ("folder", "folder/names.txt")):
        shown = form(EXPORT, dataset, export_dir=chosen(tmp_path / path), **given)
        assert not invalid(shown)
        assert f"{tmp_path / written}: 2 samples, 6 expressions, 28 masks" in texts(shown["preview"])
        execute(EXPORT, dataset, export_dir=chosen(tmp_path / path), **given)
        assert (tmp_path / written).read_text() == "onetwo"
        shown = form(EXPORT, dataset, export_dir=chosen(tmp_path / path), **given)
        assert f"{tmp_path / written} exists" in invalid(shown)["check"]
        assert not invalid(form(EXPORT, dataset, export_dir=chosen(tmp_path / path), **given, overwrite=True))


def test_the_app_sees_an_export_and_why_one_failed(dataset, tmp_path):
    given = {"format": "mevis", "masklets_field": "ground_truth", "export_dir": chosen(tmp_path / "out")}
    *progress, _reload, report = messages(EXPORT, dataset, **given)
    assert progress[-1][1]["label"] == "2/2 samples"
    assert report[0] == "show_output"
    assert (tmp_path / "out" / "train" / "mask_dict.json").is_file()
    sample = dataset.last()
    sample["video_name"] = "one"
    sample.save()
    *_, report = messages(EXPORT, dataset, **given | {"export_dir": chosen(tmp_path / "again")})
    assert "Nothing was exported" in texts(report[1]["outputs"])
    assert "is called 'one'" in report[1]["results"]["error"]
    assert not (tmp_path / "again").exists()


def test_a_scheduled_export(dataset, tmp_path):
    dataset.persistent = True
    foo.get_operator(uri(EXPORT))(dataset, "mevis", "ground_truth", tmp_path / "out", delegate=True)
    queued, done = run_queued(EXPORT, dataset)
    assert queued.label == f"Export masklets: ground_truth → {tmp_path / 'out'}"
    assert done.run_state == "completed", done.result.error
    assert (tmp_path / "out" / "train" / "mask_dict.json").is_file()
    dataset.delete()


def test_images_have_no_format_where_none_takes_them(dataset, tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "image.png")
    images = fo.Dataset()
    images.add_sample(fo.Sample(str(tmp_path / "image.png")))
    assert "no field with masks" in invalid(form(EXPORT, images))["masklets_field"]
    assert "Only videos can be given masklets" in invalid(form(PREDICTIONS, images))["media"]
