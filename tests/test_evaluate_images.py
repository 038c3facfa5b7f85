"""`rv.evaluate` on images: the numbers of the image protocols, the fields, the run's life, no targets, bad input."""

from __future__ import annotations

import fiftyone as fo
import numpy as np
import pytest
from fiftyone import ViewField as F

import fiftyone_refvos as rv
from fiftyone_refvos.cli import main
from fiftyone_refvos.fields import FieldError, to_detection
from fiftyone_refvos.masklet import encode
from fiftyone_refvos.metrics import IMAGE_PROTOCOLS, ImageScore, score_image
from tests.image_masks import IMAGES, SIZE, add_images, box


@pytest.fixture
def images(dataset) -> fo.Dataset:
    return add_images(dataset)


def evaluate(samples, **options):
    return rv.evaluate(samples, "model", **{"gt_field": "truth", "eval_key": "run", **options})


def direct(**flags: bool) -> list[ImageScore]:
    """The scores of all expressions, without FiftyOne; `flags` say "no target" for a text."""
    return [
        score_image([*objects.values()], mask, image=number, size=SIZE, no_target=flags.get(text))
        for number, image in enumerate(IMAGES)
        for text, (objects, mask) in image.items()
    ]


def paths(dataset: fo.Dataset) -> list[str]:
    dataset.reload()
    return [path for path in dataset.get_field_schema(flat=True) if path.split(".")[-1].startswith(("run_", "new_"))]


def test_every_protocol_gives_what_its_metrics_give(images) -> None:
    for name, protocol in IMAGE_PROTOCOLS.items():
        results = evaluate(images, protocol=name)
        assert results.metrics() == protocol.summarize(direct())  # `==` on the doubles
        assert results.report()["protocol"] == name
    assert evaluate(images).report()["protocol"] == "gres"


def test_numbers_are_on_expressions_images_and_masks(images) -> None:
    results = evaluate(images)
    ious = [80 / 120, 0.5, 1.0, 0.0, 0.0, 1.0]
    assert [row["iou"] for row in results.expressions] == ious
    assert images.values("expressions.classifications.run_iou") == [ious[:3], ious[3:]]
    assert images.values("run_iou") == [pytest.approx(np.mean(ious[:3])), pytest.approx(np.mean(ious[3:]))]
    assert images.values("model.detections.run_iou") == [[80 / 120, 0.5], [0.0, 1.0]]
    assert results.metrics()["gIoU"] == pytest.approx(100 * np.mean(ious))
    assert (results.metrics()["N-acc"], results.metrics()["T-acc"]) == (0.5, 0.75)


def test_a_run_is_listed_loaded_renamed_replaced_and_deleted(images) -> None:
    results = evaluate(images)
    assert images.list_evaluations(method="refvos") == ["run"]
    assert len(paths(images)) == 3
    images.clear_cache()
    loaded = images.load_evaluation_results("run")
    assert loaded is not results
    assert (loaded.report(), loaded.expressions) == (results.report(), results.expressions)
    assert len(images.load_evaluation_view("run", select_fields=True)) == 2
    images.rename_evaluation("run", "new")
    assert sorted(paths(images)) == ["expressions.classifications.new_iou", "model.detections.new_iou", "new_iou"]
    assert images.values("new_iou")[0] == pytest.approx(np.mean([80 / 120, 0.5, 1.0]))
    evaluate(images.limit(1), eval_key="new")
    assert images.values("new_iou")[1] is None
    images.delete_evaluation("new")
    assert (paths(images), images.list_evaluations()) == ([], [])


def test_report_and_plot(images, capsys) -> None:
    results = evaluate(images)
    results.print_report()
    printed = capsys.readouterr().out
    assert "6 expressions of 2 images, 2 without target; 0 images failed" in printed
    assert "gIoU" in printed
    figure = results.plot()
    assert list(figure.data[0].y) == sorted(row["iou"] for row in results.expressions)
    assert figure.layout.yaxis.title.text == "IoU"


def test_no_target_is_said_by_the_flag_of_the_model_or_by_no_mask(images) -> None:
    sample = images.last()
    for label in sample.expressions.classifications:  # with a mask that is not used
        label["model_no_target"] = label.label == "the hat"
    sample.save()
    images.add_dynamic_sample_fields()
    flags = {"the hat": True, "the cat": False, "no cat": False}
    for name in ("gres", "gres-by-mask", "mllmseg-gres"):
        assert evaluate(images, protocol=name).metrics() == IMAGE_PROTOCOLS[name].summarize(direct(**flags))
    assert images.last().expressions.classifications[2]["run_iou"] == 0


