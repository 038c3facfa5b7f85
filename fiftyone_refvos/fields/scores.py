"""Numbers about masklets, next to them: per frame on the detections, per expression, per video."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import fiftyone as fo

from fiftyone_refvos.fields.expressions import labels_by_id, set_attributes, text_of
from fiftyone_refvos.fields.media import num_frames
from fiftyone_refvos.fields.reading import read_area
from fiftyone_refvos.fields.samples import FieldError, RawLabel, locate, root_dataset
from fiftyone_refvos.fields.schema import (
    EXPRESSIONS,
    declare_floats,
    holds_labels,
    label_path,
    masklet_fields,
    masklet_path,
    prompt_type,
)
from fiftyone_refvos.masklet import RLE, Masklet

_NAMING = ("video_name", "image_name", "frames_dir", "filepath")


@dataclass(frozen=True)
class ExpressionFacts:
    """What the labels of an expression say besides its text; see design of the data model.

    Attributes:
        object_ids: the objects that it means, () where that is not told
        type_id: the kind of expression, where the dataset tells kinds apart
        annotator: who wrote it, where there are several
        unjudged: whether, without true masks, nobody knows what is right: somebody typed the expression, and
            neither its `no_target` nor its `object_ids` say that it means nothing, nor was a masklet of it
            written into the truth
        rejected: whether the model says that there is no target; None where it does not say
    """

    object_ids: tuple[str, ...] = ()
    type_id: int | None = None
    annotator: int | None = None
    unjudged: bool = False
    rejected: bool | None = None


def expression_facts(
    sample: fo.Sample, expressions_field: str, *, truth: str, prediction: str
) -> dict[str, ExpressionFacts]:
    """What is known of every expression of a video, by expression id; of the whole video, also for a clip.

    Args:
        sample: a sample of a dataset, a view or a clips view
        expressions_field: the field with the expressions
        truth: the field with the true masks
        prediction: the field with those of a model
    """
    return {
        expression_id: ExpressionFacts(
            tuple(str(each) for each in label.get("object_ids") or ()),
            label.get("type_id"),
            label.get("annotator"),
            label.get("kind") == "prompt" and not _means_nothing(label) and label.get(f"{truth}_text") is None,
            label.get(f"{prediction}_no_target"),
        )
        for expression_id, label in labels_by_id(locate(sample), expressions_field).items()
    }


def expressions_without_target(sample: fo.Sample, expressions_field: str = EXPRESSIONS) -> set[str]:
    """The ids of those expressions of a video of which the dataset says that they have no target."""
    labels = labels_by_id(locate(sample), expressions_field)
    return {id_ for id_, label in labels.items() if _means_nothing(label)}


def _means_nothing(label: RawLabel) -> bool:
    """Whether the dataset says of an expression that it has no target."""
    return label.get("no_target") is True or label.get("object_ids") == []


def expression_texts(sample: fo.Sample, expressions_field: str = EXPRESSIONS) -> dict[str, str]:
    """The text of every expression of a video, by expression id."""
    return {id_: text_of(label) for id_, label in labels_by_id(locate(sample), expressions_field).items()}


def frame_numbers(sample: fo.Sample, masklet: Masklet) -> list[int]:
    """The frame numbers that a masklet of a sample covers, as FiftyOne counts them."""
    first = locate(sample).first
    return [first + frame for frame in masklet.frames]


def shown_frames(sample: fo.Sample) -> set[int]:
    """The frame numbers that a sample of a view shows; for a clip those of the clip."""
    place = locate(sample)
    return {number for number in sample.frames if place.contains(number)}


def read_areas(sample: fo.Sample, field: str) -> dict[int, list[RLE]] | None:
    """The masks of all detections of each frame, whatever they are of, by frame number; None without the field.

    For what belongs to no expression: `void` pixels, the `foreground`.
    """
    place = locate(sample)
    if place.dataset.get_field(masklet_path(place.dataset, field)) is None:
        return None
    return read_area(place, field)


def media_name(sample: fo.Sample) -> str:
    """The name of a video or image: as its dataset calls it, else of its folder of exact images, else of its file.

    Names of datasets may have slashes.
    """
    return _name(*locate(sample).values(*_NAMING))


def media_names(samples: fo.Dataset | fo.DatasetView) -> list[str]:
    """`media_name` of every sample of a dataset or a view of its samples, in one look-up."""
    known = [field for field in _NAMING if samples.has_field(field)]
    found = dict(zip(known, samples.values(known), strict=True))
    columns = [found.get(field) or [None] * len(found["filepath"]) for field in _NAMING]
    return [_name(*values) for values in zip(*columns, strict=True)]


def _name(named: str | None, image: str | None, frames_dir: str | None, filepath: str) -> str:
    return named or image or (Path(frames_dir).name if frames_dir else Path(filepath).stem)


def video_length(sample: fo.Sample) -> int:
    """The number of frames of the whole video."""
    return num_frames(locate(sample))


def declare_scores(
    samples: fo.Dataset | fo.DatasetView,
    field: str,
    *,
    per_frame: Iterable[str] = (),
    per_expression: Iterable[str] = (),
    per_video: Iterable[str] = (),
    expressions_field: str = EXPRESSIONS,
) -> list[str]:
    """Declares numbers of detections, expressions and samples, and returns their paths.

    Args:
        samples: a dataset, or any view of one; the whole dataset is declared
        field: the label field of the masklets, without `frames.`
        per_frame: attributes of its detections
        per_expression: attributes of the expressions
        per_video: sample fields
        expressions_field: the field with the expressions

    Raises:
        FieldError: if one of the names holds something else
    """
    dataset = root_dataset(samples)
    paths = [f"{masklet_path(dataset, field)}.detections.{name}" for name in per_frame]
    if names := [*per_expression]:
        path = label_path(dataset, expressions_field)
        paths += [f"{path}.{name}" for name in names]
    paths += per_video
    declare_floats(dataset, paths)
    return paths


def write_frame_scores(
    sample: fo.Sample, field: str, scores: Mapping[str, Mapping[tuple[str, int], float | None]]
) -> None:
    """Sets numbers of the detections of a video, the same for all detections of an (expression, frame).

    Args:
        sample: a sample of a dataset, a view or a clips view
        field: the label field, without `frames.`
        scores: values by (expression id, frame number) by name of the attribute; other detections keep theirs;
            an image is frame 1
    """
    place = locate(sample)
    path = f"{masklet_path(place.dataset, field)}.detections"
    numbers = place.view.values("frames.frame_number")[0] if place.is_video else [1]
    ids_of_frames = place.view.values(f"{path}.expression_id")
    for name, values in scores.items():
        former = place.view.values(f"{path}.{name}")
        nested = [
            None if ids is None else [values.get((id_, number), old) for id_, old in zip(ids, olds, strict=True)]
            for number, ids, olds in zip(
                numbers,
                ids_of_frames[0] if place.is_video else ids_of_frames,
                former[0] if place.is_video else former,
                strict=True,
            )
        ]
        place.view.set_values(
            f"{path}.{name}", [nested] if place.is_video else nested, expand_schema=False, validate=False
        )


def read_frame_scores(sample: fo.Sample, field: str, name: str) -> dict[tuple[str, int], float]:
    """What `write_frame_scores` wrote of one name: by (expression id, frame number), where there is a value.

    Raises:
        FieldError: if the detections have no such attribute
    """
    place = locate(sample)
    path = f"{masklet_path(place.dataset, field)}.detections"
    if place.dataset.get_field(f"{path}.{name}") is None:
        raise FieldError(f"dataset {place.dataset.name!r} has no {name!r} on the masks in {field!r}")
    numbers = place.view.values("frames.frame_number")[0] if place.is_video else [1]
    columns = [place.view.values(f"{path}.{each}") for each in ("expression_id", name)]
    ids_of_frames, values_of_frames = (column[0] if place.is_video else column for column in columns)
    return {
        (id_, number): value
        for number, ids, values in zip(numbers, ids_of_frames, values_of_frames, strict=True)
        for id_, value in zip(ids or (), values or (), strict=True)
        if value is not None
    }


def write_expression_scores(
    sample: fo.Sample, scores: Mapping[str, Mapping[str, float]], expressions_field: str = EXPRESSIONS
) -> None:
    """Sets numbers of expressions, by expression id by name of the attribute."""
    place = locate(sample)
    set_attributes(place, expressions_field, labels_by_id(place, expressions_field), scores)


def check_masklet_field(samples: fo.Dataset | fo.DatasetView, field: str) -> None:
    """Raises a FieldError, which names what there is, unless the field of masks holds Detections."""
    dataset = root_dataset(samples)
    path = masklet_path(dataset, field)
    stored = dataset.get_field(path)
    if getattr(stored, "document_type", None) is fo.Detections:
        return
    known = masklet_fields(dataset)
    raise FieldError(
        f"dataset {dataset.name!r} has {'no field' if stored is None else 'no Detections in'} {path!r} "
        f"with masklets, but in: {', '.join(known) or '(no field)'}"
    )


def check_expressions_field(samples: fo.Dataset | fo.DatasetView, field: str) -> None:
    """Raises a FieldError unless a sample field holds labels that are expressions, not plain text or nothing."""
    dataset = root_dataset(samples)
    prompt_type(dataset, field)
    if not holds_labels(dataset, field):
        raise FieldError(
            f"dataset {dataset.name!r}: {field!r} holds plain text, which has no ids: name the labels that were "
            f"made of it, such as {EXPRESSIONS!r}"
        )


def ids_of_images(samples: fo.Dataset | fo.DatasetView) -> dict[str, Sequence[str]]:
    """The ids of the images that a view shows, in the form of `samples_of_videos`."""
    if samples._dataset._is_generated:
        raise FieldError(
            f"expressions of whole images are evaluated, but {samples.name or 'this view'!r} holds patches: pass the "
            "image dataset, or a view of its samples"
        )
    return {sample_id: [sample_id] for sample_id in samples.values("id")}


def samples_of_videos(samples: fo.Dataset | fo.DatasetView) -> dict[str, Sequence[str]]:
    """The ids of the samples, or clips, that a view shows of each video, by the sample id of the video."""
    if samples.media_type != "video":
        raise FieldError(
            f"masklets of videos are evaluated, but {samples.name or 'this view'!r} holds "
            f"{samples.media_type or 'no'} samples: pass the video dataset, a view of its samples, or clips"
        )
    shown = samples.values("id")
    videos = samples.values("sample_id") if samples._is_clips else shown
    found: dict[str, list[str]] = {}
    for video, sample_id in zip(videos, shown, strict=True):
        found.setdefault(video, []).append(sample_id)
    return dict(found)


def name_of(sample: fo.Sample) -> str:
    """How messages name a sample."""
    return str(locate(sample))
