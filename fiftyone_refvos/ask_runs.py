"""A run that asks about samples: that it mixes no answers, what it does one after another, and its report."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fiftyone_refvos.segment import Failure, FieldExistsError, Progress, describe

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `import fiftyone_refvos` should not
    import fiftyone as fo

logger = logging.getLogger(__name__)


@dataclass
class AskReport:
    """What a run did.

    Attributes:
        field: where the answers are
        num_samples: that got answers
        num_answers: that were written; more than samples where each of several regions has its own
        num_skipped: samples whose answers were all there already
        failures: samples that lack new answers, each with its reason
        seconds: duration of the run
    """

    field: str
    num_samples: int = 0
    num_answers: int = 0
    num_skipped: int = 0
    failures: list[Failure] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [
            f"{self.num_answers} answers about {self.num_samples} samples written to '{self.field}' in "
            f"{self.seconds:.0f} s; {self.num_skipped} samples were complete, {len(self.failures)} failed"
        ]
        return "\n".join([*lines, *(f"  failed: {each.filepath}: {each.error}" for each in self.failures)])


@dataclass(frozen=True)
class Written:
    """How many answers a sample got, and why it lacks others."""

    answers: int
    problem: str = ""


def check_former(
    dataset: fo.Dataset,
    path: str,
    key: str,
    identity: Mapping[str, Any],
    others: Callable[[], int],
    *,
    overwrite: bool,
) -> None:
    """Refuses to mix answers of several models, or to several questions, in one field.

    Args:
        others: counts the answers that are not to be overwritten

    Raises:
        FieldError: if somebody else uses the field in which answers are marked as to be replaced
        FieldExistsError: if others made what the field holds
    """
    from fiftyone_refvos import fields, run_records

    dataset.reload()  # another process may have written the field since
    fields.check_marker(dataset, path)
    former = run_records.recorded(dataset, key)
    if former is not None and former.get("path") != identity.get("path"):
        raise FieldExistsError(
            f"the run {key!r} belongs to {former.get('path')!r}, so that {path!r} cannot have its own: "
            "choose another name"
        )
    if not fields.is_in_use(dataset, path):
        return
    if former is None:
        raise FieldExistsError(f"{path!r} exists and holds no answers of ours: choose another name")
    different = sorted(name for name in {*former, *identity} if former.get(name) != identity.get(name))
    if not different:
        return
    changes = ", ".join(f"{name} was {former.get(name)!r} and is {identity.get(name)!r}" for name in different)
    problem = f"{path!r} was written by another run ({changes})"
    if not overwrite:
        raise FieldExistsError(f"{problem}: pass overwrite=True to replace it, or choose another name")
    if count := others():
        raise FieldExistsError(
            f"{problem} and holds {count} answers about others than these, and one field is for one question: "
            "overwrite the whole dataset, or choose another name"
        )


def for_each(
    samples: fo.Dataset | fo.DatasetView,
    path: str,
    key: str,
    work: Callable[[fo.Sample], Written],
    progress: Callable[[Progress], None] | None,
) -> AskReport:
    """Works on one sample after another; `work` says what it has written."""
    from fiftyone_refvos import run_records

    report = AskReport(path)
    start = time.monotonic()
    ids, paths = samples.values(["id", "filepath"])
    try:
        for number, (sample_id, filepath) in enumerate(zip(ids, paths, strict=True), start=1):
            try:
                written = work(samples[sample_id])
            except Exception as error:  # whatever it is, the other samples go on
                logger.debug("%s failed", filepath, exc_info=True)
                report.failures.append(Failure(sample_id, filepath, describe(error)))
            else:
                report.num_samples += bool(written.answers)
                report.num_skipped += not written.answers and not written.problem
                report.num_answers += written.answers
                if written.problem:
                    report.failures.append(Failure(sample_id, filepath, written.problem))
            if progress is not None:
                progress(Progress(number, len(ids), number / len(ids)))
    finally:  # also after an interruption: what was written stays, and is accounted for
        report.seconds = time.monotonic() - start
        run_records.save_outcome(samples._root_dataset, key, asdict(report))
    if report.failures:
        logger.warning("%s", report)
    return report
