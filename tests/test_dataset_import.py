"""Importing folders as FiftyOne datasets: what lands where, caching, resuming, and what goes wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest

from fiftyone_refvos import types
from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.importer import ReferringDatasetImporter, importer_for
from fiftyone_refvos.datasets.layouts.mevis import MeViS
from fiftyone_refvos.datasets.records import ExpressionRecord, FileMedia, FolderMedia, MediaRecord
from fiftyone_refvos.datasets.samples import SampleBuilder
from fiftyone_refvos.fields import frame_source, read_masklets
from fiftyone_refvos.video import open_video
from tests.mevis_folder import SIZE, box_mask, picture, rle, simple_mevis, write_mevis
from tests.numbered import variable


def load(root: Path, **options: Any) -> fo.Dataset:
    return fo.Dataset.from_dir(str(root), dataset_type=types.MeViS, **options)


def importer(root: Path, **options: Any) -> ReferringDatasetImporter:
    return importer_for(MeViS)(root, **options)


def test_a_sample_has_expressions_masks_and_the_exact_frames(tmp_path):
    dataset = load(simple_mevis(tmp_path))
    assert dataset.media_type == "video"
    assert dataset.values("video_name") == ["one", "two"]
    sample = dataset.first()
    assert sample.tags == ["train"]
    assert sample["vid_id"] == 0
    assert sample["frame_names"] == ["00000.jpg", "00001.jpg", "00002.jpg", "00003.jpg"]
    assert sample["frame_size"] == [SIZE[1], SIZE[0]]
    labels = sample["expressions"].detections
    assert [(label.expression_id, label.label) for label in labels] == [
        ("0", "the left one"),
        ("1", "the right one"),
        ("2", "both"),
    ]
    assert [label.object_ids for label in labels] == [["0"], ["1"], ["0", "1"]]
    assert [label.no_target for label in labels] == [False] * 3
    assert [label.support for label in labels] == [[1, 4]] * 3
    truth = {masklet.expression.id: masklet for masklet in read_masklets(sample, "ground_truth", exact=True)}
    assert np.array_equal(truth["0"].union(2), box_mask(7, 3, 8, 9))
    assert not truth["1"].union(0).any()
    assert np.array_equal(truth["2"].mask(3), [box_mask(8, 3, 8, 9), box_mask(10, 33, 23, 14)])
    detections = sample.frames[2].ground_truth.detections
    assert [each.index for each in detections] == [1, 2, 3, 4]
    assert [each.anno_id for each in detections] == ["0", "1", "0", "1"]


def test_the_app_s_video_has_one_picture_per_image_and_even_sides(tmp_path):
    sample = load(simple_mevis(tmp_path)).first()
    video = open_video(sample.filepath)
    assert len(video) == 4
    assert video.size == (34, 48)
    originals = np.stack([np.asarray(picture(t), dtype=float) for t in range(4)])
    for t, frame in enumerate(video.read(range(4))):
        distances = np.abs(frame[: SIZE[0], : SIZE[1]] - originals).mean(axis=(1, 2, 3))
        assert distances.argmin() == t
        assert distances[t] < 10  # chroma at half the resolution; it is above 30 to the other pictures
        assert np.delete(distances, t).min() > 30
    assert Path(sample.filepath).is_relative_to(tmp_path / ".refvos_cache" / "train")
    built = fo.VideoMetadata.build_for(sample.filepath)
    assert sample.metadata.duration == pytest.approx(built.duration, abs=1e-5)
    for name in ("size_bytes", "mime_type", "frame_width", "frame_height", "frame_rate", "total_frame_count"):
        assert sample.metadata[name] == built[name]


def test_models_read_the_images_and_not_the_mp4(tmp_path):
    root = simple_mevis(tmp_path)
    source = frame_source(load(root).first())
    from PIL import Image

    exact = np.asarray(Image.open(root / "train" / "JPEGImages" / "one" / "00001.jpg"))
    assert np.array_equal(next(iter(source.read([1]))), exact)


def test_the_frames_of_a_video_file_are_those_that_are_decoded(tmp_path):
    path = variable(tmp_path / "v.avi")
    assert fo.VideoMetadata.build_for(str(path)).total_frame_count > 1000  # of this one
    record = MediaRecord("v", "train", FileMedia(path), (ExpressionRecord("0", "x"),))
    prepared = SampleBuilder(is_video=True).build(record, path)
    assert prepared.sample.metadata.total_frame_count == 30
    assert isinstance(prepared.expressions, fo.TemporalDetections)
    assert prepared.expressions.detections[0].support == [1, 30]


def test_a_split_without_masks_has_expressions_and_no_ground_truth(tmp_path):
    videos = {"v": {"expressions": {"0": {"exp": "what?"}}, "frames": ["00000", "00001"]}}
    dataset = load(write_mevis(tmp_path, videos, None, split="valid"))
    sample = dataset.first()
    assert sample.tags == ["valid"]
    label = sample["expressions"].detections[0]
    assert label.label == "what?"
    assert not label.has_field("object_ids")  # nobody knows what it means, which is not "nothing"
    assert not label.has_field("no_target")
    assert len(sample.frames) == 0


def test_an_expression_without_objects_is_a_no_target(tmp_path):
    videos = {
        "v": {
            "expressions": {
                "0": {"exp": "a thing", "obj_id": [0], "anno_id": [7]},
                "1": {"exp": "no such thing", "obj_id": [], "anno_id": []},
            },
            "frames": ["00000", "00001"],
        }
    }
    sample = load(write_mevis(tmp_path, videos, {"7": [rle(box_mask(1, 1, 5, 5)), None]})).first()
    assert [label.no_target for label in sample["expressions"].detections] == [False, True]
    truth = {masklet.expression.id: masklet for masklet in read_masklets(sample, "ground_truth")}
    assert truth["1"].no_target
    assert truth["1"].frames == (0, 1)
    # Annotated and absent is an empty list, not None.
    assert sample.frames[2].ground_truth.detections == []


def test_splits_limits_and_seeds_choose_the_videos(tmp_path):
    simple_mevis(tmp_path, ("a", "b", "c", "d"))
    videos = {"v": {"expressions": {"0": {"exp": "what?"}}, "frames": ["00000"]}}
    write_mevis(tmp_path, videos, None, split="valid")
    assert load(tmp_path).values("video_name") == ["a", "b", "c", "d", "v"]
    assert load(tmp_path, split="valid").values("video_name") == ["v"]
    assert load(tmp_path, split=["train"], max_samples=2).values("video_name") == ["a", "b"]
    first = load(tmp_path, shuffle=True, seed=3, max_samples=3).values("video_name")
    assert first == load(tmp_path, shuffle=True, seed=3, max_samples=3).values("video_name")
    assert first != ["a", "b", "c"]


def test_a_split_without_a_folder_of_images_is_passed_over_unless_it_is_the_only_one(tmp_path):
    videos = {"v": {"expressions": {"0": {"exp": "what?"}}, "frames": ["00000"]}}
    write_mevis(tmp_path, videos, None, split="valid")
    shutil.rmtree(tmp_path / "valid" / "JPEGImages")
    with pytest.raises(DatasetError, match=r"valid/JPEGImages/v is missing: unpack the images"):
        load(tmp_path)
    assert load(simple_mevis(tmp_path)).values("video_name") == ["one", "two"]


def test_tags_of_the_call_are_added_to_those_of_the_split(tmp_path):
    dataset = fo.Dataset()
    dataset.add_dir(str(simple_mevis(tmp_path)), dataset_type=types.MeViS, tags=["mine"], max_samples=1)
    assert dataset.first().tags == ["train", "mine"]


def test_an_interrupted_import_goes_on_where_it_stopped(tmp_path):
    root = simple_mevis(tmp_path, ("a", "b", "c"))
    broken = root / "train" / "JPEGImages" / "b" / "00001.jpg"
    content = broken.read_bytes()
    broken.write_bytes(b"no image")
    dataset = fo.Dataset()
    with pytest.raises(ValueError, match=r"00001\.jpg"):
        dataset.add_dir(str(root), dataset_type=types.MeViS, num_workers=1)
    assert dataset.values("video_name") == ["a"]
    encoded = Path(dataset.first().filepath).stat()
    broken.write_bytes(content)
    dataset.add_dir(str(root), dataset_type=types.MeViS)
    assert dataset.values("video_name") == ["a", "b", "c"]
    assert Path(dataset.first().filepath).stat().st_mtime_ns == encoded.st_mtime_ns
    dataset.add_dir(str(root), dataset_type=types.MeViS)
    assert len(dataset) == 3


def test_a_sample_that_was_cut_off_while_it_was_added_is_added_again(tmp_path, monkeypatch):
    root = simple_mevis(tmp_path, ("a", "b"))
    dataset = fo.Dataset()
    mine = fo.Sample(filepath=str(tmp_path / "b.mp4"), tags=["train"], video_name="mine")
    dataset.add_sample(mine)

    def cut_off(*args: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fiftyone_refvos.datasets.samples.write_label", cut_off)  # the last of its writes
        with pytest.raises(KeyboardInterrupt):
            dataset.add_dir(str(root), dataset_type=types.MeViS)
    assert dataset.values("video_name") == ["mine", "a"]
    cut = dataset.last().id
    dataset.add_dir(str(root), dataset_type=types.MeViS)
    assert dataset.values("video_name") == ["mine", "a", "b"]
    assert cut not in dataset.values("id")
    assert len(read_masklets(dataset.last(), "ground_truth")) == 3


def test_changed_images_are_encoded_anew(tmp_path):
    root = simple_mevis(tmp_path, ("a",))
    before = load(root).first().filepath
    assert load(root).first().filepath == before
    picture(9).save(root / "train" / "JPEGImages" / "a" / "00002.jpg", quality=80)
    assert load(root).first().filepath != before


def test_videos_that_fail_can_be_skipped_and_are_listed(tmp_path):
    root = simple_mevis(tmp_path, ("a", "b", "c"))
    (root / "train" / "JPEGImages" / "b" / "00001.jpg").write_bytes(b"no image")
    dataset = fo.Dataset()
    chosen = importer(root, skip_failures=True)
    dataset.add_importer(chosen)
    assert dataset.values("video_name") == ["a", "c"]
    assert [(failure.split, failure.name) for failure in chosen.failures] == [("train", "b")]
    assert "00001.jpg" in chosen.failures[0].error


def test_nothing_is_imported_where_the_images_of_a_video_are_missing_unless_asked(tmp_path):
    root = simple_mevis(tmp_path, ("a", "b", "c"))
    shutil.rmtree(root / "train" / "JPEGImages" / "b")
    (root / "train" / "JPEGImages" / "c" / "00001.jpg").unlink()
    dataset = fo.Dataset()
    with pytest.raises(DatasetError, match=r"folder .*b is missing.* \(2 videos"):
        dataset.add_dir(str(root), dataset_type=types.MeViS)
    assert len(dataset) == 0
    chosen = importer(root, skip_failures=True)
    dataset.add_importer(chosen)
    assert dataset.values("video_name") == ["a"]
    assert [failure.name for failure in chosen.failures] == ["b", "c"]


def test_the_cache_may_lie_elsewhere_and_the_dataset_may_be_read_only(tmp_path):
    root = simple_mevis(tmp_path / "data", ("a",))
    dataset = load(root, cache_dir=str(tmp_path / "cache"))
    assert Path(dataset.first().filepath).is_relative_to(tmp_path / "cache")
    assert not (root / ".refvos_cache").exists()


def test_a_cache_that_cannot_be_written_names_the_way_out(tmp_path):
    root = simple_mevis(tmp_path / "data", ("a",))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DatasetError, match="cache_dir"):
        load(root, cache_dir=str(tmp_path / "file"))


def test_nothing_is_written_through_a_link_that_leads_out_of_the_cache(tmp_path):
    root = simple_mevis(tmp_path / "data", ("a",))
    outside = tmp_path / "outside"
    outside.mkdir()
    (root / ".refvos_cache").mkdir()
    (root / ".refvos_cache" / "train").symlink_to(outside)
    with pytest.raises(DatasetError, match="link"):
        load(root)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("name", ["../escape", "/absolute", "//absolute", "a/../../b", "C:\\windows", "nul\0"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    root = simple_mevis(tmp_path / "data", ("a",))
    path = root / "train" / "meta_expressions.json"
    content = json.loads(path.read_text())
    content["videos"][name] = content["videos"].pop("a")
    path.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="leads out of"):
        load(root)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data"]


def test_names_with_slashes_are_nested_folders(tmp_path):
    dataset = load(simple_mevis(tmp_path, ("UVO/all/-fb", "OVIS/x")))
    assert dataset.values("video_name") == ["UVO/all/-fb", "OVIS/x"]
    path = Path(dataset.first().filepath)
    assert path.parent == tmp_path / ".refvos_cache" / "train" / "UVO" / "all"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.rmtree(root / "train" / "JPEGImages" / "one"), "the folder .*one is missing"),
        (lambda root: (root / "train" / "JPEGImages" / "one" / "00002.jpg").unlink(), "frame 00002 is missing"),
        (lambda root: (root / "train" / "meta_expressions.json").write_text("{"), "not valid JSON"),
        (lambda root: (root / "train" / "mask_dict.json").write_text('{"0": [nul'), "not a complete JSON"),
        (lambda root: (root / "train" / "mask_dict.json").write_text("{}"), "has no masks '0'"),
    ],
)
def test_damaged_folders_give_errors_that_name_the_file(tmp_path, damage, message):
    root = simple_mevis(tmp_path)
    damage(root)
    with pytest.raises(DatasetError, match=message):
        load(root)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (rle(box_mask(0, 0, 2, 2, (20, 20))), "the mask is 20x20, but the frame 33x47"),
        ({"size": list(SIZE), "counts": "zzzz"}, "characters that no RLE has"),
        ({"size": list(SIZE), "counts": "1"}, "fill 1 pixels"),
        ({"size": list(SIZE), "counts": [5, 5]}, "fill 10 pixels"),
        ({"size": list(SIZE), "counts": [-1, SIZE[0] * SIZE[1] + 1]}, "fill"),
        ({"counts": "1"}, "no RLE"),
        ("text", "no RLE"),
    ],
)
def test_damaged_masks_give_errors_that_name_video_and_frame(tmp_path, mask, message):
    videos = {"v": {"expressions": {"0": {"exp": "x", "obj_id": [0], "anno_id": [0]}}, "frames": ["00000", "00001"]}}
    root = write_mevis(tmp_path, videos, {"0": [None, mask]})
    with pytest.raises(DatasetError, match=message) as caught:
        load(root)
    assert "'v', frame 2" in str(caught.value)


def test_null_and_empty_masks_and_uncompressed_ones_are_read(tmp_path):
    full = SIZE[0] * SIZE[1]
    masks = [None, {"size": list(SIZE), "counts": [full]}, rle(np.zeros(SIZE, dtype=bool))]
    masks += [{"size": list(SIZE), "counts": [0, full]}]
    videos = {
        "v": {
            "expressions": {"0": {"exp": "x", "obj_id": ["0"], "anno_id": ["12"]}},
            "frames": ["00012", "00015", "00018", "00021"],
        }
    }
    sample = load(write_mevis(tmp_path, videos, {"12": masks})).first()
    (truth,) = read_masklets(sample, "ground_truth", exact=True)
    assert [int(truth.union(t).sum()) for t in range(4)] == [0, 0, 0, full]
    assert sample["frame_names"][0] == "00012.jpg"


def test_files_may_begin_with_a_byte_order_mark_and_images_may_have_large_suffixes(tmp_path):
    root = simple_mevis(tmp_path, ("a",))
    for name in ("meta_expressions.json", "mask_dict.json"):
        path = root / "train" / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    for path in list((root / "train" / "JPEGImages" / "a").iterdir()):
        path.rename(path.with_suffix(".JPG"))
    sample = load(root).first()
    assert sample["frame_names"] == ["00000.JPG", "00001.JPG", "00002.JPG", "00003.JPG"]
    assert len(read_masklets(sample, "ground_truth")) == 3


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no split of MeViS"):
        load(tmp_path)
    with pytest.raises(DatasetError, match="there is no folder"):
        importer(tmp_path / "missing").import_samples(fo.Dataset())
    with pytest.raises(DatasetError, match="no split 'test' of MeViS, only train"):
        load(simple_mevis(tmp_path), split="test")


def test_what_would_be_imported_is_known_without_reading_masks(tmp_path):
    root = simple_mevis(tmp_path, ("a", "b"))
    (root / "train" / "mask_dict.json").write_text("{}")
    (record,) = importer(root, max_samples=1).preview()
    assert isinstance(record.media, FolderMedia)
    assert (record.name, len(record.expressions), len(record.media.names)) == ("a", 3, 4)
    assert not (root / ".refvos_cache").exists()
