"""Media that was moved: the paths in datasets follow."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `import fiftyone_refvos` should not
    import fiftyone as fo

PATH_FIELDS = ("filepath", "frames_dir")


def relocate(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    *,
    datasets: Iterable[fo.Dataset] | None = None,
) -> dict[str, int]:
    """Changes the paths of samples that begin with a folder to begin with another.

    All samples are checked before the first is changed; the files themselves are not touched.

    Args:
        old: the folder that the samples name; it need not exist any more
        new: where its contents are now
        datasets: by default all

    Returns:
        the number of changed samples by name of the dataset, of those that have any

    Raises:
        FileNotFoundError: if `new`, or a file that a sample would name, does not exist; nothing is changed
    """
    import fiftyone as fo

    old, new = Path(os.path.abspath(old)), Path(os.path.abspath(new))
    if not new.is_dir():
        raise FileNotFoundError(f"there is no folder {new}: give the folder that the media was moved to")
    chosen = list(datasets) if datasets is not None else [fo.load_dataset(name) for name in fo.list_datasets()]
    changes = [(dataset, _changes(dataset, old, new)) for dataset in chosen]
    for dataset, fields in changes:
        for values in fields.values():
            for path in values.values():
                if not os.path.exists(path):
                    raise FileNotFoundError(
                        f"dataset {dataset.name!r} would name {path}, which does not exist: move all of {old} there"
                    )
    for dataset, fields in changes:
        for field, values in fields.items():
            dataset.set_values(field, values, key_field="id")
    counts = {dataset.name: len(set().union(*fields.values())) for dataset, fields in changes}
    return {name: count for name, count in counts.items() if count}


def _changes(dataset: fo.Dataset, old: Path, new: Path) -> dict[str, dict[str, str]]:
    """The new paths by sample id, for each field with paths."""
    found: dict[str, dict[str, str]] = {}
    for field in PATH_FIELDS:
        if not dataset.has_field(field):
            continue
        ids, paths = dataset.values(["id", field])
        found[field] = {
            id_: str(new / Path(path).relative_to(old))
            for id_, path in zip(ids, paths, strict=True)
            if path is not None and Path(path).is_relative_to(old)
        }
    return found
