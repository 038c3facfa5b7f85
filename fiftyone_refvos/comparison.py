"""Two evaluations compared expression by expression: what became better, what worse, and a view of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `import fiftyone_refvos` should not
    import fiftyone as fo

SHOWN_IN_REPORT = 5


@dataclass(frozen=True)
class ExpressionDelta:
    """The scores of one expression in two evaluations.

    Attributes:
        sample_id, expression_id, text: which expression
        label_id: of its label
        a, b: the scores, in [0, 1]
    """

    sample_id: str
    expression_id: str
    text: str
    label_id: str
    a: float
    b: float

    @property
    def delta(self) -> float:
        """What b gains over a; below 0 it loses."""
        return self.b - self.a


@dataclass(frozen=True)
class Comparison:
    """How evaluation b differs from evaluation a.

    Attributes:
        eval_key_a, eval_key_b: the evaluations
        measure: what is compared: J, F, JF, or iou of images
        deltas: every expression that both have scored, the largest loss of b first
        num_unpaired: how many expressions only one of them has scored
        tolerance: differences up to it are ties
        samples: what was compared
        expressions_field: the field with the expressions
    """

    eval_key_a: str
    eval_key_b: str
    measure: str
    deltas: tuple[ExpressionDelta, ...]
    num_unpaired: int
    tolerance: float
    samples: fo.Dataset | fo.DatasetView = field(repr=False)
    expressions_field: str

    @property
    def wins(self) -> tuple[ExpressionDelta, ...]:
        """Where b is better, the largest gain first."""
        return tuple(each for each in reversed(self.deltas) if each.delta > self.tolerance)

    @property
    def losses(self) -> tuple[ExpressionDelta, ...]:
        """Where b is worse, the largest loss first."""
        return tuple(each for each in self.deltas if each.delta < -self.tolerance)

    @property
    def num_ties(self) -> int:
        """Where the two do not differ."""
        return len(self.deltas) - len(self.wins) - len(self.losses)

    @property
    def mean_delta(self) -> float:
        """Mean over the expressions that both have scored; 0 without any."""
        return fmean(each.delta for each in self.deltas) if self.deltas else 0.0

    def regressions(self, limit: int | None = None) -> fo.DatasetView:
        """A view of the expressions where b is worse, the videos with the largest losses first.

        Args:
            limit: show so many expressions at most
        """
        return self._view(self.losses[:limit])

    def improvements(self, limit: int | None = None) -> fo.DatasetView:
        """A view of the expressions where b is better, the videos with the largest gains first."""
        return self._view(self.wins[:limit])

    def __str__(self) -> str:
        a, b = self.eval_key_a, self.eval_key_b
        lines = [
            f"{b} against {a} by {self.measure}: {len(self.wins)} wins, {len(self.losses)} losses, {self.num_ties} "
            f"ties, mean {self.mean_delta:+.4f}; {self.num_unpaired} expressions were scored by one only"
        ]
        lines += [
            f"  {each.delta:+.4f}  {each.a:.4f} -> {each.b:.4f}  sample {each.sample_id}, expression "
            f"{each.expression_id}: {each.text}"
            for each in self.losses[:SHOWN_IN_REPORT]
        ]
        return "\n".join(lines)

    def _view(self, chosen: Sequence[ExpressionDelta]) -> fo.DatasetView:
        if not chosen:
            return self.samples.select([])
        from fiftyone_refvos.fields.expressions import show_expressions

        ids = list(dict.fromkeys(each.sample_id for each in chosen))
        labels = [each.label_id for each in chosen]
        return show_expressions(self.samples.select(ids, ordered=True), self.expressions_field, labels)


def compare(
    samples: fo.Dataset | fo.DatasetView,
    eval_key_a: str,
    eval_key_b: str,
    *,
    measure: Literal["J", "F", "JF", "iou"] | None = None,
    tolerance: float = 1e-9,
    expressions_field: str = "expressions",
) -> Comparison:
    """Compares the scores that two evaluations gave to the same expressions.

        print(rv.compare(dataset, "old_eval", "new_eval"))
        session.view = rv.compare(dataset, "old_eval", "new_eval").regressions(20)

    Args:
        samples: a dataset of videos or images, or a view; only the expressions that it shows are compared
        eval_key_a: the evaluation to compare with, e.g. the old model's
        eval_key_b: the one that wins or loses
        measure: which of the scores `<eval_key>_<measure>` of the expressions to compare; by default JF, and iou of
            images
        tolerance: differences up to it are ties; by default rounding errors
        expressions_field: the field with the expressions

    Raises:
        FieldError: for clips, or if one of the evaluations has not scored expressions
    """
    from fiftyone_refvos.fields.schema import label_path

    compared = measure or ("iou" if samples._root_dataset.media_type == "image" else "JF")
    path = label_path(samples._root_dataset, expressions_field)
    names = [f"{key}_{compared}" for key in (eval_key_a, eval_key_b)]
    _check(samples, path, compared, names)
    paths = [f"{path}.{name}" for name in ("expression_id", "label", "id", *names)]
    deltas, num_unpaired = [], 0
    for sample_id, *columns in zip(*samples.values(["id", *paths]), strict=True):
        for id_, text, label_id, a, b in zip(*map(_listed, columns), strict=True):
            if a is not None and b is not None:
                deltas.append(ExpressionDelta(sample_id, id_, text, label_id, a, b))
            num_unpaired += (a is None) != (b is None)
    return Comparison(
        eval_key_a,
        eval_key_b,
        compared,
        tuple(sorted(deltas, key=lambda each: each.delta)),
        num_unpaired,
        tolerance,
        samples,
        expressions_field,
    )


def _listed(values: Any) -> list[Any]:
    """What one sample has in a list of labels; a field may also hold a single one, or nothing."""
    if isinstance(values, list):
        return values
    return [] if values is None else [values]


def _check(samples: fo.Dataset | fo.DatasetView, path: str, measure: str, names: Sequence[str]) -> None:
    from fiftyone_refvos.fields import FieldError

    if samples._dataset._is_generated:
        raise FieldError("expressions are compared in samples, not in clips, frames or patches: pass the dataset")
    schema = samples._root_dataset.get_field_schema(flat=True)
    known = {
        name.removeprefix(f"{path}.").removesuffix(f"_{measure}")
        for name in schema
        if name.startswith(f"{path}.") and name.endswith(f"_{measure}")
    }
    for name in names:
        if f"{path}.{name}" not in schema:
            raise FieldError(
                f"dataset {samples._root_dataset.name!r}: no evaluation wrote {path}.{name}, there are: "
                f"{', '.join(sorted(known)) or '(none)'}; rv.evaluate makes one"
            )
