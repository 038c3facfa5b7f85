"""`rv.train_mllmseg` and `refvos train-mllmseg`: views to checkpoints, and what cannot be learnt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.cli import main
from fiftyone_refvos.fields import FieldError
from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.mllmseg.loading import load_mllmseg
from fiftyone_refvos.training.mllmseg.views import ImageViewSource
from tests.image_masks import SIZE, add_images, box
from tests.mllmseg_runs import CASE, CONFIG, SOURCE
from tests.small_mllmseg import checkpoint_of, noise_image, plain_internvl


@pytest.fixture(scope="module", autouse=True)
def cpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        yield


@pytest.fixture
def images(dataset, tmp_path):
    """Two images with six expressions, two of them without a target, and their true masks in `truth`."""
    add_images(dataset)
    for number, sample in enumerate(dataset):
        path = tmp_path / f"{number}.png"
        Image.fromarray(noise_image(*SIZE)).save(path)
        sample.filepath = str(path)
        sample.save()
    return dataset


def test_a_view_is_a_source_of_images_with_the_union_of_the_objects_of_an_expression(images) -> None:
    source = ImageViewSource(images, masks_field="truth", name="mine")
    assert str(source.report) == "6 expressions (2 without a target) of 2 images"
    image = source.image(0)
    assert (image.name, image.read().shape) == ("0", (*SIZE, 3))
    assert [(each.text, each.has_target) for each in image.expressions] == [
        ("the dog", True),
        ("both", True),
        ("no such thing", False),
    ]
    masks = image.masks(image.expressions[::-1])
    assert np.array_equal(masks, [np.zeros(SIZE), box(4) | box(30), box(4)])
    shown = fields.expressions.show_expressions(
        images, "expressions", [images.last().expressions.classifications[1].id]
    )
    with pytest.raises(FieldError, match=r"nothing to train on .* 1 images without an expression with a target"):
        ImageViewSource(shown, masks_field="truth")
    absent = ImageViewSource(shown, masks_field="truth", all_absent=True)
    assert [each.has_target for each in absent.image(0).expressions] == [False]
    assert absent.digest != source.digest
    typed = images.first()
    fields.add_expressions(typed, "the moon")
    assert "left out: 1 expressions without true masks" in str(ImageViewSource(images, masks_field="truth").report)


def test_what_cannot_be_learnt_is_named(images) -> None:
    sample = images.last()
    with pytest.raises(FieldError, match=r"has no field 'ground_truth' with masklets, but in: truth, model"):
        ImageViewSource(images)
    with pytest.raises(FieldError, match="learns from whole images, but .* holds patches or frames"):
        ImageViewSource(images.to_patches("truth"), masks_field="truth")
    for text, message in (
        ("the cat", r"'0' \('the cat'\) .* has no mask in 'truth': draw one, set its no_target to True"),
        ("no cat", r"'1' \('no cat'\) .* is marked to have no target, but has masks in 'truth'"),
    ):
        stored = {each.expression_id: each for each in sample.truth.detections}
        kept = sample.truth.copy()
        label = next(each for each in sample.expressions.classifications if each.label == text)
        before = (label.object_ids, label.no_target)
        if text == "the cat":
            sample.truth.detections.remove(stored[label.expression_id])
        else:
            sample.truth.detections.append(stored["0"].copy())
            sample.truth.detections[-1].expression_id = label.expression_id
            label.object_ids = None
        sample.save()
        with pytest.raises(FieldError, match=rf"{sample.id}.*{message}"):
            ImageViewSource(images, masks_field="truth")
        sample.truth, (label.object_ids, label.no_target) = kept, before
        sample.save()
    sample.truth.detections[0].mask = np.ones((3, 3), dtype=bool)
    sample.save()
    with pytest.raises(FieldError, match=rf"{sample.id}.*'truth'"):
        ImageViewSource(images, masks_field="truth")


def test_videos_are_refused(dataset, tmp_path) -> None:
    import fiftyone as fo

    dataset.add_sample(fo.Sample(filepath="/videos/a.mp4"))
    with pytest.raises(FieldError, match="learns from whole images, but .* holds video samples"):
        rv.train_mllmseg(dataset, checkpoint_of(CASE), folder=tmp_path / "run", config=CONFIG)
    assert not (tmp_path / "run").exists()


def test_a_view_trains_a_checkpoint_that_loads_and_goes_on(images, tmp_path: Path, capsys) -> None:
    calls: list[int] = []
    options: dict[str, Any] = {"folder": tmp_path / "run", "masks_field": "truth", "validation_field": "truth"}
    trained = rv.train_mllmseg(
        {"mine": images, "memory": SOURCE},
        checkpoint_of(CASE),
        config=replace(CONFIG, batch_size=2),
        validation_view=images.limit(1),
        rates={"mine": 3, "memory": 1},
        progress=lambda progress: calls.append(progress.video),
        **options,
    )
    assert (trained.steps, trained.stopped_because, calls) == (2, "finished", [1, 2])
    assert set(trained.losses) == {"ce", "focal", "dice", "total"}
    assert trained.reports["memory"] == "2 images"
    assert "best validation: gIoU" in str(trained)
    segmenter = load_mllmseg(trained.checkpoint, device="cpu")
    hits = []  # what the validation measured is what the saved model does
    sample = images.first()
    expected = {"0": box(4), "1": box(4) | box(30), "2": None}
    (image,) = fields.frame_source(sample).read([0])
    for result in segmenter.segment_image(image, fields.read_expressions(sample)):
        true = expected[result.expression.id]
        if true is None or not result.found:
            hits.append(float(true is None and not result.found))
        else:
            hits.append((result.mask & true).sum() / (result.mask | true).sum())
    assert trained.validation == pytest.approx(np.mean(hits), abs=0.01)
    with pytest.raises(CheckpointError, match="holds another training"):
        rv.train_mllmseg(images, checkpoint_of(CASE), config=CONFIG, **options)
    arguments = ["train-mllmseg", images.name, str(trained.checkpoint), str(tmp_path / "more"), "--task", "gres"]
    arguments += ["--masks-field", "truth", "--validation-field", "truth", "--validation-share", "0.5"]
    arguments += ["--steps", "1", "--batch-size", "1", "--accumulation", "1", "--measure", "cIoU"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "MLLMSeg trained for 1 steps (finished)" in out
    assert "best validation: cIoU" in out
    assert load_mllmseg(tmp_path / "more" / "merged", device="cpu").network.config.lora_rank == 0


def test_a_plain_internvl_gets_tokens_and_decoder_once_and_is_trained(images, tmp_path: Path) -> None:
    base = plain_internvl(CASE, tmp_path)
    options: dict[str, Any] = {"folder": tmp_path / "run", "masks_field": "truth", "config": CONFIG}
    answers = iter([False, True])
    stopped = rv.train_mllmseg(images, base, should_stop=lambda: next(answers), **options)
    assert (stopped.steps, stopped.stopped_because) == (1, "should_stop")
    written = (tmp_path / "run" / "start" / "model.safetensors").stat().st_mtime_ns
    trained = rv.train_mllmseg(images, base, **options)
    assert (trained.steps, trained.stopped_because) == (2, "finished")
    assert (tmp_path / "run" / "start" / "model.safetensors").stat().st_mtime_ns == written
    segmenter = load_mllmseg(trained.checkpoint, device="cpu")
    (sample, *_) = images
    (image,) = fields.frame_source(sample).read([0])
    assert len([*segmenter.segment_image(image, fields.read_expressions(sample))]) == 3
    with pytest.raises(CheckpointError, match=r"holds another training \(checkpoint was .*internvl"):
        rv.train_mllmseg(images, checkpoint_of(CASE), **options)


def test_a_run_is_not_resumed_with_other_images_to_validate_on(images, tmp_path: Path) -> None:
    options: dict[str, Any] = {"folder": tmp_path / "run", "masks_field": "truth", "validation_field": "truth"}
    base, config = checkpoint_of(CASE), replace(CONFIG, steps=1)
    first = rv.train_mllmseg(images, base, validation_view=images.limit(1), config=config, **options)
    again = rv.train_mllmseg(images, base, validation_view=images.limit(1), config=config, **options)
    assert again.validation == first.validation
    for other in (images.skip(1), None):
        with pytest.raises(CheckpointError, match=r"holds another training \(validation was \{'images': 1"):
            rv.train_mllmseg(images, base, validation_view=other, config=config, **options)
