"""The record of a segmentation run, kept with the dataset: which model made a label field, and how it went."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import fiftyone as fo

from fiftyone_refvos.fields.schema import masklet_path
from fiftyone_refvos.segment import FieldExistsError

if TYPE_CHECKING:
    from fiftyone_refvos.segment import SegmentReport

_METHOD = "refvos_segment"
_SELECTION = "refvos_select_key_frames"
_ANSWERS = "refvos_ask"


def run_key(label_field: str) -> str:
    """The key under which `dataset.get_run_info` finds the run that made a label field."""
    return f"segment_{label_field}"


def made_by(dataset: fo.Dataset, label_field: str) -> dict[str, Any] | None:
    """The identity of the model that made a label field, None if no run of ours did."""
    key = run_key(label_field)
    if not dataset.has_run(key):
        return None
    return dict(dataset.get_run_info(key).config.model)


def check_field(dataset: fo.Dataset, label_field: str, identity: Mapping[str, Any]) -> None:
    """Makes sure that a run would not mix its masklets with others.

    Raises:
        FieldExistsError: if the field exists and was not made by the same model with the same settings
    """
    path = masklet_path(dataset, label_field)
    if dataset.get_field(path) is None:
        return
    former = made_by(dataset, label_field)
    way_out = "pass overwrite=True to replace it, or choose another label field"
    if former is None:
        raise FieldExistsError(f"{path!r} exists and was not made by a segmentation run: {way_out}")
    different = sorted(name for name in {*former, *identity} if former.get(name) != identity.get(name))
    if different:
        changes = ", ".join(f"{name} was {former.get(name)!r} and is {identity.get(name)!r}" for name in different)
        raise FieldExistsError(f"{path!r} was made by another run ({changes}): {way_out}")


def check_overwrite(samples: fo.Dataset | fo.DatasetView, label_field: str, identity: Mapping[str, Any]) -> None:
    """Makes sure that overwriting some samples does not leave those of another model beside them.

    Raises:
        FieldExistsError: if another model made the field, and it holds labels of samples outside of `samples`
    """
    dataset = samples._root_dataset  # no public name leads there from a clips view
    path, former = masklet_path(dataset, label_field), made_by(dataset, label_field)
    if dataset.get_field(path) is None or former == dict(identity):
        return
    ids = samples.values("sample_id" if samples._is_clips else "id")
    others = dataset.exclude(ids).count(f"{path}.detections")
    if others:
        raise FieldExistsError(
            f"{path!r} holds {others} masks of other samples that another model or other "
            "settings made, and one field is for one: overwrite the whole dataset, or choose another field"
        )


def register(dataset: fo.Dataset, label_field: str, identity: Mapping[str, Any]) -> None:
    """Records that a run begins; a run that goes on keeps its record."""
    key = run_key(label_field)
    if dataset.has_run(key):
        if made_by(dataset, label_field) == dict(identity):
            return
        dataset.delete_run(key)
    config = dataset.init_run(method=_METHOD, label_field=label_field, model=dict(identity))
    dataset.register_run(key, config)


def selection_key(field: str) -> str:
    """The key under which `dataset.get_run_info` finds the run that chose key frames."""
    return f"key_frames_{field}"


def answers_key(field: str) -> str:
    """The key under which `dataset.get_run_info` finds the run that wrote answers into a field."""
    return f"answers_{field}"


def regions_key(field: str, attribute: str) -> str:
    """The key under which `dataset.get_run_info` finds the run that wrote an attribute of the regions of a field."""
    return f"regions_{field}_{attribute}"


def recorded(dataset: fo.Dataset, key: str) -> dict[str, Any] | None:
    """What `record` stored under a key, None if nothing."""
    return dict(dataset.get_run_info(key).config.model) if dataset.has_run(key) else None


def record(dataset: fo.Dataset, key: str, identity: Mapping[str, Any], *, method: str = _SELECTION) -> None:
    """Records under a key what made something, instead of what did before: key frames, unless `method` says else."""
    if dataset.has_run(key):
        dataset.delete_run(key)
    dataset.register_run(key, dataset.init_run(method=method, model=dict(identity)))


def record_answers(dataset: fo.Dataset, key: str, identity: Mapping[str, Any]) -> None:
    """Records what writes the answers of a field, instead of what did before; a run that goes on keeps its record."""
    if recorded(dataset, key) != dict(identity):
        record(dataset, key, identity, method=_ANSWERS)


def save_report(dataset: fo.Dataset, label_field: str, report: SegmentReport) -> None:
    """Stores the outcome of the latest call, failures included."""
    save_outcome(dataset, run_key(label_field), asdict(report))


def save_outcome(dataset: fo.Dataset, key: str, outcome: Mapping[str, Any]) -> None:
    """Stores the outcome of the latest call under any key, as plain values."""
    results = dataset.init_run_results(key, **outcome)
    dataset.save_run_results(key, results, overwrite=True)
