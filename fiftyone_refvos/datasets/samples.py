"""From records to FiftyOne samples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import fiftyone as fo

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
from fiftyone_refvos.fields.crops import Crop, crop
from fiftyone_refvos.fields.runs import to_runs
from fiftyone_refvos.video import open_video

GROUND_TRUTH = "ground_truth"


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

    def build(self, record: MediaRecord, filepath: Path) -> fo.Sample:
        """The sample of a record, in no dataset yet.

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
        sample["expressions"] = self._expressions(record, annotations, num_frames)
        if annotations is not None:
            self._add_labels(sample, record, annotations, num_frames)
        return sample

    def _add_media(self, sample: fo.Sample, record: MediaRecord, filepath: Path) -> Size:
        if isinstance(record.media, FileMedia):
            kind = fo.VideoMetadata if self.is_video else fo.ImageMetadata
            sample.metadata = kind.build_for(str(filepath))
            return open_video(filepath).size if self.is_video else image_size(filepath)
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

    def _add_labels(self, sample: fo.Sample, record: MediaRecord, annotations: Annotations, num_frames: int) -> None:
        tracks = list(_tracks(record, annotations))
        canvas = _padded(annotations.size) if isinstance(record.media, FolderMedia) else annotations.size
        for t in _annotated(annotations, num_frames):
            crops: dict[str, Crop] = {}
            for thing in annotations.objects:
                rle = thing.masks[t]
                if rle is not None and (cropped := crop(rle)) is not None:
                    crops[thing.id] = cropped
            labels = {
                GROUND_TRUTH: [
                    track.detection(crops[track.object.id], canvas) for track in tracks if track.object.id in crops
                ]
            }
            for name, masks in (("void", annotations.void), ("foreground", annotations.foreground)):
                if masks is not None:
                    labels[name] = _area(name, masks[t], canvas)
            holder: Any = sample
            if self.is_video:
                holder = sample.frames[t + 1] = fo.Frame()
            for name, detections in labels.items():
                holder[name] = fo.Detections(detections=detections)


@dataclass(frozen=True)
class _Track:
    """One object in the role of one expression; the same in all frames."""

    expression: ExpressionRecord | None
    object: ObjectRecord
    index: int
    instance: fo.Instance

    def detection(self, cropped: Crop, canvas: Size) -> fo.Detection:
        label = self.expression.text if self.expression else self.object.category or UNNAMED
        return fo.Detection(
            label=label,
            bounding_box=cropped.relative_box(canvas),
            mask=cropped.mask,
            index=self.index,
            instance=self.instance,
            expression_id=self.expression.id if self.expression else None,
            object_id=self.object.id,
            anno_id=self.object.anno_id,
            category=self.object.category,
        )


def _tracks(record: MediaRecord, annotations: Annotations) -> Iterator[_Track]:
    """Every (expression, object), then the objects that no expression names."""
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
        yield _Track(each, objects[object_id], index, fo.Instance())


def _annotated(annotations: Annotations, num_frames: int) -> list[int]:
    """Indices of the annotated frames."""
    count = max((len(thing.masks) for thing in annotations.objects), default=num_frames)
    if count > num_frames:
        raise DatasetError(f"there are masks for {count} frames, but the video has {num_frames}")
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


def _area(name: str, rle: Any, canvas: Size) -> list[fo.Detection]:
    cropped = None if rle is None else crop(rle)
    if cropped is None:
        return []
    return [fo.Detection(label=name, bounding_box=cropped.relative_box(canvas), mask=cropped.mask)]


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
