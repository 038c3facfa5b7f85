"""Key frames in a dataset: chosen, written with expressions and masks, started from, and measured."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from uuid import uuid4

import fiftyone as fo
import fiftyone.zoo as foz
import pytest

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.demo import DemoConfig
from fiftyone_refvos.fields import FieldError
from fiftyone_refvos.key_frame_quality import ExpressionQuality, SelectorQuality
from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.selector.loading import load_selector
from tests.small_selector import TINY, write_selector

DEMO = DemoConfig(height=96, width=160, num_frames=8, max_per_kind=1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    return tmp_path_factory.mktemp("clips")


@pytest.fixture
def demo(clips, fiftyone_home):
    """Two videos of 8 frames with their expressions."""
    dataset = rv.demo.load(num_videos=2, config=DEMO, folder=clips, name=f"test-{uuid4().hex[:12]}")
    yield dataset
    dataset.delete()


def shift(dataset: fo.Dataset, field: str = "moved") -> None:
    """Writes masklets that are the true ones, but for those of frame 1, which are those of frame 2."""
    for sample in dataset:
        truth = fields.read_masklets(sample, "ground_truth")
        moved = [
            type(each)(
                each.expression, each.size, each.frames, (each.masks[1], *each.masks[1:]), each.scores, each.found
            )
            for each in truth
        ]
        fields.write_masklets(sample, field, moved)


def test_the_middle_frame_of_every_expression_is_written(demo):
    report = rv.select_key_frames(demo, "middle", field="kf")
    count = demo.count("expressions.detections")
    assert (report.num_videos, report.num_expressions, report.num_skipped) == (2, count, 0)
    demo.reload()
    assert set(demo.distinct("expressions.detections.kf_key_frame")) == {4}
    assert demo.first().expressions.detections[0].kf_key_frame_scores == [
        -3.5,
        -2.5,
        -1.5,
        -0.5,
        -0.5,
        -1.5,
        -2.5,
        -3.5,
    ]
    again = rv.select_key_frames(demo, "middle", field="kf")
    assert (again.num_expressions, again.num_skipped) == (0, 2)
    with pytest.raises(rv.FieldExistsError, match="were chosen by another selector.*overwrite=True"):
        rv.select_key_frames(demo, "oracle", field="kf")


def test_masklets_start_from_the_key_frames_and_carry_the_scores(demo):
    rv.select_key_frames(demo, "middle", field="kf")
    model = foz.load_zoo_model("glus-tiny", device="cpu")
    rv.segment(demo, model, label_field="glus", key_frames="kf")
    for sample in demo:
        for masklet in fields.read_masklets(sample, "glus"):
            assert masklet.key_frame == 3
        expressions = fields.read_expressions(sample)
        keys = {each.id: 3 for each in expressions}
        results = model.segmenter.segment(fields.frame_source(sample), expressions, key_frames=keys)
        expected = {(r.expression_id, r.frame): r for r in results}
        for masklet in fields.read_masklets(sample, "glus"):
            for frame in masklet.frames:
                assert (masklet.union(frame) == expected[masklet.expression.id, frame].masks.any(0)).all()
        for number, frame in sample.frames.items():
            assert all(each.key_frame_score == -abs(number - 4.5) for each in frame.glus.detections)
    assert demo.get_run_info("segment_glus").config.model["key_frames"] == "kf"
    report = rv.segment(demo, model, label_field="glus", key_frames="kf")
    assert (report.num_skipped, report.num_expressions) == (2, 0)
    # another choice for one expression makes its masklet anew, and no other
    first = demo.first()
    id_ = first.expressions.detections[0].expression_id
    fields.write_key_frames(first, "kf", {id_: 0}, {})
    assert rv.segment(demo, model, label_field="glus", key_frames="kf").num_expressions == 1
    assert {m.expression.id: m.key_frame for m in fields.read_masklets(demo.first(), "glus")}[id_] == 0


def test_key_frames_that_are_not_there_or_would_be_lost_are_refused(demo):
    with pytest.raises(FieldError, match="has no key frames 'kf_key_frame' in 'expressions': call select_key_frames"):
        rv.segment(demo, "glus-tiny", label_field="glus", key_frames="kf")
    rv.select_key_frames(demo, "middle", field="kf")
    with pytest.raises(ValueError, match="'kf' has the key frames that the masklets start from: choose another"):
        rv.segment(demo, "glus-tiny", label_field="kf", key_frames="kf")
    assert not demo.has_frame_field("kf")


def test_the_oracle_chooses_by_the_pseudo_labels_and_is_perfectly_ranked(demo):
    shift(demo)
    with pytest.raises(ValueError, match="unknown selector 'luck'; the selectors are middle, oracle"):
        rv.select_key_frames(demo, "luck", field="best")
    missing = rv.select_key_frames(demo, "oracle", field="best", masklets_field="moved")
    assert len(missing.failures) == 2
    assert "rv.make_pseudo_labels makes them" in missing.failures[0].error
    labels = rv.make_pseudo_labels(demo, "moved")
    rv.select_key_frames(demo, "oracle", field="best", masklets_field="moved")
    demo.reload()
    for label in labels.labels:
        expression = next(
            e for e in demo[label.sample_id].expressions.detections if e.expression_id == label.expression_id
        )
        assert expression.moved_ious == list(label.ious)
        ious = [iou for iou in label.ious if iou is not None]
        assert expression.best_key_frame == 1 + ious.index(max(ious))
    quality = rv.key_frame_quality(demo, "best", "moved")
    assert all(each.spearman == pytest.approx(1) for each in quality.expressions if each.spread > 0)
    assert all(each.chosen == each.best for each in quality.expressions)
    assert sum(each.count for each in quality.calibration) == sum(len(each.frames) for each in quality.expressions)
    assert f"{len(labels.labels)} expressions" in str(quality)
    assert [axes.get_ylabel() for axes in quality.expressions[0].figure().axes] == ["score", "true IoU"]
    assert quality.figure().axes[0].get_xlabel() == "mean score"


def test_a_selector_that_scores_all_frames_alike_ranks_none_of_them():
    ious = (0.1, 0.5, 0.9)
    scores = {"right": (1, 2, 3), "alike": (2, 2, 2), "wrong way round": (3, 2, 1)}
    compared = [
        ExpressionQuality.of(("sample", "video", id_, id_), (1, 2, 3), given, ious) for id_, given in scores.items()
    ]
    flat = ExpressionQuality.of(("sample", "other", "flat", "flat"), (1, 2, 3), (1, 2, 3), (0.5, 0.5, 0.5))
    assert SelectorQuality("kf", "model", (*compared, flat)).correlations == pytest.approx((1, 0, -1))
    assert SelectorQuality("kf", "model", tuple(compared[:2])).spearman == pytest.approx(0.5)
    assert math.isnan(SelectorQuality("kf", "model", (flat,)).spearman)


def test_imported_key_frames_take_the_scores_off_the_masks(demo, tmp_path):
    shift(demo)
    rv.select_key_frames(demo, "middle", field="moved")
    assert demo.count("frames.moved.detections.key_frame_score") > 0
    first = demo.first()
    expression = first.expressions.detections[0].expression_id
    path = tmp_path / "kf.json"
    path.write_text(json.dumps({f"{Path(first.filepath).stem}_{expression}": 2}))
    rv.import_key_frames(demo, path, "moved")
    masks = [
        (mask.expression_id == expression, mask.key_frame_score)
        for frame in demo[first.id].frames.values()
        for mask in frame.moved.detections
    ]
    assert {score is None for mine, score in masks if mine} == {True}
    assert {score is None for mine, score in masks if not mine} == {False}


def test_lists_of_another_number_of_frames_are_not_compared(demo):
    shift(demo)
    rv.make_pseudo_labels(demo, "moved")
    rv.select_key_frames(demo, "middle", field="kf")
    sample = demo.first()
    sample.expressions.detections[0].kf_key_frame_scores = [0.5] * 7
    sample.save()
    with pytest.raises(FieldError, match="has scores of 7 frames and true IoU of 8: select key frames and make"):
        rv.key_frame_quality(demo, "kf", "moved")


def test_new_masks_take_the_labels_of_the_former_ones_away(demo):
    shift(demo)
    rv.make_pseudo_labels(demo, "moved")
    sample = demo.first()
    (first, *_) = fields.read_masklets(sample, "moved")
    fields.write_masklets(sample, "moved", [first])
    known = fields.read_frame_list(sample, "moved", "ious")
    assert first.expression.id not in known
    assert len(known) == len(fields.read_expressions(sample)) - 1


def test_the_confidence_of_masklets_is_their_own_score(demo):
    shift(demo)
    rv.select_key_frames(demo, "confidence", field="moved")
    demo.reload()
    sample = demo.first()
    for masklet in fields.read_masklets(sample, "moved"):
        scores = fields.read_frame_list(sample, "moved", "key_frame_scores")[masklet.expression.id]
        assert scores == tuple(1.0 if found else 0.0 for found in masklet.found)
    numbers = [each.key_frame_score for frame in sample.frames.values() for each in frame.moved.detections]
    assert set(numbers) == {1.0}


def test_the_language_selector_scores_a_view_by_name_and_as_a_model(demo, tmp_path):
    folder = write_selector(tmp_path / "selector")
    options: dict[str, Any] = {"checkpoint": folder, "clip_path": TINY / "clip", "device": "cpu"}
    rv.select_key_frames(demo, "glus-kfs", field="named", **options)
    rv.select_key_frames(demo, foz.load_zoo_model("glus-kfs", **options), field="model")
    demo.reload()
    selector = load_selector(folder, clip_path=TINY / "clip", device="cpu")
    sample = demo.first()
    expressions = fields.read_expressions(sample)
    expected = selector.scores(fields.frame_source(sample), expressions)
    for field in ("named", "model"):
        found = fields.read_frame_list(sample, field, "key_frame_scores")
        assert {id_: list(values) for id_, values in found.items()} == {
            id_: values.tolist() for id_, values in expected.items()
        }
    with pytest.raises(CheckpointError, match="weights of 'glus-kfs' were never published"):
        rv.select_key_frames(demo, "glus-kfs", field="other")


def test_clips_and_views_get_numbers_of_the_whole_video(demo):
    clips = demo.limit(1).to_clips([[(2, 4)]])
    report = rv.select_key_frames(clips, "middle", field="kf")
    assert report.failures == []
    demo.reload()
    first = demo.first().expressions.detections[0]
    assert (first.kf_key_frame, first.kf_key_frame_scores) == (3, [None, -1, 0, -1, *[None] * 4])
    assert set(demo.values("expressions.detections.kf_key_frame")[1]) == {None}


def test_clips_of_one_video_are_each_chosen_in(demo):
    for frames in ((2, 4), (5, 7)):
        report = rv.select_key_frames(demo.limit(1).to_clips([[frames]]), "middle", field="kf")
        assert (report.num_videos, report.failures) == (1, [])
    demo.reload()
    first = demo.first().expressions.detections[0]
    assert (first.kf_key_frame, first.kf_key_frame_scores) == (6, [None, -1, 0, -1, -1, 0, -1, None])


def test_another_selector_replaces_the_key_frames_of_the_whole_dataset_or_none(demo):
    shift(demo)
    rv.select_key_frames(demo, "middle", field="kf")
    with pytest.raises(rv.FieldExistsError, match="those of other samples, too.*overwrite the whole dataset"):
        rv.select_key_frames(demo.limit(1), "oracle", field="kf", masklets_field="moved", overwrite=True)
    # what fails keeps its key frames, but counts as not chosen
    report = rv.select_key_frames(demo, "oracle", field="kf", masklets_field="moved", overwrite=True)
    assert len(report.failures) == 2
    demo.reload()
    assert set(demo.distinct("expressions.detections.kf_key_frame")) == {4}
    rv.make_pseudo_labels(demo, "moved")
    report = rv.select_key_frames(demo, "oracle", field="kf", masklets_field="moved")
    assert (report.num_videos, report.failures) == (2, [])
    scores = fields.read_frame_list(demo.first(), "kf", "key_frame_scores")
    ious = fields.read_frame_list(demo.first(), "moved", "ious")
    assert scores.keys() == ious.keys()
    assert all(scores[id_] == pytest.approx(ious[id_]) for id_ in ious)
