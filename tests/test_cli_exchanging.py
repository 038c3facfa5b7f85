"""The verbs that bring data in and out: each does what its library call does, and prints it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from uuid import uuid4

import fiftyone as fo
import pytest

from fiftyone_refvos.cli import main
from tests.mevis_folder import box_mask, rle, simple_mevis


@pytest.fixture
def name():
    """Of a dataset, which is deleted afterwards."""
    name = f"test-{uuid4().hex[:12]}"
    yield name
    if fo.dataset_exists(name):
        fo.delete_dataset(name)


def test_a_folder_is_recognised_imported_and_an_import_goes_on(tmp_path: Path, name, capsys) -> None:
    root = simple_mevis(tmp_path / "data", ("a", "b"))
    assert main(["import", str(root), "--name", name, "--max-samples", "1"]) == 0
    assert f"1 videos of MeViS imported into dataset {name!r}" in capsys.readouterr().out
    assert main(["import", str(root), "--name", name]) == 0
    dataset = fo.load_dataset(name)
    assert dataset.persistent
    assert dataset.values("video_name") == ["a", "b"]


def test_what_cannot_be_imported_leaves_no_dataset(tmp_path: Path, name, capsys) -> None:
    assert main(["import", str(tmp_path), "--name", name]) == 1
    assert "no dataset known here; pass --type, one of: mevis, " in capsys.readouterr().err
    root = simple_mevis(tmp_path / "data", ("a", "b"))
    shutil.rmtree(root / "train" / "JPEGImages" / "b")
    assert main(["import", str(root), "--name", name]) == 1
    assert "missing" in capsys.readouterr().err
    assert not fo.dataset_exists(name)
    assert main(["import", str(root), "--name", name, "--skip-failures"]) == 1
    assert "failed: train/b: the folder" in capsys.readouterr().out
    assert fo.load_dataset(name).values("video_name") == ["a"]


def test_masklets_are_exported_and_predictions_read(tmp_path: Path, name, capsys) -> None:
    main(["import", str(simple_mevis(tmp_path / "data")), "--name", name])
    out = tmp_path / "out"
    export = ["export", name, str(out), "--format", "mevis", "--masklets-field", "ground_truth"]
    assert main([*export, "--labels-only"]) == 0
    assert f"2 samples written to {out}" in capsys.readouterr().out
    assert sorted(path.name for path in (out / "train").iterdir()) == ["mask_dict.json", "meta_expressions.json"]
    assert main(export) == 1
    assert "overwrite" in capsys.readouterr().err
    assert main([*export, "--overwrite", "--symlink"]) == 0
    assert (out / "train" / "JPEGImages" / "one" / "00000.jpg").is_symlink()

    entry = {"prediction_masks": [rle(box_mask(t, 2, 8, 9)) for t in range(4)]}
    (tmp_path / "results.json").write_text(json.dumps({"one": {"0": entry}}))
    assert main(["import-predictions", name, str(tmp_path / "results.json"), "--label-field", "theirs"]) == 0
    assert "1 masklets of 1 videos written to 'frames.theirs'; 2 expressions" in capsys.readouterr().out
    assert main(["export", name, str(out), "--format", "mevis-submission", "--masklets-field", "theirs"]) == 1
    assert "expression" in capsys.readouterr().err  # which has no masklet
