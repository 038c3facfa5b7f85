"""`rv.segment` when something goes wrong or changes meanwhile: nothing is lost, and nothing is half-written."""

from __future__ import annotations

from pathlib import Path

import fiftyone as fo
import fiftyone.zoo as foz
import pytest

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.fields import FieldError
from fiftyone_refvos.segment import Progress
from tests.clip_datasets import add_clips, masks_of


@pytest.fixture(scope="module")
def model():
    return foz.load_zoo_model("glus-tiny", device="cpu")


def test_overwriting_keeps_the_masks_of_a_video_that_fails(dataset, tmp_path, model) -> None:
    add_clips(dataset, tmp_path, 2)
    rv.segment(dataset, model, label_field="tiny", prompts=["the square"])
    before = masks_of(dataset[1:], "tiny")
    Path(dataset.last().filepath).write_text("no video any more")
    report = rv.segment(dataset, model, label_field="tiny", prompts=["a dog"], overwrite=True)
    assert len(report.failures) == 1
    texts = {d.label for frame in dataset.first().frames.values() for d in frame.tiny.detections}
    assert texts <= {"a dog"}  # the masks of the former expression are gone
    kept = [d for frame in dataset.last().frames.values() for d in frame.tiny.detections]
    assert bool(kept) == any(mask.any() for mask in before)


def test_overwriting_a_field_of_another_type_leaves_it_alone(dataset, tmp_path, model) -> None:
    add_clips(dataset, tmp_path)
    sample = dataset.first()
    sample.frames[1]["weather"] = fo.Classification(label="rain")
    sample.save()
    with pytest.raises(FieldError, match="not Detections: choose another label field"):
        rv.segment(dataset, model, label_field="weather", prompts=["the square"], overwrite=True)
    assert dataset.values("frames.weather.label") == [["rain"]]


@pytest.mark.parametrize("remove", ["delete_frame_field", "clear_frame_field"])
def test_masks_that_were_removed_are_made_again(dataset, tmp_path, model, remove: str) -> None:
    add_clips(dataset, tmp_path)
    rv.segment(dataset, model, label_field="tiny", prompts=["the square"])
    count = dataset.count("frames.tiny.detections")
    getattr(dataset, remove)("tiny")
    report = rv.segment(dataset, model, label_field="tiny")
    assert (report.num_expressions, report.num_skipped) == (1, 0)
    assert dataset.count("frames.tiny.detections") == count


@pytest.mark.parametrize(
    ("prompts", "message"),
    [([], "prompts is empty"), ("  ", "is empty"), (["the square", "the [SEG]"], "special token"), ([3], "is text")],
)
def test_prompts_that_cannot_be_asked_are_refused_before_anything_is_written(
    dataset, tmp_path, model, prompts, message
) -> None:
    add_clips(dataset, tmp_path)
    with pytest.raises(ValueError, match=message):
        rv.segment(dataset, model, label_field="tiny", prompts=prompts)
    assert dataset.get_field("expressions") is None
    assert not dataset.has_run("segment_tiny")


def test_error_of_the_progress_callback_ends_the_run(dataset, tmp_path, model) -> None:
    class CancelledError(Exception):
        pass

    def cancel(progress: Progress) -> None:
        if progress.video == 2:
            raise CancelledError

    add_clips(dataset, tmp_path, 3)
    with pytest.raises(CancelledError):
        rv.segment(dataset, model, label_field="tiny", prompts=["the square"], progress=cancel)
    results = dataset.load_run_results("segment_tiny")
    assert (results.num_samples, results.failures) == (1, [])


def test_expressions_added_at_the_same_time_are_all_kept(dataset, tmp_path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    add_clips(dataset, tmp_path)
    fields.declare_expressions(dataset)
    texts = [f"text {number}" for number in range(8)]
    sample = dataset.first()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda text: fields.add_expressions(sample, [text]), texts))
    dataset.reload()
    labels = dataset.values("expressions.detections")[0]
    assert {label.label for label in labels} == set(texts)
    assert len({label.expression_id for label in labels}) == len(texts)
