"""Finding golden cases under a path, by the files that they hold, and running each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fiftyone_refvos.verify import glus, tables
from fiftyone_refvos.verify.report import CaseReport

Check = Callable[[Path], CaseReport]

# Each later system adds its kinds here: a test on a folder or a file, and the check that runs it.
_KINDS: tuple[tuple[Callable[[Path], bool], Check], ...] = (
    (glus.is_inference_case, glus.check_inference),
    (tables.is_tokenizer_table, tables.check_tokenizer),
    (tables.is_schedule_table, tables.check_schedules),
    (tables.is_glus_key_table, tables.check_glus_keys),
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
        for case, check in _find(path):
            yield _run(case, check)


def _find(path: Path) -> Iterator[tuple[Path, Check]]:
    check = _recognise(path)
    if check is None and path.is_file():
        # a single file of a case, such as its outputs.safetensors, means the whole case
        check = _recognise(path.parent)
        path = path.parent if not path.stem.upper().startswith("README") else path
        check = check if path.is_dir() else None
    if check is not None:
        yield path, check
    elif path.is_dir():
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
