"""From records to FiftyOne samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import fiftyone as fo
import fiftyone.core.utils as fou
from bson import ObjectId

from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.masks import image_size
from fiftyone_refvos.datasets.records import (
    UNNAMED,
    Annotations,
    ExpressionRecord,
    FileMedia,
    FolderMedia,
    MediaRecord,
    ObjectRecord,
    Size,
)
from fiftyone_refvos.fields.crops import crop
from fiftyone_refvos.fields.runs import to_runs
from fiftyone_refvos.fields.samples import RawLabel, locate, write_frames, write_label
from fiftyone_refvos.fields.schema import declare_detections
from fiftyone_refvos.masklet import RLE
from fiftyone_refvos.video import open_video

GROUND_TRUTH = "ground_truth"


@dataclass(frozen=True)
class Prepared:
    """One video or image, ready to be added; masks are raw documents, see `fields.samples`.

    Attributes:
        sample: in no dataset yet, without expressions and masks
        expressions: its expressions
        frames: raw label lists by name of the field by frame number; an image is one frame with number 1
    """

    sample: fo.Sample
    expressions: fo.TemporalDetections | fo.Classifications
    frames: Mapping[str, Mapping[int, RawLabel]]

    def add_to(self, dataset: fo.Dataset) -> str:
        """Adds it, the expressions last: a sample that has them is complete.

        Returns:
            the id of the sample
        """
        if isinstance(self.expressions, fo.Classifications):
            for name, labels in self.frames.items():
                self.sample[name] = fo.Detections.from_dict(labels[1])
            self.sample["expressions"] = self.expressions
            dataset.add_sample(self.sample)
            return str(self.sample.id)
        dataset.add_sample(self.sample)
        place = locate(self.sample)
        if self.frames:
            place.view.ensure_frames()
        for name, labels in self.frames.items():
            declare_detections(dataset, f"frames.{name}")
            write_frames(place, name, labels)
        write_label(place, "expressions", self.expressions.to_dict())
        return str(self.sample.id)


@dataclass(frozen=True)
class SampleBuilder:
    """Makes samples of one dataset.

    Attributes:
        is_video: False for images
        partial_truth: whether objects of one video are annotated in different frames, so that every expression
            tells which frames its truth covers
    """

    is_video: bool
    partial_truth: bool = False

    def build(self, record: MediaRecord, filepath: Path) -> Prepared:
        """Reads the masks of a record, and makes of it what is added to a dataset.

        Args:
            record: one video or image
            filepath: what the App shows: the mp4 of a folder of frames, else the file itself

        Raises:
            DatasetError: if the masks cannot be read
        """
        sample = fo.Sample(filepath=str(filepath), tags=[record.split])
        sample["video_name" if self.is_video else "image_name"] = record.name
        for name, value in record.attributes.items():
            sample[name] = value
        annotations = record.read_annotations() if record.read_annotations else None
        size = self._add_media(sample, record, filepath)
        if annotations is not None and annotations.size != size:
            raise DatasetError(
                f"{record.name!r}: the masks are {annotations.size} and the frames {size} (height, width)"
            )
        num_frames = sample.metadata.total_frame_count if self.is_video else 1
        count = max((len(thing.masks) for thing in annotations.objects), default=0) if annotations else 0
        if count > num_frames:
            raise DatasetError(f"{record.name!r}: masks of {count} frames, but {filepath} has {num_frames} frames")
        expressions = self._expressions(record, annotations, num_frames)
        frames = {} if annotations is None else _labels(record, annotations, num_frames)
        return Prepared(sample, expressions, frames)

    def _add_media(self, sample: fo.Sample, record: MediaRecord, filepath: Path) -> Size:
        if isinstance(record.media, FileMedia):
            if not self.is_video:
                found = image_size(filepath)
                sample.metadata = fo.ImageMetadata.build_for(str(filepath))
                return found
            source = open_video(filepath)
            sample.metadata = fo.VideoMetadata.build_for(str(filepath))
            sample.metadata.total_frame_count = len(source)  # for some containers they count one too many
            return source.size
        size = image_size(record.media.folder / record.media.names[0])
        sample.metadata = _metadata(filepath, record.media, size)
        sample["frames_dir"] = str(record.media.folder)
        sample["frame_names"] = list(record.media.names)
        sample["frame_size"] = [size[1], size[0]]
        return size

    def _expressions(
        self, record: MediaRecord, annotations: Annotations | None, num_frames: int
    ) -> fo.TemporalDetections | fo.Classifications:
        labels = []
        for expression in record.expressions:
            attributes = dict(expression.attributes) | {"expression_id": expression.id, "kind": expression.kind}
            if expression.object_ids is not None:
                attributes |= {"object_ids": list(expression.object_ids), "no_target": not expression.object_ids}
            if annotations is not None and self.partial_truth:
                covered = [t + 1 for t in _covered(expression, annotations, num_frames)]
                attributes |= {f"{GROUND_TRUTH}_text": expression.text, f"{GROUND_TRUTH}_frames": to_runs(covered)}
            if self.is_video:
                labels.append(fo.TemporalDetection(label=expression.text, support=[1, num_frames], **attributes))
            else:
                labels.append(fo.Classification(label=expression.text, **attributes))
        if self.is_video:
            return fo.TemporalDetections(detections=labels)
        return fo.Classifications(classifications=labels)


def _labels(record: MediaRecord, annotations: Annotations, num_frames: int) -> dict[str, dict[int, RawLabel]]:
    """The masks of every annotated frame, by field."""
    canvas = _padded(annotations.size) if isinstance(record.media, FolderMedia) else annotations.size
    tracks = list(_tracks(record, annotations))
    annotated = _annotated(annotations, num_frames)
    labels = {GROUND_TRUTH: {t + 1: _detections(_truth(tracks, annotations.objects, t, canvas)) for t in annotated}}
    for name, masks in (("void", annotations.void), ("foreground", annotations.foreground)):
        if masks is not None:
            area = fo.Detection(label=name).to_dict()
            labels[name] = {t + 1: _detections(_placed([area], masks[t], canvas)) for t in annotated}
    return labels


def _truth(
    tracks: Sequence[tuple[str, RawLabel]], objects: Sequence[ObjectRecord], t: int, canvas: Size
) -> list[RawLabel]:
    """The detections of a frame in the order of the tracks; each mask is packed once, however many have it."""
    masks = {thing.id: thing.masks[t] for thing in objects}
    placed: dict[str, list[RawLabel]] = {}
    for object_id in dict.fromkeys(object_id for object_id, _ in tracks):
        of_object = [template for id_, template in tracks if id_ == object_id]
        placed[object_id] = _placed(of_object, masks[object_id], canvas)
    return sorted(chain.from_iterable(placed.values()), key=lambda detection: detection["index"])


def _placed(templates: Sequence[RawLabel], rle: RLE | None, canvas: Size) -> list[RawLabel]:
    """Raw detections with one mask; [] where it is empty."""
    cropped = None if rle is None else crop(rle)
    if cropped is None:
        return []
    mask, box = fou.serialize_numpy_array(cropped.mask), cropped.relative_box(canvas)
    return [{**template, "_id": ObjectId(), "bounding_box": box, "mask": mask} for template in templates]


def _detections(detections: list[RawLabel]) -> RawLabel:
    return {"_cls": "Detections", "detections": detections}


def _tracks(record: MediaRecord, annotations: Annotations) -> Iterator[tuple[str, RawLabel]]:
    """Every (expression, object), then the objects that no expression names.

    Yields the id of the object, and what is the same in all frames of a raw detection.
    """
    objects = {thing.id: thing for thing in annotations.objects}
    pairs: list[tuple[ExpressionRecord | None, str]] = []
    for expression in record.expressions:
        for object_id in expression.object_ids or ():
            if object_id not in objects:
                raise DatasetError(
                    f"{record.name!r}: expression {expression.id!r} names the object {object_id!r}, of which there "
                    f"are no masks, only of {sorted(objects)}"
                )
            pairs.append((expression, object_id))
    named = {object_id for _, object_id in pairs}
    pairs += [(None, object_id) for object_id in objects if object_id not in named]
    for index, (each, object_id) in enumerate(pairs, start=1):
        thing = objects[object_id]
        detection = fo.Detection(
            label=each.text if each else thing.category or UNNAMED,
            index=index,
            instance=fo.Instance(),
            expression_id=each.id if each else None,
            object_id=thing.id,
            anno_id=thing.anno_id,
            category=thing.category,
        )
        yield object_id, detection.to_dict()


def _annotated(annotations: Annotations, num_frames: int) -> list[int]:
    """Indices of the annotated frames."""
    return sorted(range(num_frames) if annotations.annotated is None else annotations.annotated)


def _covered(expression: ExpressionRecord, annotations: Annotations, num_frames: int) -> list[int]:
    """Indices of the frames in which all objects of an expression are annotated; [] if nobody knows what it means."""
    if expression.object_ids is None:
        return []
    covered = set(_annotated(annotations, num_frames))
    for thing in annotations.objects:
        if thing.id in expression.object_ids and thing.annotated is not None:
            covered &= thing.annotated
    return sorted(covered)


def _metadata(filepath: Path, media: FolderMedia, size: Size) -> fo.VideoMetadata:
    """What `VideoMetadata.build_for` finds out by ffprobe, of a file that `write_playback` has made and checked."""
    rate = float(Fraction(media.frame_rate).limit_denominator(1001))
    return fo.VideoMetadata(
        size_bytes=filepath.stat().st_size,
        mime_type="video/mp4",
        frame_width=_padded(size)[1],
        frame_height=_padded(size)[0],
        frame_rate=rate,
        total_frame_count=len(media.names),
        duration=len(media.names) / rate,
        encoding_str="avc1",
    )


def _padded(size: Size) -> Size:
    """The size of the mp4 that `write_playback` makes of frames of a size."""
    height, width = size
    return height + height % 2, width + width % 2
