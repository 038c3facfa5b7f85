"""`rv.make_pseudo_labels`: equal to the published rule, on the labels, in the selector's files."""

from __future__ import annotations

import json
from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F
from PIL import Image

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.fields import FieldError
from fiftyone_refvos.masklet import RLE, Expression, decode
from tests.fields_data import boxes, masklet, video_sample
from tests.shared import shared_path

SIZE = (20, 30)


def add_golden_video(dataset: fo.Dataset, case: Path) -> str:
    """Brings the inputs of a golden case into a dataset; returns the name of the video."""
    meta = json.loads((case / "inputs/meta_expressions.json").read_text())
    annotations = json.loads((case / "inputs/mask_dict.json").read_text())
    ((name, video),) = meta["videos"].items()
    size = next(tuple(rle["size"]) for rle in annotations["10"] if rle)
    texts = [expression["exp"] for expression in video["expressions"].values()]
    sample = video_sample(
        dataset,
        f"/videos/{name}.mp4",
        num_frames=len(video["frames"]),
        texts=texts,
        frame_size=[size[1], size[0]],
    )
    for id_, expression in video["expressions"].items():
        known = Expression(id_, expression["exp"])
        truth = np.zeros((len(video["frames"]), len(expression["anno_id"]), *size), dtype=bool)
        for n, anno_id in enumerate(expression["anno_id"]):
            for t, rle in enumerate(annotations[str(anno_id)]):
                if rle is not None:
                    truth[t, n] = decode([RLE(size=rle["size"], counts=rle["counts"].encode())], size)[0]
        files = [case / "inputs/predictions" / name / id_ / f"{frame}.png" for frame in video["frames"]]
        predicted = np.stack([np.asarray(Image.open(file)) > 0 for file in files])
        fields.write_masklets(sample, "ground_truth", [masklet(truth, expression=known)])
        fields.write_masklets(sample, "glus", [masklet(predicted[:, None], expression=known)])
    return name


def test_equal_to_the_golden_labels(dataset, tmp_path) -> None:
    case = shared_path("golden", "kfs", "pseudo_label_a")
    name = add_golden_video(dataset, case)
    made = rv.make_pseudo_labels(dataset, "glus")
    made.export(tmp_path)
    expected = sorted((case / "outputs/iou_labels" / name).glob("*.json"))
    assert sorted(path.name for path in (tmp_path / name).iterdir()) == [path.name for path in expected]
    means = json.loads((case / "outputs/mean_j.json").read_text())["mean_j"]
    for path in expected:
        ious = json.loads((tmp_path / name / path.name).read_text())
        assert ious == json.loads(path.read_text())
        assert np.mean(ious) == means[f"{name}_{path.stem}"]
    by_id = {label.expression_id: label for label in made.labels}
    assert by_id["2"].absent == (2, 3, 7, 8)
    for number, frame in dataset.first().frames.items():
        for detection in frame.glus.detections:
            assert detection.iou == by_id[detection.expression_id].ious[number - 1]
    assert dataset.count("frames.glus.detections.iou") == dataset.count("frames.glus.detections") > 0


@pytest.fixture
def videos(dataset) -> fo.Dataset:
    """Two videos; in frame 3 nothing is there and nothing predicted, frame 4 is not annotated."""
    truth, predicted = (boxes([(4, 5 + t + shift) for t in range(4)], SIZE, side=6) for shift in (0, 1))
    truth[2] = predicted[2] = False
    for number in range(2):
        sample = video_sample(dataset, f"/videos/{number}.mp4", texts=["the dog", "a cat"])
        for field, masks in (("ground_truth", truth), ("model", predicted)):
            found = [
                masklet(masks, expression=Expression(str(n), text)) for n, text in enumerate(["the dog", "a cat"])
            ]
            fields.write_masklets(sample, field, found)
        sample = dataset[sample.id]
        sample.frames[4]["ground_truth"] = None
        sample.save()
    return dataset


@pytest.mark.parametrize(("policy", "expected"), [("one", 1.0), ("zero", 0.0), ("skip", None)])
def test_absent_policies(videos, policy, expected) -> None:
    made = rv.make_pseudo_labels(videos, "model", absent_policy=policy)
    assert len(made.labels) == 4
    for label in made.labels:
        assert label.ious == (30 / 42, 30 / 42, expected, None)
        assert label.absent == (3,)
    assert str(made).startswith("IoU of 4 expressions of 2 videos in 'frames.model'")


def test_unpredicted_expressions_and_views(videos, tmp_path) -> None:
    fields.clear_field(videos.limit(1), "model")
    made = rv.make_pseudo_labels(videos, "model")
    assert made.unpredicted == [(videos.first().id, "0"), (videos.first().id, "1")]
    assert {label.video for label in made.labels} == {"1"}
    before = videos.values("frames.model.detections.iou")
    clips = rv.make_pseudo_labels(videos.skip(1).to_clips([[(2, 3)]]), "model", absent_policy="zero")
    assert clips.labels[0].ious == (None, 30 / 42, 0.0, None)
    assert videos.values("frames.model.detections.iou") == before  # what the clips do not show stays


def test_frames_that_are_annotated_no_longer_lose_their_number(videos) -> None:
    rv.make_pseudo_labels(videos, "model")
    sample = videos.first()
    sample.frames[1]["ground_truth"] = None
    sample.save()
    rv.make_pseudo_labels(videos.match_frames(F("frame_number") > 1), "model")
    assert videos.first().frames[1].model.detections[0].iou == 30 / 42  # what the view does not show stays
    rv.make_pseudo_labels(videos, "model")
    frames = videos.first().frames
    assert [frames[number].model.detections[0].iou for number in (1, 2)] == [None, 30 / 42]


def test_errors_name_the_video_and_can_be_skipped(videos) -> None:
    bad = videos.first()
    bad.frames[2]["model"] = None
    bad.save()
    with pytest.raises(FieldError, match=rf"{bad.id}.*frame 2 is annotated in 'ground_truth', but not predicted"):
        rv.make_pseudo_labels(videos, "model")
    made = rv.make_pseudo_labels(videos, "model", skip_failures=True)
    assert [failure.sample_id for failure in made.failures] == [bad.id]
    assert len(made.labels) == 2
    with pytest.raises(ValueError, match="no absent_policy 'two', but: one, zero, skip"):
        rv.make_pseudo_labels(videos, "model", absent_policy="two")  # type: ignore[arg-type]
    with pytest.raises(FieldError, match=r"no field 'frames.gone'"):
        rv.make_pseudo_labels(videos, "gone")


def test_export_overwrites_only_when_told(videos, tmp_path) -> None:
    made = rv.make_pseudo_labels(videos, "model")
    files = made.export(tmp_path)
    assert len(files) == 4
    assert json.loads((tmp_path / "0" / "1.json").read_text())[3] is None
    with pytest.raises(FileExistsError, match="overwrite=True"):
        made.export(tmp_path)
    assert made.export(tmp_path, overwrite=True) == files
    made.labels += made.labels
    with pytest.raises(ValueError, match="two videos are called '0'"):
        made.export(tmp_path / "other")
