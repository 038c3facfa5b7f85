"""Finding golden cases under a path, by the files that they hold, and running each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fiftyone_refvos.verify import (
    datasets,
    glus,
    mllmseg,
    mllmseg_tables,
    mllmseg_training,
    pseudo_labels,
    res_metrics,
    sa2va,
    sa2va_tables,
    selector,
    selector_tables,
    selector_training,
    tables,
    training,
    vos_metrics,
)
from fiftyone_refvos.verify.report import CaseReport

logger = logging.getLogger(__name__)

Check = Callable[[Path], CaseReport]

# Each later system adds its kinds here: a test on a folder or a file, and the check that runs it.
_KINDS: tuple[tuple[Callable[[Path], bool], Check], ...] = (
    (glus.is_inference_case, glus.check_inference),
    (training.is_step_case, training.check_step),
    (training.is_losses_case, training.check_losses),
    (selector.is_inference_case, selector.check_inference),
    (mllmseg.is_inference_case, mllmseg.check_inference),
    (mllmseg_training.is_step_case, mllmseg_training.check_step),
    (selector.is_clustering_case, selector.check_clustering),
    (sa2va.is_case, sa2va.check),
    (sa2va_tables.is_language_model_case, sa2va_tables.check_language_model),
    (sa2va_tables.is_key_table, sa2va_tables.check_keys),
    (selector_training.is_case, selector_training.check),
    (pseudo_labels.is_case, pseudo_labels.check),
    (vos_metrics.is_case, vos_metrics.check),
    (res_metrics.is_case, res_metrics.check),
    (datasets.is_case, datasets.check),
    (tables.is_tokenizer_table, tables.check_tokenizer),
    (tables.is_schedule_table, tables.check_schedules),
    (tables.is_glus_key_table, tables.check_glus_keys),
    (mllmseg_tables.is_key_table, mllmseg_tables.check_keys),
    (selector_tables.is_key_table, selector_tables.check_keys),
)


def verify(paths: Iterable[Path]) -> Iterator[CaseReport]:
    """Checks every golden case at or below the given paths.

    Args:
        paths: case folders, parents of such, or single files of a case; a README is passed over

    Raises:
        FileNotFoundError: for a path that does not exist
    """
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        found = list(_find(path))
        if not found:
            logger.warning("%s: nothing was recognised as a golden case", path)
        for case, check in found:
            yield _run(case, check)


def _find(path: Path) -> Iterator[tuple[Path, Check]]:
    if path.is_file() and path.stem.upper().startswith("README"):
        return
    # a single file of a case, such as its outputs.safetensors or inputs/frames/clip/00000.png, means the whole case
    around = [path, *path.parents[:4]] if path.is_file() else [path]
    for place in around:
        check = _recognise(place)
        if check is not None:
            yield place, check
            return
    if path.is_dir():
        for child in sorted(path.iterdir()):
            if child.is_dir() or _recognise(child) is not None:
                yield from _find(child)


def _recognise(path: Path) -> Check | None:
    return next((check for recognises, check in _KINDS if recognises(path)), None)


def _run(case: Path, check: Check) -> CaseReport:
    try:
        return check(case)
    except Exception as error:  # a broken case must not hide the result of the others
        return CaseReport(case, "could not be run", error=f"{type(error).__name__}: {error}")
