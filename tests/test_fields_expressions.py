"""Expressions: from every kind of prompt field, with ids that stay, and errors that tell what to do."""

import re

import fiftyone as fo
import pytest
from fiftyone import ViewField as F

from fiftyone_refvos.fields import (
    FieldError,
    add_expressions,
    declare_expressions,
    declare_masklet_schema,
    expressions_field,
    finished_expressions,
    read_expressions,
    write_expression_attributes,
)
from fiftyone_refvos.masklet import Expression

DOG, CAT = Expression("0", "the dog"), Expression("1", "a cat")


def add_sample(dataset, **fields):
    sample = fo.Sample(filepath="/videos/a.mp4", metadata=fo.VideoMetadata(total_frame_count=5), **fields)
    dataset.add_sample(sample)
    return sample


def detections(*texts, **attributes):
    """TemporalDetections of texts, or of (text, expression_id) pairs."""
    pairs = [text if isinstance(text, tuple) else (text, None) for text in texts]
    return fo.TemporalDetections(
        detections=[
            fo.TemporalDetection(label=text, support=[1, 5], **attributes, **({"expression_id": id_} if id_ else {}))
            for text, id_ in pairs
        ]
    )


def stored(sample, field="expressions"):
    return [(label.label, label.expression_id) for label in sample[field].detections]


# --- reading ---


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("the dog", [DOG]),
        (["the dog", "a cat"], [DOG, CAT]),
        (["  the dog ", "a cat", "the dog"], [DOG, CAT]),
        ([], []),
        (detections("the dog", "a cat"), [DOG, CAT]),
        (detections(), []),
        (fo.TemporalDetection(label="the dog", support=[1, 5]), [DOG]),
        (fo.Classification(label=" the dog"), [DOG]),
        (
            fo.Classifications(classifications=[fo.Classification(label=t) for t in ("the dog", "a cat")]),
            [DOG, CAT],
        ),
    ],
)
def test_every_kind_of_prompt_field(dataset, prompt, expected):
    sample = add_sample(dataset, prompt=prompt.copy() if isinstance(prompt, fo.Label) else prompt)
    assert read_expressions(sample, "prompt") == expected
    assert read_expressions(sample, "prompt") == expected  # ids stay
    assert read_expressions(dataset.view().first(), "prompt") == expected


def test_texts_become_expressions_of_the_sample(dataset):
    sample = add_sample(dataset, prompt=["the dog", "a cat"])
    assert expressions_field(dataset, "prompt") == "expressions"
    read_expressions(sample, "prompt")
    assert stored(sample) == [("the dog", "0"), ("a cat", "1")]
    assert [(label.support, label.kind) for label in sample.expressions.detections] == [([1, 5], "prompt")] * 2
    assert expressions_field(dataset, "expressions") == "expressions"


def test_labels_stay_in_their_own_field(dataset):
    sample = add_sample(dataset, captions=fo.Classifications(classifications=[fo.Classification(label="the dog")]))
    assert read_expressions(sample, "captions") == [DOG]
    assert expressions_field(dataset.view(), "captions") == "captions"
    assert sample.captions.classifications[0].expression_id == "0"
    assert dataset.get_field("expressions") is None


def test_labels_without_id_get_the_next_free_one(dataset):
    sample = add_sample(dataset, expressions=detections(("a", "7"), "b", ("c", "x"), "d"))
    assert [e.id for e in read_expressions(sample)] == ["7", "8", "x", "9"]
    assert stored(sample) == [("a", "7"), ("b", "8"), ("c", "x"), ("d", "9")]
    assert isinstance(dataset.get_field("expressions.detections.expression_id"), fo.StringField)


def test_a_filtered_view_shows_only_its_expressions(dataset):
    add_sample(dataset, expressions=detections("the dog", "a cat", "a cow"))
    view = dataset.filter_labels("expressions", F("label") != "the dog")
    assert read_expressions(view.first()) == [CAT, Expression("2", "a cow")]
    view = dataset.filter_labels("expressions", F("label") == "none", only_matches=False)
    assert read_expressions(view.first()) == []
    assert len(read_expressions(dataset.exclude_fields("expressions").first())) == 3


