"""Any view of an image dataset with expressions and masks as an `ImageSource`.

The view is read once when the source is made, one image at a time, so that a mask of the wrong size is found then
and not hours later. What stays in memory are expressions; masks are read when an image is drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import fiftyone as fo
import numpy as np

from fiftyone_refvos.datasets.records import ExpressionRecord
from fiftyone_refvos.exports.reading import read_sample
from fiftyone_refvos.exports.records import Exported
from fiftyone_refvos.fields import EXPRESSIONS, FieldError, frame_source, read_expressions
from fiftyone_refvos.fields.expressions import labels_by_id
from fiftyone_refvos.fields.samples import RawLabel, locate, root_dataset
from fiftyone_refvos.fields.scores import check_expressions_field, check_masklet_field, name_of
from fiftyone_refvos.masklet import BoolArray, decode
from fiftyone_refvos.training.mllmseg.sources import ImageExpression
from fiftyone_refvos.video import Frame, FrameSource


@dataclass
class ImageReport:
    """What there is to train on in a view, and what was left out.

    Attributes:
        num_images, num_expressions: that are used
        num_no_target: of these expressions mean nothing in their image
        unknown: expressions of which nobody has said what they mean, as typed ones and those of images without masks
        empty: images without an expression that means something
    """

    num_images: int = 0
    num_expressions: int = 0
    num_no_target: int = 0
    unknown: int = 0
    empty: int = 0

    def __str__(self) -> str:
        used = (
            f"{self.num_expressions} expressions ({self.num_no_target} without a target) of {self.num_images} images"
        )
        reasons = {"unknown": "expressions without true masks", "empty": "images without an expression with a target"}
        left_out = [f"{getattr(self, name)} {what}" for name, what in reasons.items() if getattr(self, name)]
        return f"{used}; left out: {', '.join(left_out)}" if left_out else used


@dataclass(frozen=True)
class ViewImage:
    """An image of a view, as `TrainingImage` has it."""

    name: str
    expressions: Sequence[ImageExpression]
    source: FrameSource
    exported: Exported

    def read(self) -> Frame:
        return next(iter(self.source.read([0])))

    def masks(self, expressions: Sequence[ImageExpression]) -> BoolArray:
        """As `TrainingImage.masks`.

        Raises:
            FieldError: if an expression is gone
        """
        records = {record.id: record for record in self.exported.expressions}
        masks = np.zeros((len(expressions), *self.source.size), dtype=bool)
        for mask, expression in zip(masks, expressions, strict=True):
            if expression.id not in records:
                raise FieldError(
                    f"image {self.name!r}: expression {expression.id!r} was removed while it was trained on; start "
                    "anew"
                )
            (union,) = self.exported.union_of(records[expression.id])
            if union is not None:
                mask[:] = decode([union], self.source.size)[0]
        return masks


def digest_of_ids(ids: Iterable[str]) -> str:
    """What tells a set of samples from others, in 16 characters."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]


