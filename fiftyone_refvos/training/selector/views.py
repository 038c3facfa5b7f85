"""Any view of a video dataset whose expressions have pseudo-labels as a `LabelSource`.

The view is read once when the source is made; what stays in memory are texts and labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import fiftyone as fo

from fiftyone_refvos.fields import EXPRESSIONS, FieldError, frame_source, read_expressions, read_frame_list
from fiftyone_refvos.fields.samples import root_dataset
from fiftyone_refvos.fields.scores import check_expressions_field, media_name, name_of
from fiftyone_refvos.training.selector.sources import LabelledExpression
from fiftyone_refvos.video import Frame, FrameSource


@dataclass
class LabelReport:
    """What there is to train on in a view, and what was left out.

    Attributes:
        num_videos, num_expressions: that are used
        unlabelled: expressions without a pseudo-label in any frame
    """

    num_videos: int = 0
    num_expressions: int = 0
    unlabelled: int = 0

    def __str__(self) -> str:
        used = f"{self.num_expressions} expressions of {self.num_videos} videos"
        return f"{used}; left out: {self.unlabelled} expressions without labels" if self.unlabelled else used


@dataclass(frozen=True)
class LabelledSample:
    """A video of a view, as `LabelledVideo` has it."""

    sample_id: str
    name: str
    expressions: Sequence[LabelledExpression]
    source: FrameSource

    @property
    def size(self) -> tuple[int, int]:
        return self.source.size

    def __len__(self) -> int:
        return len(self.source)

    def read(self, indices: Iterable[int]) -> Iterator[Frame]:
        return self.source.read(indices)


class LabelViewSource:
    """A view of a video dataset to train the selector on.

    Args:
        view: a video dataset, or a view of its samples
        field: of the masklets that have pseudo-labels, without `frames.`, or the name that they were imported under
        expressions_field: the sample field with the expressions
        name: what messages call it; by default the name of the dataset

    Raises:
        FieldError: for anything but videos, missing fields, labels of another number of frames than the video has,
            and a view in which nothing has labels
    """

    def __init__(
        self,
        view: fo.Dataset | fo.DatasetView,
        field: str,
        *,
        expressions_field: str = EXPRESSIONS,
        name: str | None = None,
    ) -> None:
        if view.media_type != "video" or view._dataset._is_generated:
            raise FieldError("the selector learns from whole videos: pass a video dataset, or a view of its samples")
        check_expressions_field(view, expressions_field)
        dataset = root_dataset(view)
        self.name = name or dataset.name
        self.report = LabelReport()
        self._dataset_name = dataset.name
        self._videos: list[tuple[str, str, tuple[LabelledExpression, ...]]] = []
        ids = view.values("id")
        for sample_id in ids:
            sample = view[sample_id]
            labelled = self._read(sample, field, expressions_field)
            if labelled:
                self._videos.append((sample_id, media_name(sample), labelled))
        self.report.num_videos = len(self._videos)
        self.report.num_expressions = sum(len(labelled) for *_, labelled in self._videos)
        if not self._videos:
            raise FieldError(
                f"dataset {dataset.name!r}: no expression of {len(ids)} videos has pseudo-labels in "
                f"'{field}_ious': call make_pseudo_labels or import_pseudo_labels before"
            )

    def __len__(self) -> int:
        return len(self._videos)

    def video(self, index: int) -> LabelledSample:
        """The video number `index`."""
        sample_id, name, labelled = self._videos[index]
        source = frame_source(fo.load_dataset(self._dataset_name)[sample_id])
        return LabelledSample(sample_id, name, labelled, source)

    def _read(self, sample: fo.Sample, field: str, expressions_field: str) -> tuple[LabelledExpression, ...]:
        labels = read_frame_list(sample, field, "ious", expressions_field=expressions_field)
        labelled = []
        for expression in read_expressions(sample, expressions_field):
            values = labels.get(expression.id, ())
            if all(value is None for value in values):
                self.report.unlabelled += 1
                continue
            count = len(frame_source(sample))
            if len(values) < count:
                raise FieldError(
                    f"{name_of(sample)}: expression {expression.id!r} has {len(values)} pseudo-labels in "
                    f"'{field}_ious', but the video has {count} frames: make the labels again"
                )
            labelled.append(LabelledExpression(expression.id, expression.text, values[:count]))
        return tuple(labelled)