def test_no_labels_at_all_for_what_is_rejected(images) -> None:
    first = images.first()
    only = images.select(first.id).filter_labels("expressions", F("label") == "no such thing")
    first["model"] = fo.Detections()
    first.save()
    assert evaluate(only).metrics()["N-acc"] == 1
    first["model"] = None
    first.save()
    with pytest.raises(FieldError, match=rf"{first.id}.*expression '2' is annotated in 'truth', but not pred"):
        evaluate(only)
    first.expressions.classifications[2]["model_no_target"] = True
    first.save()
    images.add_dynamic_sample_fields()
    results = evaluate(images.select(first.id).filter_labels("expressions", F("label") == "no such thing"))
    assert (results.metrics()["N-acc"], results.metrics()["gIoU"]) == (1, 100)


def test_views_restrict_expressions_and_images(images) -> None:
    results = evaluate(images.filter_labels("expressions", F("label").is_in(["the dog", "the hat"])))
    assert [row["text"] for row in results.expressions] == ["the dog", "the hat"]
    assert evaluate(images.limit(1)).report()["num_images"] == 1


def test_void_pixels_count_in_no_mask(images) -> None:
    first = images.first()
    void = to_detection(encode(box(14)[None])[0], SIZE, label="void")  # all that "the dog" has too much
    first["void"] = fo.Detections(detections=[void])
    first.save()
    assert evaluate(images).expressions[0]["iou"] == 0.8


def test_typed_expressions_without_masks_are_not_evaluated(images) -> None:
    first = images.first()
    texts = ["typed", "typed for nothing"]
    for n, text in enumerate(texts):
        first.expressions.classifications.append(
            fo.Classification(label=text, expression_id=str(5 + n), kind="prompt", no_target=bool(n) or None)
        )
    first.save()
    assert "typed" not in {row["text"] for row in evaluate(images).expressions}
    assert "typed for nothing" in {row["text"] for row in evaluate(images).expressions}


def wrong_size(sample: fo.Sample) -> str:
    sample.model.detections[0].mask = np.ones((3, 3), dtype=bool)
    sample.save()
    return "frame 1 of 'model' has a mask of 3x3 pixels in a box of 10x10"


def unknown_expression(sample: fo.Sample) -> str:
    sample.model.detections[0]["expression_id"] = "99"
    sample.save()
    return "'model' has masks of expression '99'"


def not_segmented(sample: fo.Sample) -> str:
    sample["model"] = None
    sample.save()
    return "expression '0' is annotated in 'truth', but not predicted in 'model'"


@pytest.mark.parametrize("spoil", [wrong_size, unknown_expression, not_segmented])
def test_bad_images_are_named_and_can_be_left_out(images, spoil) -> None:
    bad = images.first()
    message = spoil(bad)
    with pytest.raises(FieldError, match=message) as caught:
        evaluate(images)
    assert bad.id in str(caught.value)
    assert (images.list_evaluations(), paths(images)) == ([], [])
    results = evaluate(images, skip_failures=True)
    assert [failure["error"] for failure in results.failures] == [str(caught.value)]
    assert results.report()["num_images"] == 1


def test_other_media_are_refused_clearly(images) -> None:
    with pytest.raises(ValueError, match="'mevis' is for videos, and images are to be evaluated: choose one of gres"):
        evaluate(images, protocol="mevis")
    with pytest.raises(ValueError, match="no protocol 'nonsense', but: gres"):
        evaluate(images, protocol="nonsense")
    with pytest.raises(FieldError, match="no field 'gone' with masklets, but in: "):
        rv.evaluate(images, "gone", gt_field="truth", eval_key="run")
    with pytest.raises(FieldError, match="holds patches"):
        evaluate(images.to_patches("truth"))
    with pytest.raises(FieldError, match="holds image samples"):
        rv.make_pseudo_labels(images, "model", "truth")
    with pytest.raises(FieldError, match="holds image samples"):
        rv.find_failures(images, "model", gt_field="truth")


def test_processes_give_the_same_numbers(images) -> None:
    assert evaluate(images, num_workers=2).expressions == evaluate(images, eval_key="new").expressions


def test_two_models_are_compared(images) -> None:
    evaluate(images, eval_key="old")
    sample = images.first()
    half = sample.model.detections[0].mask.copy()
    half[:, :5] = False
    sample.model.detections[0].mask = half
    sample.save()
    evaluate(images, eval_key="new")
    comparison = rv.compare(images, "old", "new")
    assert (comparison.measure, [each.text for each in comparison.losses]) == ("iou", ["the dog"])
    assert comparison.regressions().values("expressions.classifications.label") == [["the dog"]]


def test_command_line(images, capsys) -> None:
    arguments = ["evaluate", images.name, "--pred-field", "model", "--gt-field", "truth", "--eval-key", "run"]
    assert main(arguments) == 0
    assert "protocol gres, percent" in capsys.readouterr().out