def test_clips_of_expressions(dataset):
    """Each clip asks for its own expression; ids go to the expressions of the video."""
    sample = add_sample(dataset, expressions=detections("the dog", "a cat"))
    clips = dataset.to_clips("expressions")
    assert [read_expressions(clip) for clip in clips] == [[DOG], [CAT]]
    assert stored(sample) == [("the dog", "0"), ("a cat", "1")]


def test_clips_of_frames(dataset):
    """A clip without expressions of its own has those of its video."""
    sample = add_sample(dataset, expressions=detections("the dog"), prompt="a cat")
    (clip,) = dataset.to_clips([[(2, 3)]])
    assert read_expressions(clip) == [DOG]
    assert read_expressions(clip, "prompt") == [CAT]
    assert stored(sample) == [("the dog", "0"), ("a cat", "1")]
    assert sample.expressions.detections[1].support == [1, 5]


def test_a_cloned_clips_view(dataset):
    add_sample(dataset, expressions=detections("the dog", "a cat"))
    clone = dataset.to_clips("expressions").clone()
    try:
        assert [read_expressions(sample) for sample in clone] == [[DOG], [Expression("0", "a cat")]]
        with pytest.raises(FieldError, match="'expressions' holds one Classification, to which no expression"):
            add_expressions(clone.first(), "a cow")
    finally:
        clone.delete()


# --- adding ---


def test_the_same_text_is_one_expression(dataset):
    sample = add_sample(dataset, expressions=detections(("the dog", "4"), ("the dog", "5"), kind="referring"))
    assert add_expressions(sample, [" the dog", "a cat", "a cat "]) == [
        Expression("4", "the dog"),
        Expression("6", "a cat"),
    ]
    assert add_expressions(sample, "a cat") == [Expression("6", "a cat")]
    assert stored(sample) == [("the dog", "4"), ("the dog", "5"), ("a cat", "6")]
    assert [label.kind for label in sample.expressions.detections] == ["referring", "referring", "prompt"]


def test_adding_keeps_what_is_known_of_the_others(dataset):
    sample = add_sample(dataset, expressions=detections("the dog", annotator="A", object_ids=["1", "2"]))
    before = sample.expressions.detections[0].id
    add_expressions(sample, "a cat", kind="typed")
    dog, cat = sample.expressions.detections
    assert (dog.id, dog.annotator, dog.object_ids, dog.expression_id) == (before, "A", ["1", "2"], "0")
    assert (cat.kind, cat.support, cat.expression_id) == ("typed", [1, 5], "1")


def test_adding_to_another_field(dataset):
    sample = add_sample(dataset)
    assert add_expressions(sample, "the dog", field="mine") == [DOG]
    assert stored(sample, "mine") == [("the dog", "0")]
    assert dataset.get_field("expressions") is None


# --- attributes ---


def test_attributes_by_id(dataset):
    sample = add_sample(dataset, expressions=detections(("the dog", "a"), ("a cat", "b")))
    dataset.add_sample_field("expressions.detections.e_J", fo.FloatField)
    write_expression_attributes(sample, {"e_J": {"b": 0.5}})
    assert [label.to_dict().get("e_J") for label in sample.expressions.detections] == [None, 0.5]
    with pytest.raises(FieldError, match=re.escape("'expressions' has no expression 'c', only ['a', 'b']")):
        write_expression_attributes(sample, {"e_J": {"c": 0.5}})


def test_attributes_of_a_single_label(dataset):
    sample = add_sample(dataset, caption=fo.Classification(label="the dog"))
    read_expressions(sample, "caption")
    dataset.add_sample_field("caption.e_J", fo.FloatField)
    write_expression_attributes(sample, {"e_J": {"0": 0.5}}, field="caption")
    assert sample.caption.e_J == 0.5


