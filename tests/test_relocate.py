"""`rv.relocate` on real datasets: all paths of a moved folder follow, or none does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fiftyone as fo
import pytest

import fiftyone_refvos as rv
from fiftyone_refvos.cli import main


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three videos in `data`, of which one is a folder of frames, and one beside it in `data2`."""
    touch(*(tmp_path / "data" / name for name in ("a.mp4", "deep/b.mp4", "c.mp4")), tmp_path / "data2" / "d.mp4")
    (tmp_path / "data" / "frames" / "c").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def other(fiftyone_home) -> Iterator[fo.Dataset]:
    dataset = fo.Dataset(f"test-{uuid4().hex[:12]}", persistent=True)
    yield dataset
    dataset.delete()


def fill(dataset: fo.Dataset, folder: Path, *names: str) -> None:
    for name in names:
        sample = fo.Sample(filepath=str(folder / name))
        if name.endswith("c.mp4"):
            sample["frames_dir"] = str(folder / "data/frames/c")
        dataset.add_sample(sample)


def paths(dataset: fo.Dataset, folder: Path) -> list[str]:
    return [str(Path(path).relative_to(folder)) for path in dataset.values("filepath")]


def test_paths_of_a_renamed_folder_follow_and_its_neighbour_stays(dataset, folder) -> None:
    fill(dataset, folder, "data/a.mp4", "data/deep/b.mp4", "data/c.mp4", "data2/d.mp4")
    (folder / "data").rename(folder / "moved")
    assert rv.relocate(folder / "data", folder / "moved", datasets=[dataset]) == {dataset.name: 3}
    assert paths(dataset, folder) == ["moved/a.mp4", "moved/deep/b.mp4", "moved/c.mp4", "data2/d.mp4"]
    assert dataset.values("frames_dir") == [None, None, str(folder / "moved/frames/c"), None]
    assert rv.relocate(folder / "data", folder / "moved", datasets=[dataset]) == {}


def test_all_datasets_follow_and_are_counted(dataset, other, folder) -> None:
    fill(dataset, folder, "data/a.mp4", "data/c.mp4")
    fill(other, folder, "data/deep/b.mp4", "data2/d.mp4")
    (folder / "data").rename(folder / "moved")
    counts = rv.relocate(f"{folder}/data/", folder / "moved")
    assert (counts[dataset.name], counts[other.name]) == (2, 1)
    other.reload()
    assert paths(other, folder) == ["moved/deep/b.mp4", "data2/d.mp4"]


def test_a_missing_file_changes_nothing_anywhere(dataset, other, folder) -> None:
    fill(dataset, folder, "data/a.mp4")
    fill(other, folder, "data/deep/b.mp4")
    (folder / "data").rename(folder / "moved")
    (folder / "moved/deep/b.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=rf"{other.name}.*moved/deep/b\.mp4, which does not exist"):
        rv.relocate(folder / "data", folder / "moved", datasets=[dataset, other])
    assert (paths(dataset, folder), paths(other, folder)) == (["data/a.mp4"], ["data/deep/b.mp4"])
    (folder / "moved/frames/c").rmdir()
    fill(dataset, folder, "data/c.mp4")
    with pytest.raises(FileNotFoundError, match="moved/frames/c, which does not exist"):
        rv.relocate(folder / "data", folder / "moved", datasets=[dataset])
    assert paths(dataset, folder) == ["data/a.mp4", "data/c.mp4"]


def test_the_new_folder_must_be_there(dataset, folder) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder .*gone"):
        rv.relocate(folder / "data", folder / "gone", datasets=[dataset])


def test_command_line(dataset, folder, capsys) -> None:
    fill(dataset, folder, "data/a.mp4")
    (folder / "data").rename(folder / "moved")
    assert main(["relocate", str(folder / "data"), str(folder / "moved")]) == 0
    assert f"{dataset.name}: 1 samples" in capsys.readouterr().out
    dataset.reload()
    assert paths(dataset, folder) == ["moved/a.mp4"]
    assert main(["relocate", str(folder / "data"), str(folder / "moved")]) == 2
    assert "no dataset names files in" in capsys.readouterr().err
    assert main(["relocate", str(folder / "data"), str(folder / "gone")]) == 1
