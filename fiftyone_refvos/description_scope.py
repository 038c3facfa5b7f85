"""What a call of `describe_objects` is about: which objects it asks about, given what earlier calls have written."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

import fiftyone as fo

from fiftyone_refvos.describing.stages import Stage
from fiftyone_refvos.fields.descriptions import ObjectRecord, generated_expressions, read_records

if TYPE_CHECKING:
    from fiftyone_refvos.describe import Objects


@dataclass(frozen=True)
class Wanted:
    """What is to be described, and how; see `describe_objects`. The stages come in their order."""

    field: str
    expressions_field: str
    stages: tuple[Stage, ...]
    objects: Objects
    num_frames: int
    attempts: int


@dataclass(frozen=True)
class Known:
    """What earlier calls have written of the objects of a video.

    Attributes:
        records: by object id
        generated: ids of expressions by object id and stage
        shown: the ids of the objects of which the view shows a mask; None where it shows all
    """

    records: dict[str, ObjectRecord]
    generated: dict[str, dict[str, str]]
    shown: Set[str] | None

    @classmethod
    def of(cls, samples: fo.Dataset | fo.DatasetView, sample: fo.Sample, wanted: Wanted) -> Known:
        """Reads it of a sample of the dataset, as far as a view of it shows objects."""
        shown = None
        if not isinstance(samples, fo.Dataset):
            path = f"frames.{wanted.field}.detections.object_id"
            shown = {*samples.select(sample.id).values(path, unwind=True)}
        return cls(
            records=read_records(sample, wanted.field),
            generated=generated_expressions(sample, wanted.field, expressions_field=wanted.expressions_field),
            shown=shown,
        )

    def own_ids(self, object_id: str) -> set[str]:
        """The ids of the expressions that earlier calls have written of an object, also of those deleted since."""
        record = self.records.get(object_id)
        return {*self.generated.get(object_id, {}).values(), *(record.expressions.values() if record else ())}

    def why_left_out(self, object_id: str, named_by: Set[str], wanted: Wanted) -> str | None:
        """Why a call does not ask about an object with a mask, and the way out; None if it does.

        Args:
            object_id: of the object
            named_by: ids of the expressions that its masks say name it
            wanted: what is to be described
        """
        if self.shown is not None and object_id not in self.shown:
            return "the view shows no mask of it: pass one that does"
        if wanted.objects == "unnamed" and not named_by <= self.own_ids(object_id):
            return "somebody else's expression names it: pass objects='all'"
        return None


def split_records(
    samples: fo.Dataset | fo.DatasetView, wanted: Wanted
) -> tuple[dict[str, set[str]], list[tuple[str, str]]]:
    """The objects with a record that a call asks about, and those that it leaves out.

    Returns:
        object ids by sample id, also of objects whose masks are gone; and for each of the others which it is, and why
    """
    dataset, field = samples._root_dataset, wanted.field
    paths = [f"frames.{field}.detections.{name}" for name in ("object_id", "expression_id")]
    asked: dict[str, set[str]] = {}
    left: list[tuple[str, str]] = []
    for sample_id in samples.values("id"):
        sample = dataset[sample_id]
        known = Known.of(samples, sample, wanted)
        named_by: dict[str, set[str]] = {}
        for object_id, expression_id in zip(*dataset.select(sample_id).values(paths, unwind=True), strict=True):
            named_by.setdefault(object_id, set()).update(() if expression_id is None else (expression_id,))
        for object_id in known.records:
            why = known.why_left_out(object_id, named_by.get(object_id, set()), wanted)
            if why is None or object_id not in named_by:
                asked.setdefault(sample_id, set()).add(object_id)
            else:
                left.append((f"object {object_id!r} of sample {sample_id} ({sample.filepath})", why))
    return asked, left
