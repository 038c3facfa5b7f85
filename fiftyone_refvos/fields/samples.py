"""Where the labels of a sample really lie, and how they are read and written in bulk.

A sample may come from a dataset, a view or a clips view; its frames and expressions belong to one video of
one dataset. What is read and written here is the raw document of a label list, as `label.to_dict()` gives it:
turning 300 masks of a video into FiftyOne's objects and back costs ten times as much as the database does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import fiftyone as fo
import fiftyone.core.media as fom
from bson import ObjectId
from fiftyone.core.clips import ClipView

RawLabel = dict[str, Any]


class FieldError(ValueError):
    """A field does not hold what it should; the message names the sample, the field and the way out."""


@dataclass(frozen=True)
class Place:
    """The video, or image, that a sample shows.

    Attributes:
        dataset: the dataset with the sample and its frames, never a view
        sample_id: of the whole video
        filepath: of the video, for messages
        is_video: False for an image
        first, last: the frame numbers of a clip, from 1 and inclusive; last is None where the sample is a
            whole video. Frame index k from 0 of a model is frame number `first + k`
    """

    dataset: fo.Dataset = field(repr=False)  # FiftyOne's is two dozen lines
    sample_id: str
    filepath: str
    is_video: bool
    first: int = 1
    last: int | None = None

    def __str__(self) -> str:
        return f"sample {self.sample_id} ({self.filepath})"

    @property
    def view(self) -> fo.DatasetView:
        """The view of this one sample."""
        return self.dataset.select(self.sample_id)

    def values(self, *fields: str) -> list[Any]:
        """The stored values of sample fields, None for a field that the dataset does not have."""
        known = [field for field in fields if self.dataset.get_field(field) is not None]
        found = dict(zip(known, self.view.values(known), strict=True)) if known else {}
        return [found[field][0] if field in found else None for field in fields]

    def contains(self, number: int) -> bool:
        """Whether a frame number lies in the clip, or in the video."""
        return number >= self.first and (self.last is None or number <= self.last)


def locate(sample: fo.Sample) -> Place:
    """Finds the video behind a sample of a dataset, a view or a clips view.

    Raises:
        FieldError: for a sample outside of any dataset, or of a view that has no frames of its own kind
    """
    dataset = sample.dataset
    if dataset is None:
        raise FieldError(f"the sample of {sample.filepath} is in no dataset: call dataset.add_sample(sample) first")
    if sample.media_type not in (fom.VIDEO, fom.IMAGE):
        raise FieldError(f"sample {sample.id} ({sample.filepath}) is a {sample.media_type}, not a video or an image")
    sample_id = sample.id
    if isinstance(sample, ClipView):
        # No public name leads from a clip back to the dataset that owns its frames.
        dataset, sample_id = sample._view._root_dataset, sample.sample_id
    elif dataset._is_generated:
        raise FieldError(f"sample {sample.id} belongs to a view of patches or frames: pass samples of the dataset")
    first, last = 1, None
    # Also true for the samples of a cloned clips view, which are whole samples with the frames of the clip
    # only.
    if isinstance(sample.dataset.get_field("support"), fo.FrameSupportField) and sample["support"] is not None:
        first, last = sample["support"]
    return Place(dataset, sample_id, sample.filepath, sample.media_type == fom.VIDEO, first, last)


def root_dataset(samples: fo.Dataset | fo.DatasetView) -> fo.Dataset:
    """The dataset that owns the samples and frames of a view, also of a clips view."""
    return samples._root_dataset  # no public name leads there from a clips view


def read_label(place: Place, field: str) -> RawLabel | None:
    """The raw label, or label list, in a field of the sample."""
    return place.view.values(field, _raw=True)[0]


def write_label(place: Place, field: str, label: RawLabel) -> None:
    """Sets the raw label, or label list, in a field of the sample; an in-memory sample follows."""
    place.dataset.set_values(field, {place.sample_id: label}, key_field="id", **_AS_IT_IS)


def replace_label(place: Place, field: str, stored: RawLabel | None, label: RawLabel) -> bool:
    """Sets the raw label of a field if it still is `stored`; False if another process was faster."""
    found = place.dataset._sample_collection.update_one(
        {"_id": ObjectId(place.sample_id), field: stored},
        {"$set": {field: label, "last_modified_at": datetime.now(UTC)}},
    )
    if found.matched_count:
        fo.Sample._reload_docs(place.dataset._sample_collection_name, [place.sample_id])
    return bool(found.matched_count)


def read_frames(place: Place, field: str) -> dict[int, RawLabel | None]:
    """The raw Detections of every stored frame by frame number, of the whole video also for a clip.

    An image is one frame with number 1.
    """
    if not place.is_video:
        return {1: _with_detections(read_label(place, field))}
    numbers, labels = place.view.values(["frames.frame_number", f"frames.{field}"], _raw=True)
    return {number: _with_detections(label) for number, label in zip(numbers[0], labels[0], strict=True)}


def _with_detections(label: RawLabel | None) -> RawLabel | None:
    """Saving a label whose last detection was removed deletes the list from the database."""
    return label if label is None else {**label, "detections": label.get("detections") or []}


def write_frames(place: Place, field: str, labels: Mapping[int, RawLabel]) -> None:
    """Sets the raw label lists of many frames with one bulk write; frames that are not there yet are added.

    In-memory frames of the sample are saved first, as `sample.save()` would do, and follow afterwards.
    """
    if not place.is_video:
        write_label(place, field, labels[1])
        return
    frames = place.dataset[place.sample_id].frames
    frames.save()
    ids = _frame_ids(place)
    if missing := labels.keys() - ids.keys():
        # set_values would add them itself, but without `created_at` and the id of their dataset.
        for number in sorted(missing):
            frames[number] = fo.Frame()
        frames.save()
        ids = _frame_ids(place)
    values = {ids[number]: label for number, label in labels.items()}
    place.dataset.set_values(f"frames.{field}", values, key_field="frames.id", **_AS_IT_IS)
    # set_values means to do this, but hands over an iterator of ids that it has used up (fiftyone 1.22.1).
    frames.reload()


def _frame_ids(place: Place) -> dict[int, str]:
    numbers, ids = place.view.values(["frames.frame_number", "frames.id"])
    return dict(zip(numbers[0], ids[0], strict=True))


# Raw documents pass through `set_values` untouched if it neither validates them nor looks for new attributes.
_AS_IT_IS: dict[str, Any] = {"expand_schema": False, "validate": False}
