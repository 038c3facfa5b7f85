"""Two evaluations are compared, expression by expression."""

import pytest
from fiftyone import ViewField as F

from fiftyone_refvos import compare
from fiftyone_refvos.fields import FieldError, read_expressions, write_expression_attributes
from tests.fields_data import video_sample


def scored(dataset, path, a, b):
    sample = video_sample(dataset, path, texts=[f"text {i}" for i in range(len(a[1]))])
    ids = [each.id for each in read_expressions(sample)]
    scores = {key: {id_: v for id_, v in zip(ids, values, strict=True) if v is not None} for key, values in (a, b)}
    write_expression_attributes(sample, scores)
    return sample


@pytest.fixture
def compared(dataset):
    first = scored(dataset, "/videos/a.mp4", ("old_JF", [0.5, 0.9, 0.4, None]), ("new_JF", [0.5, 0.8, 0.9, 0.1]))
    second = scored(dataset, "/videos/b.mp4", ("old_JF", [0.9, 0.2]), ("new_JF", [0.1, 0.1]))
    dataset.add_dynamic_sample_fields()
    return dataset, first, second


def test_wins_and_losses_of_two_evaluations(compared):
    dataset, _, second = compared
    comparison = compare(dataset, "old", "new")
    assert [round(each.delta, 6) for each in comparison.deltas] == [-0.8, -0.1, -0.1, 0, 0.5]
    assert (len(comparison.wins), len(comparison.losses), comparison.num_ties) == (1, 3, 1)
    assert comparison.num_unpaired == 1
    assert comparison.mean_delta == pytest.approx(-0.1)
    worst = comparison.losses[0]
    assert (worst.sample_id, worst.expression_id, worst.text) == (second.id, "0", "text 0")
    assert "1 wins, 3 losses, 1 ties, mean -0.1000" in str(comparison)
    assert f"-0.8000  0.9000 -> 0.1000  sample {second.id}, expression 0: text 0" in str(comparison)
    assert len(compare(dataset, "old", "new", tolerance=0.2).losses) == 1


def test_the_largest_regressions_as_a_view(compared):
    dataset, first, second = compared
    comparison = compare(dataset, "old", "new")
    view = comparison.regressions()
    assert view.values("id") == [second.id, first.id]
    assert view.values("expressions.detections.label") == [["text 0", "text 1"], ["text 1"]]
    assert comparison.regressions(1).values("expressions.detections.label") == [["text 0"]]
    assert comparison.improvements().values("expressions.detections.label") == [["text 2"]]
    assert len(compare(dataset, "old", "old").regressions()) == 0


def test_of_a_view_only_the_shown_expressions_are_compared(compared):
    dataset, _, second = compared
    view = dataset.filter_labels("expressions", F("label") == "text 1")
    assert [each.text for each in compare(view, "old", "new").deltas] == ["text 1"] * 2
    assert [each.sample_id for each in compare(dataset.select(second.id), "new", "old").wins] == [second.id] * 2


def test_evaluations_that_do_not_exist_are_named(compared):
    dataset, *_ = compared
    with pytest.raises(FieldError, match=r"expressions\.detections\.newest_JF, there are: new, old"):
        compare(dataset, "old", "newest")
    with pytest.raises(FieldError, match="pass the dataset"):
        compare(dataset.to_clips("expressions"), "old", "new")