# --- errors ---


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        (
            {"prompt": "x"},
            "promt",
            "has no field 'promt' to take expressions from: name one that holds text, a list",
        ),
        ({"prompt": "x"}, "promt", "such as filepath, tags, prompt"),
        ({"prompt": [3]}, "prompt", "the field 'prompt' holds ListField, but expressions come as text"),
        ({"prompt": 3}, "prompt", "the field 'prompt' holds IntField, but expressions come as text"),
        (
            {"prompt": fo.Detections()},
            "prompt",
            "the field 'prompt' holds Detections, but expressions come as text",
        ),
        (
            {"prompt": " "},
            "prompt",
            "an expression in 'prompt' is empty: write what to look for, or remove it",
        ),
        ({"prompt": ["dog", ""]}, "prompt", "an expression in 'prompt' is empty"),
        ({"e": detections("dog", " ")}, "e", "an expression in 'e' is empty"),
        ({"e": detections("dog", None)}, "e", "an expression in 'e' is empty"),
        ({"e": detections(("dog", "1"), ("cat", "1"))}, "e", "two labels of 'e' have the expression_id '1'"),
    ],
)
def test_errors_name_sample_and_field(dataset, fields, field, message):
    sample = add_sample(dataset, **{k: v.copy() if isinstance(v, fo.Label) else v for k, v in fields.items()})
    with pytest.raises(FieldError, match=re.escape(message)) as error:
        read_expressions(sample, field)
    assert f"sample {sample.id} (/videos/a.mp4)" in str(error.value)


@pytest.mark.parametrize("value", ["text", detections("dog")])
def test_a_field_that_is_not_set(dataset, value):
    add_sample(dataset, prompt=value)
    sample = add_sample(dataset)
    message = "the field 'prompt' is not set: set it, or leave the sample out by view.exists('prompt')"
    with pytest.raises(FieldError, match=re.escape(message)):
        read_expressions(sample, "prompt")


def test_text_fields_cannot_be_expressions(dataset):
    sample = add_sample(dataset, expressions=["the dog"])
    assert finished_expressions(sample, "glus") == set()
    with pytest.raises(FieldError, match=re.escape("rename it with dataset.rename_sample_field('expressions'")):
        add_expressions(sample, "a cat")


# --- the schema ---


def test_declaring_the_schema_of_masklets(dataset):
    add_sample(dataset)
    declare_masklet_schema(dataset.view(), "glus")
    declared = {
        "frames.glus.detections.expression_id": fo.StringField,
        "frames.glus.detections.object_id": fo.StringField,
        "frames.glus.detections.key_frame_score": fo.FloatField,
        "frames.glus.detections.iou": fo.FloatField,
        "expressions.detections.expression_id": fo.StringField,
        "expressions.detections.kind": fo.StringField,
        "expressions.detections.glus_no_target": fo.BooleanField,
        "expressions.detections.glus_score": fo.FloatField,
        "expressions.detections.glus_key_frame": fo.IntField,
        "expressions.detections.glus_frames": fo.ListField,
        "expressions.detections.glus_text": fo.StringField,
    }
    assert {path: type(dataset.get_field(path)) for path in declared} == declared
    assert dataset.get_field("frames.glus").document_type is fo.Detections
    assert dataset.get_field("expressions").document_type is fo.TemporalDetections


def test_declaring_twice_changes_nothing(dataset):
    add_sample(dataset, expressions=detections("the dog"))
    declare_masklet_schema(dataset, "glus")
    modified, schema = dataset.last_modified_at, dataset.get_field_schema(flat=True).keys()
    declare_masklet_schema(dataset.to_clips("expressions"), "glus")
    assert dataset.last_modified_at == modified
    assert dataset.get_field_schema(flat=True).keys() == schema


def test_names_that_are_taken(dataset):
    sample = add_sample(dataset)
    sample.frames[1] = fo.Frame(note="text")
    sample.save()
    with pytest.raises(FieldError, match=re.escape("'frames.note' holds StringField, not Detections: choose")):
        declare_masklet_schema(dataset, "note")
    declare_expressions(dataset)
    dataset.add_sample_field("expressions.detections.glus_score", fo.StringField)
    message = "'expressions.detections.glus_score' holds StringField, but has to be a FloatField"
    with pytest.raises(FieldError, match=re.escape(message)):
        declare_masklet_schema(dataset, "glus")


def test_declaring_before_there_are_samples(dataset):
    with pytest.raises(FieldError, match="has the media type None, not video or image: add its samples before"):
        declare_masklet_schema(dataset, "glus")
