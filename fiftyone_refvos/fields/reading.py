"""Masklets read back from any FiftyOne field of masks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import fiftyone as fo
import fiftyone.core.utils as fou
import numpy as np

from fiftyone_refvos.fields.crops import paste
from fiftyone_refvos.fields.expressions import labels_by_id
from fiftyone_refvos.fields.media import Size, canvas_of, source_size, stored_size
from fiftyone_refvos.fields.samples import FieldError, Place, RawLabel, locate, read_frames
from fiftyone_refvos.fields.schema import EXPRESSIONS, has_results, masklet_path
from fiftyone_refvos.fields.state import covered_frames
from fiftyone_refvos.masklet import RLE, BoolArray, Expression, Masklet, encode

Track = dict[int, RawLabel]  # the raw detections of one object by frame number


def read_masklets(
    sample: fo.Sample,
    field: str,
    *,
    expressions_field: str = EXPRESSIONS,
    expression_ids: Collection[str] | None = None,
    exact: bool = False,
) -> list[Masklet]:
    """Reads the masklets of a sample: those of a model as they were written, ground truth, or others.

    All of it is read, also what a view filters out. Frames where the field is None are not covered. An
    expression without any detection comes as a masklet without objects if the model has seen it, or, for
    labels that no model of ours wrote, if any frame is annotated.
    What is not stored cannot come back: the scores of empty masks are 0, objects that are empty in all frames
    are missing, `found` says whether a mask has pixels; where a detection has no confidence the score is 1.

    Args:
        sample: a sample of a dataset, a view or a clips view; for a clip, frame 0 is its first
        field: the label field, without `frames.`
        expressions_field: the field with the expressions; those that only the detections name come after them
        expression_ids: only these expressions; all by default
        exact: refuse a mask that does not have the size of its box, which is stretched to it otherwise

    Raises:
        FieldError: if the field does not exist or holds boxes without masks
    """
    place = locate(sample)
    path = masklet_path(place.dataset, field)
    if getattr(place.dataset.get_field(path), "document_type", None) is not fo.Detections:
        raise FieldError(f"dataset {place.dataset.name!r} has no Detections in {path!r} to read masklets from")
    frames = {
        number: label["detections"]
        for number, label in sorted(read_frames(place, field).items())
        if label is not None and place.contains(number)
    }
    tracks = _tracks(place, field, frames)
    labels = labels_by_id(place, expressions_field)
    ours = has_results(place.dataset, field, expressions_field)
    seen = [
        found
        for id_ in dict.fromkeys([*labels, *tracks])
        if expression_ids is None or id_ in expression_ids
        if (found := _seen(field, id_, labels.get(id_, {}), tracks.get(id_, []), list(frames), ours=ours))
    ]
    if not seen:
        return []
    wanted = [track for found in seen for track in found.tracks]
    reader = _Reader(place, wanted or list(chain.from_iterable(tracks.values())))
    if exact:
        reader.check(field, wanted)
    return [reader.masklet(found) for found in seen]


def read_area(place: Place, field: str) -> dict[int, list[RLE]]:
    """The masks of all detections of each frame that is not None, by frame number, exact in size."""
    frames = {
        number: label["detections"]
        for number, label in sorted(read_frames(place, field).items())
        if label is not None and place.contains(number)
    }
    # Each detection as a track of its own: these belong to no expression, and need no identity.
    tracks: list[Track] = [{number: each} for number, detections in frames.items() for each in detections]
    if not tracks:
        return {number: [] for number in frames}
    reader = _Reader(place, tracks)
    reader.check(field, tracks)
    return {number: [reader.rle(each) for each in detections] for number, detections in frames.items()}


@dataclass(frozen=True)
class _Seen:
    """An expression whose masklet is there: the covered frame numbers, objects, key frame number."""

    expression: Expression
    numbers: list[int]
    tracks: list[Track]
    key_frame: int | None


def _tracks(place: Place, field: str, frames: Mapping[int, list[RawLabel]]) -> dict[str, list[Track]]:
    """The objects of every expression, in the order of `index`."""
    found: dict[str, dict[Any, Track]] = defaultdict(dict)
    for number, detections in frames.items():
        for position, detection in enumerate(detections):
            expression_id = detection.get("expression_id")
            if expression_id is None:  # an object of the ground truth that no expression names
                continue
            instance = (detection.get("instance") or {}).get("_id")
            keys = (detection.get("object_id"), detection.get("index"), instance, position)
            track = found[expression_id].setdefault(next(key for key in keys if key is not None), {})
            if number in track:
                raise FieldError(
                    f"{place}: frame {number} of {field!r} has two masks of object "
                    f"{detection.get('object_id')!r} of expression {expression_id!r}; "
                    "give each object its own object_id"
                )
            track[number] = detection
    return {expression_id: sorted(tracks.values(), key=_index) for expression_id, tracks in found.items()}


def _index(track: Track) -> int:
    return next(iter(track.values())).get("index") or 0


def _seen(
    field: str, expression_id: str, label: RawLabel, tracks: list[Track], numbers: list[int], *, ours: bool
) -> _Seen | None:
    """What there is of an expression in the frames `numbers`; None if no model has looked for it there."""
    text = label.get(f"{field}_text")
    if text is not None:
        covered = covered_frames(field, label)
        numbers = [number for number in numbers if number in covered]
    elif ours and not tracks:
        numbers = []
    if not numbers:
        return None
    # First the text that the masks were made for, which an edit does not change.
    texts = [text, label.get("label")]
    texts += [detection.get("label") for track in tracks for detection in track.values()]
    return _Seen(
        Expression(expression_id, next((text for text in texts if text), "")),
        numbers,
        [track for track in tracks if not track.keys().isdisjoint(numbers)],
        label.get(f"{field}_key_frame"),
    )


class _Reader:
    """Decodes the masks of one sample; some of its tracks tell the size."""

    def __init__(self, place: Place, tracks: list[Track]) -> None:
        self._place = place
        self._masks: dict[str, BoolArray] = {}
        self._size, self._canvas = self._sizes(tracks)
        self._empty = encode(np.zeros((1, *self._size), dtype=bool))[0]

    def _sizes(self, tracks: list[Track]) -> tuple[Size, Size]:
        """The sizes of the frames and of the canvas, if possible without opening the video."""
        size = stored_size(self._place) or self._implied_size(tracks) or source_size(self._place)
        return size, canvas_of(self._place, size)

    def _implied_size(self, tracks: list[Track]) -> Size | None:
        """The size that all crops agree on, each being so many pixels for that part of the canvas."""
        sizes: set[tuple[float, float]] = set()
        for track in tracks:
            for detection in track.values():
                (h, w), (_, _, width, height) = self._crop(detection).shape, detection["bounding_box"]
                if not (width > 0 and height > 0):
                    return None
                sizes.add((h / height, w / width))
        rounded = {(round(height), round(width)) for height, width in sizes}
        exact = all(abs(value - round(value)) < 1e-6 * value for size in sizes for value in size)
        return rounded.pop() if exact and len(rounded) == 1 else None

    def masklet(self, seen: _Seen) -> Masklet:
        first = self._place.first
        masks: list[tuple[RLE, ...]] = []
        scores = np.zeros((len(seen.numbers), len(seen.tracks)), dtype=np.float32)
        for t, number in enumerate(seen.numbers):
            for n, track in enumerate(seen.tracks):
                if number in track:
                    confidence = track[number].get("confidence")
                    scores[t, n] = 1.0 if confidence is None else confidence
            masks.append(tuple(self.rle(track.get(number)) for track in seen.tracks))
        return Masklet(
            expression=seen.expression,
            size=self._size,
            frames=tuple(number - first for number in seen.numbers),
            masks=tuple(masks),
            scores=scores,
            found=np.array([any(rle != self._empty for rle in rles) for rles in masks], dtype=bool),
            key_frame=None if seen.key_frame is None else seen.key_frame - first,
        )

    def check(self, field: str, tracks: list[Track]) -> None:
        """Raises a FieldError for the first mask that does not have the size of its box."""
        for number, detection in sorted(
            (pair for track in tracks for pair in track.items()), key=lambda pair: pair[0]
        ):
            check_size(self._place, field, number, detection, self._crop(detection), self._canvas)

    def rle(self, detection: RawLabel | None) -> RLE:
        """The mask of a detection in the frame; an empty one for None."""
        if detection is None:
            return self._empty
        return paste(self._crop(detection), detection["bounding_box"], self._canvas, self._size)

    def _crop(self, detection: RawLabel) -> BoolArray:
        key = str(detection["_id"])
        if key not in self._masks:
            self._masks[key] = mask_of(self._place, detection)
        return self._masks[key]


def check_size(place: Place, field: str, number: int, detection: RawLabel, mask: BoolArray, canvas: Size) -> None:
    """Raises a FieldError if the mask of a detection does not have the size of its box on the canvas (H, W)."""
    (h, w), (_, _, width, height) = mask.shape, detection["bounding_box"]
    box = round(height * canvas[0]), round(width * canvas[1])
    if (h, w) != box:
        raise FieldError(
            f"{place}: frame {number} of {field!r} has a mask of {h}x{w} pixels in a box of {box[0]}x{box[1]} "
            f"(height x width; expression {detection.get('expression_id')!r}): write the mask at the size of the "
            f"{'video' if place.is_video else 'image'}, {canvas[0]}x{canvas[1]}"
        )


def mask_of(place: Place, detection: RawLabel) -> BoolArray:
    """The mask of a raw detection inside its box, from the database or from its file.

    Raises:
        FieldError: for a box without a mask
    """
    if detection.get("mask") is not None:
        return fou.deserialize_numpy_array(detection["mask"])
    if detection.get("mask_path") is not None:
        return fo.Detection(mask_path=detection["mask_path"]).get_mask()
    raise FieldError(
        f"{place}: the detection {detection['_id']} of expression {detection.get('expression_id')!r} is a "
        "box without a mask; masklets need masks"
    )
