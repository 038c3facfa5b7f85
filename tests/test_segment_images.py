"""`rv.segment` and `apply_model` on images: fields, no targets, resuming, kinds of files, what is refused."""

from __future__ import annotations

from pathlib import Path

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F
from PIL import Image

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.cli import main
from fiftyone_refvos.fields import FieldError
from fiftyone_refvos.image_files import read_image
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.segment import FieldExistsError, Progress
from fiftyone_refvos.zoo import RefVOSImageModel
from tests.referred_images import (
    CASE,
    TEXTS,
    add_pictures,
    add_published_case,
    expressions,
    published_case,
    small_model,
)
from tests.small_mllmseg import checkpoint_of, golden_segmenter, noise_image
from tests.videos import write_clip


@pytest.fixture(scope="module")
def model() -> RefVOSImageModel:
    return small_model()


def stored_masks(sample: fo.Sample, field: str = "found") -> dict[str, np.ndarray]:
    """The mask of every expression of an image, at the size of the image."""
    return {each.expression.text: each.union(0) for each in fields.read_masklets(sample, field, exact=True)}


def direct(path: str, texts: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The same without FiftyOne."""
    asked = [Expression(str(n), text) for n, text in enumerate(texts)]
    return {
        each.expression.text: each.mask for each in golden_segmenter().segment_image(read_image(Path(path)), asked)
    }


def test_every_expression_of_an_image_gets_its_mask_score_and_decision(dataset, model) -> None:
    add_published_case(dataset)
    report = rv.segment(dataset, model, label_field="found")
    assert (report.num_samples, report.num_expressions, report.failures) == (2, 6, [])
    assert "6 masklets of 2 images written to 'found'" in str(report)
    for sample in dataset:
        labels = sample.expressions.classifications
        expected = direct(sample.filepath, tuple(label.label for label in labels))
        found = stored_masks(sample)
        assert found.keys() == expected.keys()
        assert all((found[text] == mask).all() for text, mask in expected.items())
        for label in labels:
            assert label.found_no_target == (not expected[label.label].any())
            assert (label.found_score > 0) == (not label.found_no_target)
            assert label.found_text == label.label
        for detection in sample.found.detections:
            (label,) = (each for each in labels if each.expression_id == detection.expression_id)
            assert (detection.label, detection.object_id) == (label.label, "1")
            assert detection.confidence == pytest.approx(label.found_score)
    assert dataset.values("expressions.classifications.found_no_target") == [[False] * 4, [True] * 2]
    assert dataset.last().found == fo.Detections(detections=[])
    assert dataset.get_field("found.detections.expression_id") is not None


def test_the_published_evaluation_is_reached_with_the_masks_that_are_rejected(dataset) -> None:
    add_published_case(dataset)
    rv.segment(dataset, small_model(prompting="joint", rejected="kept"), label_field="found")
    metrics = rv.evaluate(dataset, "found", eval_key="run", protocol="mllmseg-gres").metrics()
    published = published_case()["reference_eval"]
    names = {"gIoU": "gIoU", "cIoU": "cIoU", "N-acc": "N_acc", "T-acc": "T_acc"}
    assert metrics == pytest.approx({ours: published[theirs] for ours, theirs in names.items()}, abs=1e-4)
    said = dict(
        zip(
            dataset.values("expressions.classifications.label", unwind=True),
            *[dataset.values("expressions.classifications.found_no_target", unwind=True)],
            strict=True,
        )
    )
    assert said["man near blue box"]
    assert stored_masks(dataset.first())["man near blue box"].any()  # rejected, and kept
    official = rv.evaluate(dataset, "found", eval_key="run", protocol="gres").metrics()
    assert official["gIoU"] / 100 < metrics["gIoU"]  # a rejected target counts nothing there


def test_the_command_line_writes_what_the_library_writes(dataset, model, capsys) -> None:
    add_published_case(dataset)
    rv.segment(dataset, model, label_field="direct")
    arguments = ["segment", dataset.name, "--label-field", "found", "--model", "mllmseg-8b-gres"]
    assert main([*arguments, "--checkpoint", str(checkpoint_of(CASE)), "--device", "cpu"]) == 0
    assert "6 masklets of 2 images written to 'found'" in capsys.readouterr().out
    dataset.reload()
    for sample in dataset:
        found, expected = stored_masks(sample), stored_masks(sample, "direct")
        assert found.keys() == expected.keys()
        assert all((found[text] == mask).all() for text, mask in expected.items())
        said = [(label.found_no_target, label.direct_no_target) for label in sample.expressions.classifications]
        assert all(ours == theirs for ours, theirs in said)


def test_nothing_found_is_an_empty_list_and_no_gap(dataset, model) -> None:
    add_published_case(dataset)
    rv.segment(dataset.skip(1), model, label_field="found", prompts=["white boat"])
    said = {e.label: e["found_no_target"] for e in dataset.last().expressions.classifications}
    assert said == {"white boat": True, "two dogs on right": None}  # nobody asked for the dogs
    assert dataset.last().found == fo.Detections(detections=[])
    assert dataset.first().found is None
    report = rv.segment(dataset.skip(1), model, label_field="found", prompts=["white boat"])
    assert (report.num_samples, report.num_skipped) == (0, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", TEXTS[0]),
        ("texts", list(TEXTS[:1])),
        ("said", fo.Classifications(classifications=[fo.Classification(label=TEXTS[0])])),
        ("one", fo.Classification(label=TEXTS[0])),
    ],
)
def test_every_prompt_type_gives_the_same_mask(dataset, tmp_path, model, field, value) -> None:
    Image.fromarray(noise_image(40, 60)).save(tmp_path / "0.png")
    dataset.add_sample(fo.Sample(filepath=str(tmp_path / "0.png"), **{field: value}))
    report = rv.segment(dataset, model, label_field="found", prompt_field=field)
    assert (report.num_expressions, report.failures) == (1, [])
    own = fields.expressions_field(dataset, field)
    (masklet,) = fields.read_masklets(dataset.first(), "found", expressions_field=own)
    assert (masklet.union(0) == direct(str(tmp_path / "0.png"), TEXTS[:1])[TEXTS[0]]).all()
    dataset.apply_model(model, label_field="applied", prompt_field=field)
    ours, applied = (dataset.first()[name].detections for name in ("found", "applied"))
    assert [each.bounding_box for each in ours] == [each.bounding_box for each in applied]
    assert all((a.mask == b.mask).all() for a, b in zip(ours, applied, strict=True))


def test_apply_model_takes_the_expressions_of_each_sample(dataset, model) -> None:
    add_published_case(dataset)
    assert model.media_type == "image"
    dataset.apply_model(model, label_field="applied")
    rv.segment(dataset, model, label_field="found")
    for sample in dataset:
        ours, applied = (sample[name].detections for name in ("found", "applied"))
        assert [(e.expression_id, e.label, e.bounding_box) for e in ours] == [
            (e.expression_id, e.label, e.bounding_box) for e in applied
        ]
        assert all((a.mask == b.mask).all() for a, b in zip(ours, applied, strict=True))


def test_a_second_call_does_what_is_missing_and_edited_texts_anew(dataset, tmp_path, model, monkeypatch) -> None:
    add_pictures(dataset, tmp_path, 3)
    assert rv.segment(dataset[:2], model, label_field="found").num_samples == 2
    sample = dataset.first()
    sample.expressions.classifications[1].label = "another thing"
    sample.save()
    asked = []
    real = model.segmenter.segment

    def spy(frames, wanted, **options):
        asked.append((Path(frames.name).name, [each.text for each in wanted]))
        return real(frames, wanted, **options)

    monkeypatch.setattr(model.segmenter, "segment", spy)
    seen: list[Progress] = []
    report = rv.segment(dataset, model, label_field="found", progress=seen.append)
    assert asked == [("0.png", ["another thing"]), ("2.png", list(TEXTS[:2]))]
    assert (report.num_samples, report.num_skipped) == (2, 1)
    assert [p.fraction for p in seen] == sorted(p.fraction for p in seen)
    assert seen[-1].fraction == 1
    assert stored_masks(dataset.first()).keys() == {TEXTS[0], "another thing"}
    assert dataset.load_run_results("segment_found").num_samples == 2


def test_a_field_of_another_model_is_kept_unless_it_is_to_be_replaced(dataset, tmp_path, model) -> None:
    add_pictures(dataset, tmp_path, 2)
    rv.segment(dataset, model, label_field="found")
    before = dataset.values("found.detections.id")
    other = small_model(prompting="joint")
    with pytest.raises(FieldExistsError, match=r"'found' was made by another run \(prompting was 'single'"):
        rv.segment(dataset, other, label_field="found")
    with pytest.raises(FieldExistsError, match="'found' holds .* masks of other samples"):
        rv.segment(dataset.limit(1), other, label_field="found", overwrite=True)
    assert dataset.values("found.detections.id") == before
    assert rv.segment(dataset, other, label_field="found", overwrite=True).num_samples == 2
    assert dataset.get_run_info("segment_found").config.model["prompting"] == "joint"
    dataset.add_sample_field("theirs", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    with pytest.raises(FieldExistsError, match="'theirs' exists and was not made by a segmentation run"):
        rv.segment(dataset, model, label_field="theirs")


def test_what_is_done_over_time_is_no_setting_of_images(model) -> None:
    assert "over_time" not in model.identity
    assert model.for_videos().identity["over_time"] == "per_frame"
    assert model.for_videos().for_images().identity == model.identity
    assert (model.for_images(), model.for_videos().media_type) == (model, "video")


def test_a_view_is_segmented_by_what_it_shows(dataset, tmp_path, model) -> None:
    add_pictures(dataset, tmp_path, 2, TEXTS)
    fields.declare_expressions(dataset)
    shown = dataset.limit(1).filter_labels("expressions", F("label") == TEXTS[0])
    assert rv.segment(shown, model, label_field="found").num_expressions == 1
    assert stored_masks(dataset.first()).keys() == {TEXTS[0]}
    assert dataset.last().found is None


# --- files ---


def test_a_file_that_cannot_be_read_is_listed_and_the_others_go_on(dataset, tmp_path, model) -> None:
    add_pictures(dataset, tmp_path, 4)
    (tmp_path / "1.png").write_bytes((tmp_path / "1.png").read_bytes()[:900])
    (tmp_path / "2.png").unlink()
    report = rv.segment(dataset, model, label_field="found")
    assert report.num_samples == 2
    assert [Path(failure.filepath).name for failure in report.failures] == ["1.png", "2.png"]
    assert "1.png: is no readable image" in report.failures[0].error
    assert "the file does not exist; put it back or mend sample.filepath" in report.failures[1].error
    assert [found is None for found in dataset.values("found")] == [False, True, True, False]
    dataset.apply_model(model, label_field="applied")  # FiftyOne logs its failures, and goes on, too
    assert [found is None for found in dataset.values("applied")] == [False, True, True, False]


@pytest.mark.parametrize("name", ["grey.png", "rgba.png", "palette.png", "deep.png", "turned.jpg", "pixel.png"])
def test_masks_have_the_size_of_the_picture_as_it_is_shown(dataset, tmp_path, model, name) -> None:
    colours = Image.fromarray(noise_image(30, 50))
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = {
        "grey.png": colours.convert("L"),
        "rgba.png": colours.convert("RGBA"),
        "palette.png": colours.quantize(16),
        "deep.png": Image.fromarray(np.array(colours.convert("L")).astype(np.uint16) * 257),
        "turned.jpg": colours,
        "pixel.png": colours.crop((0, 0, 1, 1)),
    }
    path = tmp_path / name
    pictures[name].save(path, exif=exif if name == "turned.jpg" else None)
    dataset.add_sample(fo.Sample(filepath=str(path), expressions=expressions(TEXTS)))
    dataset.compute_metadata()
    report = rv.segment(dataset, model, label_field="found")
    assert report.failures == []
    sample = dataset.first()
    found, expected = stored_masks(sample), direct(str(path), TEXTS)
    size = (sample.metadata.height, sample.metadata.width)  # FiftyOne's, which turns as the App does
    assert size == {"turned.jpg": (50, 30), "pixel.png": (1, 1)}.get(name, (30, 50))
    assert any(mask.any() for mask in found.values()) or name == "pixel.png"
    for text, mask in found.items():
        assert mask.shape == size
        assert (mask == expected[text]).all()
    for detection in sample.found.detections:
        height, width = detection.mask.shape
        assert detection.bounding_box[2:] == pytest.approx([width / size[1], height / size[0]])


# --- expressions ---


def test_two_hundred_expressions_go_through_in_batches(dataset, tmp_path) -> None:
    model = small_model(expression_batch=16)
    texts = [f"thing number {n}" for n in range(200)]
    add_pictures(dataset, tmp_path, 1, texts)
    images, sizes = golden_segmenter(expression_batch=16), []
    real = images.single_states

    def spy(look, prompts):
        sizes.append(len(prompts))
        return real(look, prompts)

    images.single_states = spy  # type: ignore[method-assign]
    try:
        report = rv.segment(dataset, model, label_field="found")
    finally:
        del images.single_states
    assert (report.num_expressions, report.failures) == (200, [])
    assert sizes == [16] * 12 + [8]
    found = stored_masks(dataset.first())
    assert list(found) == texts
    alone = direct(str(tmp_path / "0.png"), ("thing number 137",))["thing number 137"]
    assert (found["thing number 137"] == alone).all()


def test_too_many_expressions_for_one_prompt_are_a_failure_that_says_so(dataset, tmp_path) -> None:
    add_pictures(dataset, tmp_path, 1, [f"the thing that has the number {n} of all" for n in range(2000)])
    (failure,) = rv.segment(dataset, small_model(prompting="joint"), label_field="found").failures
    assert "2000 expressions in one prompt make" in failure.error
    assert "ask with prompting='single', or about fewer at once" in failure.error


@pytest.mark.parametrize(
    ("text", "problem"),
    [("  ", "an expression in 'expressions' is empty"), (".", "is empty"), ("the [SEG]", "special token")],
)
def test_an_expression_that_cannot_be_asked_is_a_failure_of_its_image(
    dataset, tmp_path, model, text, problem
) -> None:
    add_pictures(dataset, tmp_path, 2)
    sample = dataset.first()
    sample.expressions.classifications[1].label = text
    sample.save()
    report = rv.segment(dataset, model, label_field="found")
    assert [(f.sample_id, problem in f.error) for f in report.failures] == [(sample.id, True)]
    assert (report.num_samples, dataset.first().found) == (1, None)
    with pytest.raises(ValueError, match="empty|special token"):
        rv.segment(dataset, model, label_field="typed", prompts=["a dog", text])
    assert dataset.get_field("typed") is None


def test_an_image_without_expressions_is_listed(dataset, tmp_path, model) -> None:
    add_pictures(dataset, tmp_path, 2)
    dataset.first().expressions.classifications.clear()
    sample = dataset.first()
    sample["expressions"] = None
    sample.save()
    (failure,) = rv.segment(dataset, model, label_field="found").failures
    assert (failure.sample_id, "'expressions' is not set" in failure.error) == (sample.id, True)


# --- what is refused ---


def test_models_of_videos_alone_are_refused_before_they_are_loaded(dataset, tmp_path) -> None:
    add_pictures(dataset, tmp_path, 1)
    for name in ("glus", "glus-s"):  # neither of which is here
        with pytest.raises(ValueError, match=f"'{name}' segments videos, and no single images: take one of sa2va-"):
            rv.segment(dataset, name, label_field="found")
    assert dataset.get_field("found") is None


def test_key_frames_patches_and_other_media_are_refused(dataset, tmp_path, model) -> None:
    add_pictures(dataset, tmp_path, 1)
    with pytest.raises(ValueError, match="key frames are of videos: segment images without key_frames='keys'"):
        rv.segment(dataset, model, label_field="found", key_frames="keys")
    rv.segment(dataset, model, label_field="found")
    with pytest.raises(FieldError, match="holds a view of frames or patches: pass the dataset"):
        rv.segment(dataset.to_patches("found"), model, label_field="other")
    with pytest.raises(FieldError, match="holds no samples"):
        rv.segment(fo.Dataset(), model, label_field="other")


def test_the_model_of_images_segments_videos_and_says_how(dataset, tmp_path, model, caplog) -> None:
    path = write_clip(tmp_path / "clip.mp4", num_frames=3)
    dataset.add_sample(fo.Sample(filepath=str(path), prompt=TEXTS[0]))
    report = rv.segment(dataset, model, label_field="found", prompt_field="prompt")
    assert (report.num_samples, report.failures) == (1, [])
    assert dataset.get_run_info("segment_found").config.model["over_time"] == "per_frame"
    dataset.apply_model(model.for_videos(), label_field="applied", prompt_field="prompt")
    ours, applied = (dataset.values(f"frames.{name}.detections.bounding_box") for name in ("found", "applied"))
    assert ours == applied
    with pytest.raises(ValueError, match=r"apply_model gives single frames.*model.for_videos\(\)"):
        dataset.apply_model(model, label_field="frame", skip_failures=False)
