"""Which expressions of a sample have their masklets: what makes a run resumable.

The attributes of an expression are written after its masks, and `<field>_text` as the last one: where it
stands, the masks are all there, and were made for that text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import fiftyone as fo
from fiftyone.core.clips import ClipsView

from fiftyone_refvos.fields.expressions import labels_by_id, set_attributes, text_of
from fiftyone_refvos.fields.media import num_frames
from fiftyone_refvos.fields.runs import from_runs, to_runs
from fiftyone_refvos.fields.samples import FieldError, Place, RawLabel, locate, read_label, root_dataset
from fiftyone_refvos.fields.schema import EXPRESSIONS, RESULT_ATTRIBUTES, SAID_OF_MASKS, has_results, label_path
from fiftyone_refvos.masklet import Masklet


def finished_expressions(sample: fo.Sample, field: str, *, expressions_field: str = EXPRESSIONS) -> set[str]:
    """The ids of the expressions whose masklets in `field` are complete, and made for the text as it is now.

    For a clip, complete means in all frames of the clip.
    """
    place = locate(sample)
    present = present_frames(place, field)
    if not present:  # the field was deleted or cleared by other means than ours
        return set()
    return {
        expression_id
        for expression_id, label in labels_by_id(place, expressions_field).items()
        if label.get(f"{field}_text") == text_of(label)
        and covered_frames(field, label).issuperset(_wanted_frames(place, label))
        # A container that promises more frames than it holds counts as covered to its end.
        and present.issuperset(number for number in covered_frames(field, label) if number <= max(present))
    }


def present_frames(place: Place, field: str) -> set[int]:
    """The numbers of the frames that hold a list of masks, be it empty; an image is one frame with number 1."""
    if not place.is_video:
        return {1} if read_label(place, field) is not None else set()
    if place.dataset.get_field(f"frames.{field}") is None:
        return set()
    numbers, indices = place.view.values(["frames.frame_number", f"frames.{field}.detections.index"])
    return {number for number, found in zip(numbers[0], indices[0], strict=True) if found is not None}


def stale_expressions(sample: fo.Sample, field: str, *, expressions_field: str = EXPRESSIONS) -> set[str]:
    """The ids of the expressions whose masklets in `field` were made for another text than they have now."""
    return {
        expression_id
        for expression_id, label in labels_by_id(locate(sample), expressions_field).items()
        if label.get(f"{field}_text") not in (None, text_of(label))
    }


def covered_frames(field: str, label: RawLabel) -> set[int]:
    """The frame numbers that the masklet of an expression covers."""
    return from_runs(label.get(f"{field}_frames") or [])


def clear_field(samples: fo.Dataset | fo.DatasetView, field: str, *, expressions_field: str = EXPRESSIONS) -> None:
    """Removes all masklets of a field from samples, and what their expressions say of them; the schema stays.

    Args:
        samples: a dataset or a view; of each of its samples all is removed, also what a view filters out
        field: the label field of the masklets; nothing happens if there is none
        expressions_field: the field with the expressions

    Raises:
        FieldError: for a clips view, whose frames are parts of videos
    """
    if isinstance(samples, ClipsView):
        raise FieldError(
            f"clips cannot be cleared of {field!r}, the masklets belong to whole videos: clear the videos, "
            "or just write again, which replaces the masklets in the frames of the clip"
        )
    dataset = root_dataset(samples)
    # First: without masks nothing may look finished.
    mark_all_unfinished(samples, field, expressions_field=expressions_field)
    view = dataset.select(samples.values("id"))
    if dataset.get_field(f"frames.{field}") is not None:
        view.clear_frame_field(field)
    elif dataset.get_field(field) is not None:
        view.clear_sample_field(field)


def mark_all_unfinished(
    samples: fo.Dataset | fo.DatasetView, field: str, *, expressions_field: str = EXPRESSIONS
) -> None:
    """Removes what the expressions of samples say of their masklets in a field; the masks themselves stay."""
    dataset = root_dataset(samples)
    if not has_results(dataset, field, expressions_field):
        return
    view = dataset.select(samples.values("id"))
    path = label_path(dataset, expressions_field)
    said = [name for name in SAID_OF_MASKS if dataset.get_field(f"{path}.{field}_{name}") is not None]
    for name in (*RESULT_ATTRIBUTES, *said):
        view = view.set_field(f"{path}.{field}_{name}", None, _allow_missing=True)
    view.save(expressions_field)


def clear_leftovers(sample: fo.Sample, field: str, *, expressions_field: str = EXPRESSIONS) -> None:
    """Removes the masks of a whole video that no expression accounts for: they are what is to be overwritten."""
    place = locate(sample)
    labels = labels_by_id(place, expressions_field).values()
    if place.last is None and not any(label.get(f"{field}_text") for label in labels):
        clear_field(place.view, field, expressions_field=expressions_field)


def mark_unfinished(
    place: Place,
    field: str,
    expressions_field: str,
    labels: Mapping[str, RawLabel],
    expression_ids: Iterable[str],
) -> None:
    """Takes the mark off expressions whose masks are about to change."""
    ids = list(expression_ids)
    for name in ("text", *SAID_OF_MASKS):
        marked = {id_: None for id_ in ids if labels[id_].get(f"{field}_{name}") is not None}
        if marked:
            set_attributes(place, expressions_field, labels, {f"{field}_{name}": marked})


def mark_finished(
    place: Place,
    field: str,
    expressions_field: str,
    labels: Mapping[str, RawLabel],
    masklets: Iterable[Masklet],
    *,
    complete: bool,
) -> None:
    """Writes what is known of expressions whose masks are all written; `labels` are from before that."""
    results = {
        masklet.expression.id: {
            # Of an image the model says it; of a video, it says it of each frame.
            "no_target": masklet.no_target if place.is_video else bool(not masklet.found.any()),
            "score": masklet.score,
            "key_frame": None if masklet.key_frame is None else place.first + masklet.key_frame,
            "frames": to_runs(_covered(place, field, labels[masklet.expression.id], masklet, complete=complete)),
            "text": masklet.expression.text,
        }
        for masklet in masklets
    }
    # In the order of RESULT_ATTRIBUTES, which ends with the text.
    attributes = {
        f"{field}_{name}": {id_: result[name] for id_, result in results.items()} for name in RESULT_ATTRIBUTES
    }
    set_attributes(place, expressions_field, labels, attributes)


def _covered(place: Place, field: str, label: RawLabel, masklet: Masklet, *, complete: bool) -> set[int]:
    covered = {place.first + frame for frame in masklet.frames}
    if complete and covered:
        # Containers promise more frames than they hold now and then; a run must not wait for those for ever.
        covered |= {number for number in _wanted_frames(place, label) if number > max(covered)}
    if label.get(f"{field}_text") == masklet.expression.text:
        covered |= covered_frames(field, label)
    return covered


def _wanted_frames(place: Place, label: RawLabel) -> range:
    if place.last is not None:
        return range(place.first, place.last + 1)
    first, last = label.get("support") or (1, num_frames(place))
    return range(first, last + 1)
