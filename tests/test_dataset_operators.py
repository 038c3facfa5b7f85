"""The operator that imports published datasets, through FiftyOne's real registry, executor and queue."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from fiftyone.operators.delegated import DelegatedOperationService
from fiftyone.operators.executor import ExecutionError
from PIL import Image

from fiftyone_refvos.datasets import registry
from fiftyone_refvos.datasets.layouts.mevis import MeViS
from fiftyone_refvos.fields import read_masklets
from tests.mevis_folder import box_mask, simple_mevis, write_mevis
from tests.operating import messages, outputs, reason, texts, uri

NAME = "import_referring_dataset"
IMPORT = uri(NAME)


@pytest.fixture
def name(fiftyone_home) -> Iterator[str]:
    """A name for a new dataset."""
    name = f"test-{uuid4().hex[:12]}"
    yield name
    if fo.dataset_exists(name):
        fo.delete_dataset(name)


def run(root: Path, name: str, **options: Any) -> dict[str, Any]:
    """Runs the operator while no dataset is open, and returns its result."""
    return foo.get_operator(IMPORT)(root, name=name, **options).result


def form(root: Path | str | None = None, **params: Any) -> dict[str, Any]:
    """The inputs by name, as JSON, while no dataset is open; the path as the file explorer gives it."""
    if root is not None:
        params["dataset_dir"] = {"absolute_path": str(root), "type": "directory"}
    inputs = foo.get_operator(IMPORT).resolve_input(foo.ExecutionContext({"params": params}))
    return inputs.to_json()["type"]["properties"]


def invalid(inputs: dict[str, Any]) -> dict[str, str]:
    """The messages of the invalid inputs by name."""
    return {name: each["error_message"] for name, each in inputs.items() if each["invalid"]}


def with_validation(root: Path) -> Path:
    """Adds a split without ground truth: one video of one frame."""
    videos = {"v": {"expressions": {"0": {"exp": "what?"}}, "frames": ["00000"]}}
    return write_mevis(root, videos, None, split="valid")


def damage(root: Path, video: str = "two") -> None:
    (root / "train" / "JPEGImages" / video / "00001.jpg").write_bytes(b"no image")


# --- running ---


def test_a_folder_becomes_a_dataset_that_stays_while_none_is_open(tmp_path, name):
    assert run(simple_mevis(tmp_path / "mevis"), name) == {
        "dataset": name,
        "num_imported": 2,
        "num_samples": 2,
        "num_failed": 0,
        "failures": [],
    }
    dataset = fo.load_dataset(name)
    assert dataset.persistent
    assert dataset.values("video_name") == ["one", "two"]
    truth = {masklet.expression.id: masklet for masklet in read_masklets(dataset.first(), "ground_truth", exact=True)}
    assert np.array_equal(truth["0"].union(2), box_mask(7, 3, 8, 9))


def test_only_the_chosen_splits_and_so_many_samples_are_imported(tmp_path, name):
    root = with_validation(simple_mevis(tmp_path / "mevis"))
    params = {"dataset_dir": {"absolute_path": str(root)}, "name": name, "split_train": False}
    foo.execute_operator(IMPORT, {}, params=params)
    assert fo.load_dataset(name).values("video_name") == ["v"]
    run(root, name, add=True, split=["train", "valid"], max_samples=1)
    assert fo.load_dataset(name).values("video_name") == ["v", "one"]


def test_an_import_goes_on_in_a_dataset_that_may_be_added_to(tmp_path, name):
    root = simple_mevis(tmp_path / "mevis")
    run(root, name, max_samples=1)
    with pytest.raises(ExecutionError, match=reason("add") + f"The dataset '{name}' exists: tick this"):
        run(root, name)
    assert run(root, name, add=True)["num_imported"] == 1
    assert fo.load_dataset(name).values("video_name") == ["one", "two"]
    again = run(root, name, add=True)
    assert (again["num_imported"], again["num_samples"]) == (0, 2)
    assert "nothing to import" in texts(outputs(NAME, again))


def test_what_cannot_be_read_is_listed_and_the_rest_imported(tmp_path, name):
    root = simple_mevis(tmp_path / "mevis")
    damage(root)
    result = run(root, name, skip_failures=True)
    assert (result["num_imported"], result["num_failed"]) == (1, 1)
    (failure,) = result["failures"]
    assert failure["file"] == "train/two"
    assert "00001.jpg" in failure["reason"]
    shown = outputs(NAME, result)
    assert "some could not be read" in texts(shown)
    assert "failures" in shown["type"]["properties"]


def test_a_failed_import_leaves_what_was_imported_and_no_empty_dataset(tmp_path, name):
    root = simple_mevis(tmp_path / "mevis")
    damage(root)
    with pytest.raises(Exception, match=r"00001\.jpg"):
        run(root, name)
    assert fo.load_dataset(name).values("video_name") == ["one"]
    fo.delete_dataset(name)
    damage(root, "one")
    with pytest.raises(Exception, match=r"00001\.jpg"):
        run(root, name)
    assert not fo.dataset_exists(name)


def test_a_scheduled_import_needs_no_dataset(tmp_path, name):
    root = simple_mevis(tmp_path / "mevis")
    queued = foo.get_operator(IMPORT)(root, name=name, delegate=True)
    assert queued.delegated
    assert not fo.dataset_exists(name)
    service = DelegatedOperationService()
    (document,) = service.list_operations(operator=IMPORT)
    try:
        assert document.label == f"Import referring dataset: {root} → {name}"
        service.execute_queued_operations(operator=IMPORT)
        done = service.get(document.id)
    finally:
        service.delete_operation(document.id)
    assert done.run_state == "completed", done.result.error
    assert (done.status.progress, done.status.label) == (1.0, "2/2 samples")
    assert f"2 samples imported into the dataset '{name}'" in texts(done.metadata["outputs_schema"])
    assert fo.load_dataset(name).persistent


# --- the form ---


def test_the_form_tells_what_a_folder_holds_before_it_is_imported(tmp_path, name):
    root = with_validation(simple_mevis(tmp_path / "mevis"))
    shown = form(root)
    assert not invalid(shown)
    assert shown["layout"]["default"] == "mevis"
    assert shown["split_train"]["default"]
    assert shown["name"]["view"]["placeholder"] == "mevis"
    assert shown["preview"]["default"].splitlines() == [
        "| split | videos | frames | expressions | ground truth |",
        "|---|---|---|---|---|",
        "| train | 2 | 8 | 6 | yes |",
        "| valid | 1 | 1 | 1 | no |",
    ]
    assert "3 are encoded, about" in shown["cache_dir"]["view"]["description"]
    run(root, name, split="train")
    assert "1 are encoded, about" in form(root)["cache_dir"]["view"]["description"]
    assert "2 are there already" in form(root)["cache_dir"]["view"]["description"]
    assert "All 2 are there" in form(root, split_valid=False)["cache_dir"]["view"]["description"]
    assert list(form()) == ["dataset_dir"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("mevis", "'mevis' is not an absolute path"),
        ("/gone/deeper", "There is no folder /gone on the server"),
        ("/gone", "There is no folder /gone on the server"),
        ("/bad\0name", "is not an absolute path"),
    ],
)
def test_wrong_paths_are_named(fiftyone_home, path, message):
    shown = form(path)
    assert list(shown) == ["dataset_dir"]
    assert message in invalid(shown)["dataset_dir"]


def test_a_folder_of_nothing_known_names_what_is(tmp_path, fiftyone_home):
    message = invalid(form(tmp_path))["layout"]
    assert message.startswith(f"No dataset is recognised in {tmp_path}: give the folder as its README shows it")
    assert "MeViS" in message


def test_a_folder_that_could_be_several_asks_which(tmp_path, monkeypatch):
    class Similar(MeViS):
        name = "similar"
        title = "Similar"

    monkeypatch.setattr(registry, "_LAYOUTS", (MeViS, Similar))
    monkeypatch.setitem(registry.LAYOUTS, "similar", Similar)
    root = simple_mevis(tmp_path / "mevis")
    shown = form(root)
    assert list(shown) == ["dataset_dir", "layout"]
    assert shown["layout"]["type"]["values"] == ["mevis", "similar"]
    assert shown["layout"]["required"]
    assert "preview" in form(root, layout="similar")


def test_invalid_choices_are_named(tmp_path, dataset):
    root = simple_mevis(tmp_path / "mevis")
    assert invalid(form(root, split_train=False)) == {"no_split": "Tick at least one split"}
    assert "name" in invalid(form(root, name="?"))
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "image.png")
    dataset.add_sample(fo.Sample(str(tmp_path / "image.png")))
    assert "exists and holds image samples: choose another name" in invalid(form(root, name=dataset.name))["add"]
    assert invalid(form(root, cache_dir="/gone/deeper")) == {"cache_dir": "There is no folder /gone on the server"}
    assert "has to be a folder" in invalid(form(root, cache_dir=str(tmp_path / "image.png")))["cache_dir"]
    with pytest.raises(ExecutionError, match=reason("layout") + "Invalid enum value"):
        run(root, "unused", layout="revos")
    with pytest.raises(ExecutionError, match=reason("preview") + ".* has no split 'gone' of MeViS, only train"):
        run(root, "unused", split="gone")
    assert not fo.dataset_exists("unused")


def test_a_meta_file_is_parsed_again_only_when_it_has_changed(tmp_path, fiftyone_home):
    root = simple_mevis(tmp_path / "mevis")
    meta = root / "train" / "meta_expressions.json"
    assert not invalid(form(root))
    content, stat = meta.read_bytes(), meta.stat()
    meta.write_bytes(b"x" * stat.st_size)
    os.utime(meta, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as if it were the same
    assert not invalid(form(root, max_samples=3))
    os.utime(meta)
    assert "meta_expressions.json is not valid JSON" in invalid(form(root))["preview"]
    meta.write_bytes(content)
    assert "split_valid" not in form(root)
    assert "split_valid" in form(with_validation(root))


def test_videos_that_cannot_be_imported_are_told_before(tmp_path, name):
    root = simple_mevis(tmp_path / "mevis")
    images = root / "train" / "JPEGImages"
    (images / "two").rename(tmp_path / "aside")
    shown = form(root)
    assert "1 more videos cannot be imported: the folder" in invalid(shown)["problems"]
    assert "| train | 1 | 4 | 3 | yes |" in shown["preview"]["default"]
    assert not invalid(form(root, skip_failures=True))
    assert "1 more videos will be left out" in texts(form(root, skip_failures=True)["problems"])
    (tmp_path / "aside").rename(images / "two")
    assert "problems" not in form(root)


# --- the messages to the App ---


def test_the_app_opens_what_was_imported_and_shows_the_report(tmp_path, dataset, name):
    root = simple_mevis(tmp_path / "mevis")
    *progress, opened, report = messages(NAME, dataset, dataset_dir={"absolute_path": str(root)}, name=name)
    assert {name for name, _ in progress} == {"set_progress"}
    assert progress[0][1] == {"label": f"Reading {root}", "progress": 0.0}
    assert progress[-1][1]["label"] == "2/2 samples"
    assert opened == ("open_dataset", {"dataset": name})
    assert report[0] == "show_output"
    assert f"2 samples imported into the dataset '{name}'" in texts(report[1]["outputs"])
    reloaded = messages(NAME, fo.load_dataset(name), dataset_dir={"absolute_path": str(root)}, name=name, add=True)
    assert reloaded[-2][0] == "reload_dataset"


def test_the_app_sees_why_an_import_failed(tmp_path, dataset, name):
    root = simple_mevis(tmp_path / "mevis")
    damage(root)
    *_, (operator, params) = messages(NAME, dataset, dataset_dir={"absolute_path": str(root)}, name=name)
    assert operator == "show_output"
    assert "The import failed" in texts(params["outputs"])
    assert "00001.jpg" in texts(params["outputs"])
