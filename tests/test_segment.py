"""`rv.segment` on real datasets: fields, resuming, overwriting, failures, clips, and every prompt type."""

from __future__ import annotations

from pathlib import Path

import fiftyone as fo
import fiftyone.zoo as foz
import numpy as np
import pytest
from fiftyone import ViewField as F

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.demo import DemoConfig, generate, video_seed
from fiftyone_refvos.fields import FieldError
from fiftyone_refvos.segment import Progress
from fiftyone_refvos.video import open_video
from tests.clip_datasets import add_clips, masks_of
from tests.numbered import PICTURES, VARIABLE_SHOWN, encode, number_of, variable
from tests.small import glus_tiny
from tests.videos import write_clip


@pytest.fixture(scope="module")
def model():
    return foz.load_zoo_model("glus-tiny", device="cpu")


def test_typed_prompts_become_expressions_with_masklets_and_scores(dataset, tmp_path, model) -> None:
    add_clips(dataset, tmp_path, 2)
    report = rv.segment(dataset, model, label_field="tiny", prompts=["the square", "a dog", "the square"])
    assert (report.num_samples, report.num_expressions, report.failures) == (2, 4, [])
    for sample in dataset:
        assert [d.label for d in sample.expressions.detections] == ["the square", "a dog"]
        assert {d.kind for d in sample.expressions.detections} == {"prompt"}
        assert sorted(sample.frames) == [1, 2, 3, 4, 5, 6]
        expected = glus_tiny().segment(open_video(sample.filepath), fields.read_expressions(sample))
        results = {(r.expression_id, r.frame): r for r in expected}
        for masklet in fields.read_masklets(sample, "tiny"):
            label = next(d for d in sample.expressions.detections if d.expression_id == masklet.expression.id)
            assert label["tiny_no_target"] == masklet.no_target
            for frame in masklet.frames:
                assert (masklet.union(frame) == results[masklet.expression.id, frame].masks[0]).all()


def test_every_prompt_type_gives_the_same_masks(dataset, tmp_path, model) -> None:
    path = write_clip(tmp_path / "clip.mp4")
    text = "the square"
    temporal = fo.TemporalDetections(detections=[fo.TemporalDetection(label=text, support=[1, 6])])
    prompts = {
        "string": text,
        "texts": [text],
        "classes": fo.Classifications(classifications=[fo.Classification(label=text)]),
        "temporal": temporal,
    }
    dataset.add_sample(fo.Sample(filepath=str(path), **prompts))
    masks = []
    for number, field in enumerate(prompts):
        report = rv.segment(dataset, model, label_field=f"tiny{number}", prompt_field=field)
        assert (report.num_expressions, report.failures) == (1, [])
        own = fields.expressions_field(dataset, field)
        (masklet,) = fields.read_masklets(dataset.first(), f"tiny{number}", expressions_field=own)
        masks.append(np.stack(list(masklet.dense())))
    assert all((other == masks[0]).all() for other in masks[1:])
    assert masks[0].any()
    assert len(dataset.first().expressions.detections) == 1  # the string and the list are one expression


def test_apply_model_gives_the_same_masks_as_segment(dataset, tmp_path, model) -> None:
    add_clips(dataset, tmp_path, 2, prompt="the square", texts=["a dog", "the square"])
    dataset.apply_model(model, label_field="applied", prompt_field="texts")
    rv.segment(dataset, model, label_field="ours", prompt_field="texts")
    for frame_number in (1, 6):
        pair = [dataset.last().frames[frame_number][name].detections for name in ("applied", "ours")]
        assert [d.expression_id for d in pair[0]] == [d.expression_id for d in pair[1]]
        assert [d.bounding_box for d in pair[0]] == [d.bounding_box for d in pair[1]]
        assert all((a.mask == b.mask).all() for a, b in zip(*pair, strict=True))
    dataset.apply_model(model, label_field="string", prompt_field="prompt")
    assert dataset.count("frames.string.detections") > 0