class ImageViewSource:
    """A view of an image dataset to train on.

    What an expression means is what evaluation and export read: the masks that carry its `expression_id`, and those
    of the objects that its `object_ids` name. Of a view only the expressions that it shows are used. An expression
    without masks has to say so: by `no_target`, by an empty list of `object_ids`, or, in the field of a model, by
    what the model said.

    Args:
        view: an image dataset, or a view of its samples
        masks_field: the field with the masks to learn: true ones, or those of a model
        expressions_field: the field with the expressions
        name: what messages call it; by default the name of the dataset
        all_absent: whether images none of whose expressions has a target are learned from, too

    Raises:
        FieldError: for anything but images, missing fields, masks of the wrong size, files that are gone, expressions
            without a mask that are not marked so, marked ones that have one, and a view in which nothing is left
    """

    def __init__(
        self,
        view: fo.Dataset | fo.DatasetView,
        *,
        masks_field: str = "ground_truth",
        expressions_field: str = EXPRESSIONS,
        name: str | None = None,
        all_absent: bool = False,
    ) -> None:
        _check(view, masks_field, expressions_field)
        dataset = root_dataset(view)
        self.name = name or dataset.name
        self.report = ImageReport()
        self._dataset_name = dataset.name
        self._fields = (masks_field, expressions_field)
        ids = view.values("id")
        read = ((sample_id, *self._read(view[sample_id])) for sample_id in ids)
        self._images = [image for image in read if any(all_absent or each.has_target for each in image[2])]
        self.report.empty = len(ids) - len(self._images)
        self.report.num_images = len(self._images)
        used = [expression for *_, expressions in self._images for expression in expressions]
        self.report.num_expressions = len(used)
        self.report.num_no_target = sum(not expression.has_target for expression in used)
        if not self._images:
            raise FieldError(
                f"dataset {dataset.name!r}: there is nothing to train on in {masks_field!r} of {len(ids)} images "
                f"({self.report}): annotate some, or choose another field of masks"
            )

    @property
    def digest(self) -> str:
        """What tells its samples from others."""
        return digest_of_ids(sample_id for sample_id, *_ in self._images)

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> ViewImage:
        """The image number `index`, with its masks as they are now.

        Raises:
            FieldError: if its sample or its file is gone
        """
        sample_id, name, expressions = self._images[index]
        sample = fo.load_dataset(self._dataset_name)[sample_id]
        return ViewImage(name, expressions, frame_source(sample), self._exported(sample))

    def _exported(self, sample: fo.Sample) -> Exported:
        return read_sample(sample, *self._fields, exact=True)

    def _read(self, shown: fo.Sample) -> tuple[str, tuple[ImageExpression, ...]]:
        """The name of an image, and what of its expressions can be used."""
        expressions_field = self._fields[1]
        sample = fo.load_dataset(self._dataset_name)[shown.id]  # whole, so that objects always have the same ids
        exported = self._exported(sample)
        wanted = {expression.id for expression in read_expressions(shown, expressions_field)}
        self.report.unknown += sum(record.id in wanted for record in exported.unknown)
        labels = labels_by_id(locate(sample), expressions_field)
        expressions = tuple(
            ImageExpression(record.id, record.text, self._has_target(sample, exported, record, labels))
            for record in exported.expressions
            if record.id in wanted
        )
        return exported.name, expressions

    def _has_target(
        self, sample: fo.Sample, exported: Exported, record: ExpressionRecord, labels: Mapping[str, RawLabel]
    ) -> bool:
        """Whether an expression means something in its image; its masks and its label have to agree."""
        masks_field, expressions_field = self._fields
        label = labels[record.id]
        (union,) = exported.union_of(record)
        rejected = label.get(f"{masks_field}_no_target") is True
        marked = label.get("no_target") is True or label.get("object_ids") == [] or rejected
        if (union is not None) != marked:
            return not marked
        where = f"{name_of(sample)}: expression {record.id!r} ({record.text!r}) of {expressions_field!r}"
        if marked:
            raise FieldError(
                f"{where} is marked to have no target, but has masks in {masks_field!r}: remove one of the two"
            )
        raise FieldError(
            f"{where} has no mask in {masks_field!r}: draw one, set its no_target to True if there is no such "
            "object, or train on a view without it"
        )


def _check(view: fo.Dataset | fo.DatasetView, masks_field: str, expressions_field: str) -> None:
    """Raises a FieldError for what cannot be trained on, as far as the schema tells."""
    if view.media_type != "image" or view._dataset._is_generated:
        held = "patches or frames" if view.media_type == "image" else f"{view.media_type or 'no'} samples"
        raise FieldError(
            f"MLLMSeg learns from whole images, but {view.name or 'this view'!r} holds {held}: pass an image "
            "dataset, or a view of its samples"
        )
    check_expressions_field(view, expressions_field)
    check_masklet_field(view, masks_field)
