"""Any view of a video dataset with expressions and masklets as a `TrainingSource`.

The view is read once when the source is made, one video at a time, so that a mask of the wrong size is found then
and not hours later. What stays in memory are expressions and frame numbers; masks are read when a video is drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import fiftyone as fo
import numpy as np
from numpy.typing import NDArray

from fiftyone_refvos.datasets.records import ExpressionRecord
from fiftyone_refvos.exports.reading import is_of_model, read_sample
from fiftyone_refvos.exports.records import Exported
from fiftyone_refvos.fields import EXPRESSIONS, FieldError, frame_source, read_expressions
from fiftyone_refvos.fields.samples import root_dataset
from fiftyone_refvos.fields.scores import (
    check_expressions_field,
    check_masklet_field,
    expressions_without_target,
    read_frame_scores,
    shown_frames,
)
from fiftyone_refvos.masklet import decode
from fiftyone_refvos.segment import Progress
from fiftyone_refvos.training.sources import TrainingExpression
from fiftyone_refvos.video import Frame, FrameSource

SHORTEST = 4  # frames of a video: one in each part from which context frames are drawn


@dataclass
class ViewReport:
    """What there is to train on in a view, and what was left out.

    Attributes:
        num_videos, num_expressions: that are used
        short_videos: videos with fewer than 4 frames
        empty_videos: longer ones without an expression that can be used
        no_target: expressions without an object, which are used only where the recipe has such rows
        unknown: expressions of which nobody has said what they mean, as typed ones that were not segmented, and
            those for which a model found nothing, unless the dataset says that there is nothing
        unannotated: expressions without enough annotated frames in a row for a query
        low_iou: expressions without enough frames in a row whose IoU reaches `min_iou`
    """

    num_videos: int = 0
    num_expressions: int = 0
    short_videos: int = 0
    empty_videos: int = 0
    no_target: int = 0
    unknown: int = 0
    unannotated: int = 0
    low_iou: int = 0

    def __str__(self) -> str:
        reasons = {
            "short_videos": "videos with fewer than 4 frames",
            "empty_videos": "videos without an expression to train on",
            "no_target": "expressions without a target",
            "unknown": "expressions without true masks",
            "unannotated": "expressions without enough annotated frames in a row",
            "low_iou": "expressions without enough frames in a row of that IoU",
        }
        left_out = [f"{getattr(self, name)} {what}" for name, what in reasons.items() if getattr(self, name)]
        used = f"{self.num_expressions} expressions of {self.num_videos} videos"
        return f"{used}; left out: {', '.join(left_out)}" if left_out else used

    def __add__(self, other: ViewReport) -> ViewReport:
        return ViewReport(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))


@dataclass(frozen=True)
class _Usable:
    """A video with something to train on."""

    sample_id: str
    name: str
    expressions: tuple[TrainingExpression, ...]


class ViewSource:
    """A view of a video dataset to train on; it can be pickled, and opens its dataset anew in another process.

    What an expression means is what evaluation and export read: the masks that carry its `expression_id`, and those
    of the objects that its `object_ids` name. Of a view only the expressions and frames that it shows are used, and
    of the shown frames only annotated ones become query frames.

    Args:
        view: a video dataset, or a view of its samples
        expressions_field: the sample field with the expressions
        masklets_field: the frame field with the masks to learn, without `frames.`: true ones, or those of a model
        name: what logs call it; by default the name of the dataset
        contrastive: whether the object contrastive loss applies
        min_iou: query frames are only those whose masks carry an `iou` of at least this much, as
            `fiftyone_refvos.make_pseudo_labels` writes it. It gates frames and not whole expressions: a masklet that
            loses its object halfway is still right in its first half
        no_target: whether expressions without a target are used, too, as `SamplingConfig.no_target` says; of a
            model those for which it rightly found nothing, whatever `min_iou`: there is no mask to carry an IoU
        query_frames: consecutive frames of a query, as `SamplingConfig.query_frames` says
        progress: called after every video

    Raises:
        FieldError: for anything but videos, missing fields, masks of the wrong size, files that are gone, and a view
            in which nothing is left to train on
    """

    def __init__(
        self,
        view: fo.Dataset | fo.DatasetView,
        *,
        expressions_field: str = EXPRESSIONS,
        masklets_field: str = "ground_truth",
        name: str | None = None,
        contrastive: bool = False,
        min_iou: float | None = None,
        no_target: bool = False,
        query_frames: int = 4,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        _check(view, masklets_field, expressions_field)
        dataset = root_dataset(view)
        self.name = name or dataset.name
        self.contrastive = contrastive
        self.report = ViewReport()
        self._dataset_name = dataset.name
        self._fields = (masklets_field, expressions_field)
        self._min_iou = min_iou
        self._no_target = no_target
        self._by_model = is_of_model(dataset, masklets_field, expressions_field)
        self._query_frames = query_frames
        self._whole = isinstance(view, fo.Dataset)
        self._frame_sets: dict[frozenset[int], frozenset[int]] = {}  # most expressions have the same
        ids = view.values("id")
        found = []
        for number, sample_id in enumerate(ids, start=1):
            usable = self._read(view[sample_id])
            if usable is not None:
                found.append(usable)
            if progress is not None:
                progress(Progress(number, len(ids), number / len(ids)))
        self._videos = _with_unique_names(found)
        self.report.num_videos = len(self._videos)
        self.report.num_expressions = sum(len(video.expressions) for video in self._videos)
        if not self._videos:
            raise FieldError(
                f"dataset {dataset.name!r}: there is nothing to train on in {masklets_field!r} of {len(ids)} videos "
                f"({self.report}): annotate more frames, or choose another field of masklets"
            )

    def __len__(self) -> int:
        return len(self._videos)

    def video(self, index: int) -> ViewVideo:
        """The video number `index`, with its masks as they are now.

        Raises:
            FieldError: if its sample, its file or an expression is gone
        """
        usable = self._videos[index]
        exported = self._exported(usable.sample_id)
        records = {record.id: record for record in exported.expressions}
        for expression in usable.expressions:
            if expression.id not in records:
                raise FieldError(
                    f"sample {usable.sample_id} ({usable.name}): expression {expression.id!r} was removed while it "
                    "was trained on; start anew"
                )
        source = frame_source(fo.load_dataset(self._dataset_name)[usable.sample_id])
        return ViewVideo(usable.name, usable.expressions, source, exported, records)

    def _read(self, sample: fo.Sample) -> _Usable | None:
        """Finds out what of a video can be used, and counts what cannot."""
        masklets_field, expressions_field = self._fields
        exported = self._exported(sample.id)
        if len(exported.stems) < SHORTEST:
            self.report.short_videos += 1
            return None
        shown = None if self._whole else {number - 1 for number in shown_frames(sample)}
        ious = None if self._min_iou is None else read_frame_scores(sample, masklets_field, "iou")
        wanted = {expression.id for expression in read_expressions(sample, expressions_field)}
        self.report.unknown += sum(record.id in wanted for record in exported.unknown)
        records = [record for record in exported.expressions if record.id in wanted]
        if self._by_model and self._no_target:
            nothing = expressions_without_target(sample, expressions_field)
            missed = {record.id for record in records if record.object_ids == () and record.id not in nothing}
            self.report.unknown += len(missed)
            records = [record for record in records if record.id not in missed]
        found = [self._usable(exported, record, shown, ious) for record in records]
        expressions = [usable for usable in found if usable is not None]
        if not expressions:
            self.report.empty_videos += 1
            return None
        return _Usable(sample.id, exported.name, tuple(expressions))

    def _exported(self, sample_id: str) -> Exported:
        """The masks of a whole video, also what the view hides, so that its objects always have the same ids."""
        sample = fo.load_dataset(self._dataset_name)[sample_id]
        return read_sample(sample, *self._fields, exact=True)

    def _usable(
        self,
        exported: Exported,
        record: ExpressionRecord,
        shown: set[int] | None,
        ious: dict[tuple[str, int], float] | None,
    ) -> TrainingExpression | None:
        frames = exported.covered(record)
        if shown is not None:
            frames &= shown
        if not record.object_ids and not self._no_target:
            self.report.no_target += 1
            return None
        objects = exported.objects_of(record)
        if objects and not any(mask for thing in objects for mask in thing.masks):
            self.report.unknown += 1  # nobody has drawn what it means
            return None
        if not has_run(frames, self._query_frames):
            self.report.unannotated += 1
            return None
        if record.object_ids and ious is not None and self._min_iou is not None:
            frames = frozenset(t for t in frames if ious.get((record.id, t + 1), -1.0) >= self._min_iou)
            if not has_run(frames, self._query_frames):
                self.report.low_iou += 1
                return None
        known = None if len(frames) == len(exported.stems) else self._frame_sets.setdefault(frames, frames)
        return TrainingExpression(record.id, record.text, record.object_ids or (), known)


@dataclass(frozen=True)
class ViewVideo:
    """A video of a view, as `TrainingVideo` has it."""

    name: str
    expressions: Sequence[TrainingExpression]
    source: FrameSource
    exported: Exported
    records: dict[str, ExpressionRecord]

    @property
    def size(self) -> tuple[int, int]:
        return self.source.size

    def __len__(self) -> int:
        return len(self.exported.stems)

    def frame_name(self, index: int) -> str:
        return self.exported.stems[index]

    def read(self, indices: Iterable[int]) -> Iterator[Frame]:
        return self.source.read(indices)

    def targets(self, expressions: Sequence[TrainingExpression], index: int) -> NDArray[np.uint8]:
        """As `TrainingVideo.targets`.

        Raises:
            ValueError: for a frame in which the target of an expression is not known
        """
        targets = np.zeros((len(expressions), *self.size), dtype=np.uint8)
        for target, expression in zip(targets, expressions, strict=True):
            if expression.frames is not None and index not in expression.frames:
                raise ValueError(f"{self.name!r}: frame {index} of expression {expression.id!r} is not annotated")
            objects = self.exported.objects_of(self.records[expression.id])
            rles = [rle for thing in objects if (rle := thing.masks[index]) is not None]
            target[:] = decode(rles, self.size).sum(axis=0, dtype=np.uint8)
        return targets


def has_run(frames: Iterable[int], length: int) -> bool:
    """Whether so many of the frames follow one another."""
    known = set(frames)
    return any(known.issuperset(range(start, start + length)) for start in known)


def _check(view: Any, masklets_field: str, expressions_field: str) -> None:
    """Raises a FieldError for what cannot be trained on, as far as the schema tells."""
    shown = view.name or "this view"
    if view.media_type != "video":
        raise FieldError(
            f"videos can be trained on, but {shown!r} holds {view.media_type or 'no'} samples: pass a video dataset, "
            "or a view of its samples"
        )
    if view._is_generated:
        raise FieldError(
            f"{shown!r} holds clips, but training draws frames of whole videos: pass a view of the videos, and hide "
            "the frames that should not be learnt with match_frames"
        )
    check_expressions_field(view, expressions_field)
    check_masklet_field(view, masklets_field)


def _with_unique_names(videos: Sequence[_Usable]) -> list[_Usable]:
    """Names that several videos have get the id of the sample behind them."""
    times = Counter(video.name for video in videos)
    return [
        video
        if times[video.name] == 1
        else _Usable(video.sample_id, f"{video.name} ({video.sample_id})", video.expressions)
        for video in videos
    ]