def test_apply_model_reads_the_exact_images_of_a_folder_dataset(dataset, tmp_path, model) -> None:
    from PIL import Image

    video = generate(video_seed("test", 0), DemoConfig(height=45, width=63, num_frames=8))
    names = [f"{number:05d}.png" for number in range(8)]
    (tmp_path / "frames").mkdir()
    for number, name in enumerate(names):  # an odd size, which no mp4 has, and pictures that this one does not show
        Image.fromarray(video.frame(number)).save(tmp_path / "frames" / name)
    clip = write_clip(tmp_path / "clip.mp4", num_frames=8, size=(46, 64))
    folder = {"frames_dir": str(tmp_path / "frames"), "frame_names": names, "frame_size": [63, 45]}
    prompt = next(expression.text for expression in video.expressions if expression.kind == "attribute")
    dataset.add_sample(fo.Sample(filepath=str(clip), prompt=prompt, **folder))
    rv.segment(dataset, model, label_field="ours", prompt_field="prompt")
    dataset.apply_model(model, label_field="applied", prompt_field="prompt")
    masks = masks_of(dataset, "ours")[0]
    assert masks.shape == (8, 1, 45, 63)
    assert masks.any()
    for number in range(1, 9):
        ours, applied = (dataset.first().frames[number][name].detections for name in ("ours", "applied"))
        assert [d.bounding_box for d in ours] == [d.bounding_box for d in applied]
        assert all((a.mask == b.mask).all() for a, b in zip(ours, applied, strict=True))


def test_second_call_does_only_what_is_missing(dataset, tmp_path, model, monkeypatch) -> None:
    add_clips(dataset, tmp_path, 3)
    rv.segment(dataset[:2], model, label_field="tiny", prompts=["the square"])
    sample = dataset.first()
    sample.expressions.detections[0].label = "the cube"  # edited: its masklet is stale
    sample.save()
    asked = []
    real = model.segmenter.segment

    def spy(frames, expressions, **options):
        asked.append((Path(frames.name).name, [e.text for e in expressions]))
        return real(frames, expressions, **options)

    monkeypatch.setattr(model.segmenter, "segment", spy)
    dataset.last()["expressions"] = None
    report = rv.segment(dataset[:2], model, label_field="tiny")
    assert asked == [("clip0.mp4", ["the cube"])]
    assert (report.num_samples, report.num_skipped) == (1, 1)
    asked.clear()
    rv.segment(dataset, model, label_field="tiny", prompts=["the square"])
    assert asked == [("clip0.mp4", ["the square"]), ("clip2.mp4", ["the square"])]


def test_field_of_another_run_is_not_overwritten_unasked(dataset, tmp_path, model) -> None:
    add_clips(dataset, tmp_path)
    rv.segment(dataset, model, label_field="tiny", prompts=["the square"])
    other = foz.load_zoo_model("glus-tiny", device="cpu", context_mode="linspace")
    with pytest.raises(rv.FieldExistsError, match="context_mode was 'center' and is 'linspace'.*overwrite=True"):
        rv.segment(dataset, other, label_field="tiny")
    before = masks_of(dataset, "tiny")
    report = rv.segment(dataset, other, label_field="tiny", overwrite=True)
    assert report.num_expressions == 1
    assert len(masks_of(dataset, "tiny")) == len(before)
    dataset.add_frame_field("mine", fo.EmbeddedDocumentField, embedded_doc_type=fo.Detections)
    with pytest.raises(rv.FieldExistsError, match="'frames.mine' exists and was not made by a segmentation run"):
        rv.segment(dataset, model, label_field="mine")


def test_overwriting_a_part_does_not_mix_two_models_in_one_field(dataset, tmp_path, model) -> None:
    add_clips(dataset, tmp_path, 2, prompt="the square")
    rv.segment(dataset, model, label_field="tiny", prompt_field="prompt")
    other = foz.load_zoo_model("glus-tiny", device="cpu", context_mode="linspace")
    view = dataset.match(F("filepath") == dataset.last().filepath)
    with pytest.raises(rv.FieldExistsError, match="masks of other samples .* overwrite the whole dataset"):
        rv.segment(view, other, label_field="tiny", prompt_field="prompt", overwrite=True)
    report = rv.segment(view, model, label_field="tiny", prompt_field="prompt", overwrite=True)
    assert report.num_samples == 1  # the same model may do a part again
    assert dataset.count("frames.tiny.detections") > 0


@pytest.mark.parametrize("name", ["my field", "2nd", "_hidden", "größe", "a.b", ""])
def test_label_field_that_cannot_be_one_is_refused_before_anything_changes(dataset, tmp_path, model, name) -> None:
    add_clips(dataset, tmp_path)
    schema = set(dataset.get_frame_field_schema(flat=True))
    with pytest.raises(FieldError, match="cannot be a label field"):
        rv.segment(dataset, model, label_field=name, prompts=["x"])
    assert set(dataset.get_frame_field_schema(flat=True)) == schema
    assert dataset.get_field("expressions") is None


