"""The form of the operator that imports published datasets: a folder, what is in it, and where it goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import eta.core.utils as etau
import fiftyone as fo
import fiftyone.core.utils as fou
from fiftyone.operators import types

from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.registry import LAYOUTS

from . import forms, paths
from .import_preview import Preview, SplitFacts, num_cached, preview, recognised

_SPLIT = "split_"  # before the names of the boxes of splits


@dataclass(frozen=True)
class Choice:
    """What the form, or a caller from Python, has chosen.

    Attributes:
        params: as they came
        root: the folder of the dataset
        recognised: the layouts that the folder has
        layout: the name of one of them; None if there is a choice to make
        there: the splits that the folder has
        splits: those to import
        name: of the FiftyOne dataset
        add: whether a dataset of that name may be added to
        cache_dir: None for the folder in `root`
    """

    params: Mapping[str, Any]
    root: Path | None
    recognised: tuple[str, ...]
    layout: str | None
    there: tuple[str, ...]
    splits: tuple[str, ...]
    name: str
    add: bool
    max_samples: int | None
    shuffle: bool
    seed: int | None
    cache_dir: Path | None
    skip_failures: bool

    @classmethod
    def of(cls, params: Mapping[str, Any]) -> Choice:
        """Reads the parameters of the operator, and looks which layouts and splits the folder has."""
        root = paths.given(params, "dataset_dir")
        found = {} if root is None or paths.missing(root, folder=True) else recognised(root)
        layout = params.get("layout") or (next(iter(found)) if len(found) == 1 else None)
        there = found.get(layout or "", ())
        return cls(
            params=params,
            root=root,
            recognised=tuple(found),
            layout=layout,
            there=there,
            splits=_chosen(params, there),
            name=params.get("name") or (root.name if root else ""),
            add=bool(params.get("add")),
            max_samples=params.get("max_samples"),
            shuffle=bool(params.get("shuffle")),
            seed=params.get("seed"),
            cache_dir=paths.given(params, "cache_dir"),
            skip_failures=bool(params.get("skip_failures")),
        )


def _chosen(params: Mapping[str, Any], there: tuple[str, ...]) -> tuple[str, ...]:
    """A name or a list of names comes from Python; the form has a box per split."""
    wanted = params.get("split")
    if wanted is not None:
        return (wanted,) if isinstance(wanted, str) else tuple(wanted)
    return tuple(name for name in there if params.get(_SPLIT + name, True))


def build(inputs: types.Object, choice: Choice) -> None:
    """Adds all inputs to a form."""
    problem = paths.missing(choice.root, folder=True) if choice.root else None
    paths.add(
        inputs,
        "dataset_dir",
        choice.params,
        label="Folder of the dataset, on the server",
        error=problem,
        folder=True,
        required=True,
    )
    if choice.root is None or problem or not _add_layout(inputs, choice.root, choice):
        return
    _add_splits(inputs, choice)
    found = _add_preview(inputs, choice.root, choice)
    _add_name(inputs, choice)
    _add_selection(inputs, choice)
    if found and found.encoded:
        _add_cache(inputs, choice.root, choice, found)
    inputs.bool("skip_failures", label="Go on after a video that cannot be read, and list it", default=False)
    forms.add_schedule_notice(inputs)


def _add_layout(inputs: types.Object, root: Path, choice: Choice) -> bool:
    """Adds the choice of a layout; returns whether it is made."""
    if not choice.recognised:
        known = ", ".join(layout.title for layout in LAYOUTS.values())
        forms.error(
            inputs,
            "layout",
            f"No dataset is recognised in {root}: give the folder as its README shows it, of one of {known}",
        )
        return False
    single = len(choice.recognised) == 1
    forms.dropdown(
        inputs,
        "layout",
        {name: LAYOUTS[name].title for name in choice.recognised},
        default=choice.recognised[0] if single else None,
        required=not single,
        label="Dataset" if single else "Dataset (the folder could be several)",
    )
    return choice.layout in choice.recognised


def _add_splits(inputs: types.Object, choice: Choice) -> None:
    if "split" in choice.params:
        kind = types.String() if isinstance(choice.params["split"], str) else types.List(types.String())
        inputs.define_property("split", kind, label="Splits")
        return
    for name in choice.there:
        view = types.CheckboxView(space=3)
        inputs.bool(_SPLIT + name, label=name, default=True, view=view)
    if choice.there and not choice.splits:
        forms.error(inputs, "no_split", "Tick at least one split")


def _add_preview(inputs: types.Object, root: Path, choice: Choice) -> Preview | None:
    """Says what would be imported; returns it, None if it cannot be."""
    if choice.layout is None or (choice.there and not choice.splits):
        return None
    try:
        found = preview(root, choice.layout, choice.splits or choice.there)
    except DatasetError as error:
        forms.error(inputs, "preview", str(error))
        return None
    inputs.md("\n".join(_table(found)), name="preview")
    if found.problems:
        _add_problems(inputs, choice, found)
    return found


def _add_problems(inputs: types.Object, choice: Choice, found: Preview) -> None:
    """Says what is wrong with single videos, which stops the import unless they are to be left out."""
    count = f"{len(found.problems):,} more {found.media}"
    if choice.skip_failures:
        inputs.view("problems", types.Warning(label=f"{count} will be left out: {found.problems[0]}"))
    else:
        forms.error(inputs, "problems", f"{count} cannot be imported: {found.problems[0]}. Or leave them out, below")


def _table(found: Preview) -> list[str]:
    counts_frames = any(split.num_frames for split in found.splits)
    columns = ["split", found.media, *(["frames"] if counts_frames else []), "expressions", "ground truth"]
    rows = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for split in found.splits:
        frames = [f"{split.num_frames:,}" if split.num_frames else "not counted"] if counts_frames else []
        cells = [split.name, f"{split.num_media:,}", *frames, f"{split.num_expressions:,}", _truth(split)]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def _truth(split: SplitFacts) -> str:
    if split.num_with_truth == split.num_media:
        return "yes"
    return f"of {split.num_with_truth:,}" if split.num_with_truth else "no"


def _add_name(inputs: types.Object, choice: Choice) -> None:
    problem = _name_problem(choice.name)
    inputs.str(
        "name",
        label="FiftyOne dataset",
        view=types.TextFieldView(space=6, placeholder=choice.name),
        invalid=problem is not None,
        error_message=problem or "",
    )
    if problem or not fo.dataset_exists(choice.name):
        return
    dataset = fo.load_dataset(choice.name)
    media_type = LAYOUTS[choice.layout].media_type if choice.layout else None
    if dataset.media_type not in (None, media_type):
        held = f"{dataset.media_type} samples"
        forms.error(inputs, "add", f"The dataset '{choice.name}' exists and holds {held}: choose another name")
        return
    inputs.bool(
        "add",
        label=f"Add to the dataset '{choice.name}', which has {len(dataset):,} samples; what is there is passed over",
        default=False,
        invalid=not choice.add,
        error_message=f"The dataset '{choice.name}' exists: tick this, or choose another name",
    )


def _name_problem(name: str) -> str | None:
    try:
        fou.to_slug(name)
    except ValueError as error:
        return str(error)
    return None


def _add_selection(inputs: types.Object, choice: Choice) -> None:
    inputs.int(
        "max_samples", label="At most so many samples", min=1, view=types.TextFieldView(space=4, placeholder="all")
    )
    inputs.bool("shuffle", label="Random ones", default=False, view=types.CheckboxView(space=3))
    if choice.shuffle:
        inputs.int("seed", label="Seed", view=types.TextFieldView(space=3, placeholder="another one every time"))


def _add_cache(inputs: types.Object, root: Path, choice: Choice, found: Preview) -> None:
    problem = paths.unwritable(choice.cache_dir or root)
    cached = 0 if problem else num_cached(root, choice.cache_dir, found.encoded)
    paths.add(
        inputs,
        "cache_dir",
        choice.params,
        label="Folder for the mp4 files that the App plays",
        description=_about_cache(choice, found, cached),
        error=problem,
        folder=True,
        required=problem is not None and choice.cache_dir is None,
    )


def _about_cache(choice: Choice, found: Preview, cached: int) -> str:
    where = "" if choice.cache_dir else "By default .refvos_cache in the folder of the dataset. "
    total = len(found.encoded)
    if cached == total:
        return f"{where}All {total:,} are there from an earlier import."
    count = min(total - cached, choice.max_samples or total)
    size = etau.to_human_bytes_str(found.encoded_bytes * count / total, decimals=1)
    there = f"; {cached:,} are there already" if cached else ""
    return f"{where}{count:,} are encoded, about {size}{there}."
