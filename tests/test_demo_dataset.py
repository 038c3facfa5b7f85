"""The demo world as a FiftyOne dataset; the first of these tests imports FiftyOne, which takes a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from fiftyone_refvos.demo import DemoConfig, generate, video_seed

CONFIG = DemoConfig(height=48, width=86, num_frames=8)


@pytest.fixture(scope="module")
def load(fiftyone_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """`demo.load` of two small videos under a name of its own."""
    import fiftyone as fo

    from fiftyone_refvos import demo

    folder, name = tmp_path_factory.mktemp("demo"), "test-demo"
    defaults: dict[str, Any] = {"num_videos": 2, "config": CONFIG, "folder": folder, "name": name}
    yield lambda **settings: demo.load(**(defaults | settings))
    if fo.dataset_exists(name):
        fo.delete_dataset(name)


@pytest.fixture
def dataset(load: Callable[..., Any]) -> Any:
    return load(overwrite=True)


def test_masks_expressions_and_metadata_are_those_of_the_videos(dataset):
    assert dataset.persistent
    for index, sample in enumerate(dataset):
        video = generate(video_seed("test", index), CONFIG)
        assert sample.tags == ["test"]
        assert (sample.metadata.frame_width, sample.metadata.frame_height) == (86, 48)
        assert (sample.metadata.total_frame_count, sample.metadata.frame_rate) == (8, 12)
        labels = sample.expressions.detections
        assert [label.label for label in labels] == [e.text for e in video.expressions]
        for label, expression in zip(labels, video.expressions, strict=True):
            assert (label.expression_id, label.kind) == (expression.id, expression.kind)
            assert tuple(label.object_ids) == expression.object_ids
            assert label.no_target == (expression.kind == "no_target")
            assert label.support == [1, 8]
            for t in range(8):
                expected = {
                    object_id: mask
                    for object_id, mask in zip(expression.object_ids, video.targets(expression, t), strict=True)
                    if mask.any()
                }
                found = pasted(sample.frames[t + 1].ground_truth, expression.id, video.size)
                assert found.keys() == expected.keys()
                assert all(np.array_equal(found[key], expected[key]) for key in expected)


def test_the_file_shows_the_frames(dataset):
    sample = dataset.first()
    video = generate(sample.seed, CONFIG)
    with av.open(sample.filepath) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
        decoded = [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]
    assert len(decoded) == 8
    for shown, drawn in zip(decoded, video.frames(), strict=True):
        assert np.abs(shown - drawn).mean() < 8


def test_tracks_keep_their_index_and_instance(dataset):
    for sample in dataset:
        tracks: dict[tuple[str, str], set[tuple[int, str]]] = {}
        for frame in sample.frames.values():
            for detection in frame.ground_truth.detections:
                key = detection.expression_id, detection.object_id
                tracks.setdefault(key, set()).add((detection.index, str(detection.instance.id)))
        assert all(len(names) == 1 for names in tracks.values())
        names = [name for [name] in tracks.values()]
        assert len({index for index, _ in names}) == len({instance for _, instance in names}) == len(names)
        assert min(index for index, _ in names) == 1


def test_attributes_are_declared(dataset):
    sample_fields, frame_fields = (
        dataset.get_field_schema(flat=True),
        dataset.get_frame_field_schema(flat=True),
    )
    for name in ("expression_id", "kind", "object_ids", "no_target"):
        assert f"expressions.detections.{name}" in sample_fields
    for name in ("expression_id", "object_id"):
        assert f"ground_truth.detections.{name}" in frame_fields


def test_the_same_settings_load_what_is_there_and_write_missing_files(dataset, load):
    path = Path(dataset.first().filepath)
    path.unlink()
    again = load()
    assert again.values("id") == dataset.values("id")
    assert path.exists()
    assert not list(path.parent.glob(".*")), "something unfinished lies about"


def test_other_settings_replace_what_nobody_has_worked_on(dataset, load):
    assert [sample.tags for sample in load(split="valid", num_videos=1)] == [["valid"]]


def test_an_interrupted_dataset_is_made_anew(dataset, load):
    dataset.info["refvos_demo"] = {"settings": {}, "complete": False}
    dataset.delete_samples(dataset.values("id")[1:])
    dataset.save()
    assert len(load()) == 2


def test_work_is_not_thrown_away(dataset, load):
    from fiftyone import StringField

    dataset.add_sample_field("note", StringField)
    assert load().name == dataset.name
    with pytest.raises(ValueError, match=r"note.*overwrite=True"):
        load(num_videos=1)
    assert len(load(num_videos=1, overwrite=True)) == 1


def test_other_datasets_are_not_touched(dataset, load):
    dataset.info.clear()
    dataset.save()
    with pytest.raises(ValueError, match="no demo dataset"):
        load()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_videos": 0}, "at least 1"),
        ({"config": DemoConfig(height=49, width=86)}, "even"),
        ({"split": "val"}, "unknown split 'val'"),
    ],
)
def test_settings_without_sense_are_refused(load, settings, message):
    with pytest.raises(ValueError, match=message):
        load(**settings)


def pasted(detections: Any, expression_id: str, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The full masks of an expression by object id."""
    masks = {}
    for detection in detections.detections:
        if detection.expression_id == expression_id:
            mask = np.zeros(size, dtype=bool)
            left, top = round(detection.bounding_box[0] * size[1]), round(detection.bounding_box[1] * size[0])
            height, width = detection.mask.shape
            mask[top : top + height, left : left + width] = detection.mask
            masks[detection.object_id] = mask
    return masks