def test_failures_are_listed_and_the_other_videos_go_on(dataset, tmp_path, model) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    fine = write_clip(tmp_path / "fine.mp4")
    whole = write_clip(tmp_path / "whole.mp4", num_frames=30)
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:-600])
    names = ["missing.mp4", "text.mp4", "empty.mp4", "cut.mp4", "fine.mp4"]
    dataset.add_samples([fo.Sample(filepath=str(tmp_path / name)) for name in names])
    dataset.add_sample_field("prompt", fo.StringField)
    dataset.set_values("prompt", ["the square"] * 5)
    report = rv.segment(dataset, model, label_field="tiny", prompt_field="prompt")
    assert report.num_samples == 1
    assert [Path(failure.filepath).name for failure in report.failures] == names[:-1]
    reasons = [failure.error for failure in report.failures]
    assert "does not exist" in reasons[0]
    assert "is no readable video" in reasons[1]
    assert "empty (0 bytes)" in reasons[2]
    assert "decoding stopped at frame" in reasons[3]
    for failure in report.failures:
        assert failure.error in str(report)
    cut = dataset.match(F("filepath").ends_with("cut.mp4"))
    assert cut.count("frames.tiny.detections") == 0  # nothing half-written
    info = dataset.load_run_results("segment_tiny")
    assert len(info.failures) == 4
    assert str(fine) in dataset.match(F("expressions.detections.tiny_text").length() > 0).values("filepath")


def test_expressions_that_cannot_be_asked_fail_their_video_alone(dataset, tmp_path, model) -> None:
    add_clips(dataset, tmp_path, 3)
    dataset.set_values("prompt", ["the square", "the <image> there", ""])
    report = rv.segment(dataset, model, label_field="tiny", prompt_field="prompt")
    assert report.num_samples == 1
    assert "'<image>', which stands for a special token" in report.failures[0].error
    assert "prompt" in report.failures[1].error


def test_video_without_expressions_is_listed(dataset, tmp_path, model) -> None:
    add_clips(dataset, tmp_path, 1, expressions=fo.TemporalDetections())
    report = rv.segment(dataset, model, label_field="tiny")
    assert "there are no expressions in 'expressions'" in report.failures[0].error
    with pytest.raises(FieldError, match="has no field 'nothing' to take expressions from"):
        rv.segment(dataset, model, label_field="tiny", prompt_field="nothing")


def test_clips_are_segmented_alone_and_written_to_their_video(dataset, tmp_path, model) -> None:
    dataset.add_sample(fo.Sample(filepath=str(write_clip(tmp_path / "clip.mp4", num_frames=8))))
    dataset.compute_metadata()
    fields.add_expressions(dataset.first(), ["the square"])
    sample = dataset.first()
    sample.expressions.detections[0].support = [3, 6]
    sample.save()
    report = rv.segment(dataset.to_clips("expressions"), model, label_field="tiny")
    assert (report.num_expressions, report.failures) == (1, [])
    written = [n for n, frame in dataset.first().frames.items() if frame["tiny"] is not None]
    assert written == [3, 4, 5, 6]


def test_frames_and_image_datasets_are_refused_by_name(dataset, tmp_path, model) -> None:
    add_clips(dataset, tmp_path)
    with pytest.raises(FieldError, match="a view of frames or patches: pass the dataset"):
        rv.segment(dataset.to_frames(sample_frames=True, output_dir=str(tmp_path / "f")), model, label_field="t")
    images = fo.Dataset()
    images.add_sample(fo.Sample(filepath=str(tmp_path / "image.png")))
    with pytest.raises(ValueError, match="'glus-tiny' segments videos, and no single images"):
        rv.segment(images, model, label_field="tiny", prompts=["a dog"])
    images.delete()


def test_two_samples_of_one_file_and_unset_metadata(dataset, tmp_path, model) -> None:
    path = str(write_clip(tmp_path / "clip.mp4"))
    dataset.add_samples([fo.Sample(filepath=path, prompt="the square"), fo.Sample(filepath=path, prompt="a dog")])
    assert dataset.first().metadata is None
    report = rv.segment(dataset, model, label_field="tiny", prompt_field="prompt")
    assert (report.num_samples, report.failures) == (2, [])
    labels = [sample.expressions.detections[0].label for sample in dataset]
    assert labels == ["the square", "a dog"]


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_very_short_videos(dataset, tmp_path, model, num_frames: int) -> None:
    dataset.add_sample(fo.Sample(filepath=str(write_clip(tmp_path / "clip.mp4", num_frames=num_frames))))
    report = rv.segment(dataset, model, label_field="tiny", prompts=["the square"])
    assert report.failures == []
    assert len(dataset.first().frames) == num_frames


