"""What a dataset says of one video or one image, without FiftyOne: the one form between files and samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fiftyone_refvos.masklet import RLE

Size = tuple[int, int]  # (H, W)
Masks = tuple[RLE | None, ...]  # (T,), None where there is no pixel
UNNAMED = "object"  # what an object is called that no expression names and that has no category


@dataclass(frozen=True)
class FolderMedia:
    """The frames of a video as images in a folder.

    Attributes:
        folder: where they are
        names: the T file names in temporal order, with suffix
        frame_rate: frames per second, of the images
    """

    folder: Path
    names: tuple[str, ...]
    frame_rate: float


@dataclass(frozen=True)
class FileMedia:
    """A video file, or one image.

    Attributes:
        path: of the file
    """

    path: Path


@dataclass(frozen=True)
class ObjectRecord:
    """One annotated object of a video or image.

    Attributes:
        id: of the object within the video, as the dataset writes it
        masks: `(T,)` one RLE per frame, None where the object has no pixel
        anno_id: the number of its masks in the annotation files, where they have one
        category: what kind of thing it is, where the dataset says so
        annotated: indices from 0 of the frames in which this object was annotated; None for those of the video
        score: how sure a model is of it, in [0, 1]; None where no model made the masks
    """

    id: str
    masks: Masks
    anno_id: str | None = None
    category: str | None = None
    annotated: frozenset[int] | None = None
    score: float | None = None


@dataclass(frozen=True)
class ExpressionRecord:
    """One expression, and what it means.

    Attributes:
        id: unique in the video
        text: what is said
        object_ids: of the objects that it means; () for no target; None where the dataset does not tell
        kind: of the expression, in the dataset's words
        attributes: what else the dataset says of it, such as `type_id` and `annotator`
        covered: indices from 0 of the frames for which its masks are known; None for the annotated ones of the video
        key_frame: index from 0 of the frame from which its masks were propagated, where a model has chosen one
    """

    id: str
    text: str
    object_ids: tuple[str, ...] | None = None
    kind: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    covered: frozenset[int] | None = None
    key_frame: int | None = None


@dataclass(frozen=True)
class Annotations:
    """The masks of one video or image.

    Attributes:
        size: (H, W) of all masks
        objects: also those that no expression names
        annotated: indices from 0 of the annotated frames; None for all
        void: `(T,)` pixels that count for nothing, where the dataset has such
        foreground: `(T,)` the union of all objects, where the dataset stores it
    """

    size: Size
    objects: tuple[ObjectRecord, ...] = ()
    annotated: frozenset[int] | None = None
    void: Masks | None = None
    foreground: Masks | None = None


@dataclass(frozen=True)
class MediaRecord:
    """One video or image of a dataset; its masks are read when they are asked for.

    Attributes:
        name: of the video or image, unique in its split; may contain slashes
        split: of the dataset
        media: where its pictures are
        expressions: in the order of the dataset
        read_annotations: reads the masks; None where the split has no ground truth. Raises DatasetError
        attributes: what else the dataset says of the video, for fields of the sample
        problem: why it cannot be imported, where its files are missing or wrong
    """

    name: str
    split: str
    media: FolderMedia | FileMedia
    expressions: tuple[ExpressionRecord, ...]
    read_annotations: Callable[[], Annotations] | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