def test_interrupted_run_keeps_what_it_wrote_and_goes_on(dataset, tmp_path, model, monkeypatch) -> None:
    add_clips(dataset, tmp_path, 3)
    real = model.segmenter.segment

    def interrupted(frames, expressions, **options):
        if frames.name.endswith("clip1.mp4"):
            raise KeyboardInterrupt
        return real(frames, expressions, **options)

    monkeypatch.setattr(model.segmenter, "segment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rv.segment(dataset, model, label_field="tiny", prompts=["the square"])
    monkeypatch.undo()
    assert dataset.load_run_results("segment_tiny").num_samples == 1
    report = rv.segment(dataset, model, label_field="tiny", prompts=["the square"])
    assert (report.num_samples, report.num_skipped) == (2, 1)


def test_progress_rises_to_one(dataset, tmp_path, model) -> None:
    add_clips(dataset, tmp_path, 2)
    seen: list[Progress] = []
    rv.segment(dataset, model, label_field="tiny", prompts=["the square"], progress=seen.append)
    fractions = [progress.fraction for progress in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert len({progress.fraction for progress in seen}) >= 12  # every frame of both videos
    assert {(p.video, p.num_videos) for p in seen} == {(1, 2), (2, 2)}


def test_rotated_video_gets_masks_of_the_picture_that_is_shown(dataset, tmp_path, model) -> None:
    turned = encode(tmp_path / "turned.mp4", PICTURES[:4], rotation=90)
    dataset.add_sample(fo.Sample(filepath=str(turned)))
    report = rv.segment(dataset, model, label_field="tiny", prompts=["the square"])
    assert report.failures == []
    (masks,) = masks_of(dataset, "tiny")
    assert masks.shape[2:] == open_video(turned).size == (80, 48)
    expected = glus_tiny().segment(open_video(turned), fields.read_expressions(dataset.first()))
    for result in expected:
        assert (masks[result.frame] == result.masks).all()


def test_variable_frame_rate_gets_the_masks_of_the_pictures_that_the_app_shows(dataset, tmp_path, model) -> None:
    dataset.add_sample(fo.Sample(filepath=str(variable(tmp_path / "variable.mp4"))))
    report = rv.segment(dataset, model, label_field="tiny", prompts=["the square"])
    assert report.failures == []
    assert len(dataset.first().frames) == len(VARIABLE_SHOWN)
    frames = open_video(dataset.first().filepath)
    numbers = [number_of(frame) for frame in frames.read(range(len(frames)))]
    assert numbers == VARIABLE_SHOWN
    masks = {r.frame: r.masks for r in glus_tiny().segment(frames, fields.read_expressions(dataset.first()))}
    (masklet,) = fields.read_masklets(dataset.first(), "tiny")
    assert all((masklet.union(frame) == masks[frame][0]).all() for frame in masks)


def test_apply_model_on_clips_writes_the_frames_of_the_clip(dataset, tmp_path, model) -> None:
    dataset.add_sample(fo.Sample(filepath=str(write_clip(tmp_path / "clip.mp4", num_frames=8))))
    dataset.compute_metadata()
    fields.add_expressions(dataset.first(), ["the square"])
    sample = dataset.first()
    sample.expressions.detections[0].support = [3, 6]
    sample.save()
    rv.segment(dataset.to_clips("expressions"), model, label_field="ours")
    dataset.to_clips("expressions").apply_model(model, label_field="applied", prompt_field="expressions")
    dataset.reload()
    for number in range(3, 7):
        ours, applied = (dataset.first().frames[number][name].detections for name in ("ours", "applied"))
        assert [d.bounding_box for d in ours] == [d.bounding_box for d in applied]
        assert all((a.mask == b.mask).all() for a, b in zip(ours, applied, strict=True))


def test_model_of_the_zoo_segments_a_single_video(tmp_path, model) -> None:
    result = rv.segment_video(
        write_clip(tmp_path / "clip.mp4"), [" the square "], model=model, output=tmp_path / "o.mp4"
    )
    assert [masklet.expression.text for masklet in result.masklets] == ["the square"]
