"""The operator that imports published datasets: form, one FiftyOne import, report."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
from fiftyone.operators import types
from fiftyone.operators.message import GeneratedMessage

from fiftyone_refvos.datasets.importer import ReferringDatasetImporter, importer_for
from fiftyone_refvos.datasets.registry import LAYOUTS

from . import import_dataset_form, reports
from .base import LibraryOperator
from .import_dataset_form import Choice
from .progress import Tell, follow


class ImportReferringDataset(LibraryOperator[Choice]):
    """Makes a FiftyOne dataset of a published one, in its official layout. No dataset needs to be open.

    From Python, after `import fiftyone.operators as foo`:

        import_dataset = foo.get_operator("@fiftyone-refvos/refvos/import_referring_dataset")
        import_dataset("/data/mevis", split="valid_u", delegate=True)
    """

    NAME = "import_referring_dataset"
    LABEL = "Import referring dataset"
    DESCRIPTION = "Make a dataset of a published one: MeViS, Refer-YouTube-VOS, ReVOS and others"
    NOTHING_DONE = "The import failed"
    COUNTED = "samples"

    def __call__(
        self,
        dataset_dir: str | os.PathLike[str],
        *,
        layout: str | None = None,
        split: str | Sequence[str] | None = None,
        name: str | None = None,
        add: bool = False,
        max_samples: int | None = None,
        shuffle: bool = False,
        seed: int | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        skip_failures: bool = False,
        delegate: bool = False,
    ) -> Any:
        """Runs or schedules the operator. In notebooks prefer `fo.Dataset.from_dir`.

        Args:
            dataset_dir: the folder of the dataset, as its README shows it
            layout: a name of `fiftyone_refvos.datasets.registry.LAYOUTS`; by default it is recognised
            split: one split or several; by default all that are there
            name: of the FiftyOne dataset; by default that of the folder
            add: add to a dataset that exists; what is there is passed over
            max_samples: import so many at most
            shuffle: whether to shuffle the videos
            seed: of the shuffling
            cache_dir: where the mp4 files go; by default `.refvos_cache` in the folder of the dataset
            skip_failures: go on after a video that cannot be read, and list it in the report
            delegate: whether to schedule the run for `fiftyone delegated launch` instead of running it now

        Returns:
            as `LibraryOperator.launch`
        """
        params = {
            "dataset_dir": os.path.abspath(dataset_dir),
            "layout": layout,
            "split": split if split is None or isinstance(split, str) else list(split),
            "name": name,
            "add": add,
            "max_samples": max_samples,
            "shuffle": shuffle,
            "seed": seed,
            "cache_dir": None if cache_dir is None else os.path.abspath(cache_dir),
            "skip_failures": skip_failures,
        }
        return self.launch(None, params, delegate=delegate)

    def read(self, params: Mapping[str, Any], dataset: fo.Dataset | None) -> Choice:
        return Choice.of(params)

    def target(self, ctx: foo.ExecutionContext) -> None:
        return None

    def build_form(self, inputs: types.Object, samples: object, choice: Choice) -> None:
        import_dataset_form.build(inputs, choice)

    def run_name(self, choice: Choice) -> str:
        return f"{choice.root} → {choice.name}"

    def first_step(self, choice: Choice) -> str:
        return f"Reading {choice.root}"

    def last_step(self, samples: object, result: Mapping[str, Any]) -> str:
        return f"{result['num_imported']}/{result['num_imported']} {self.COUNTED}"

    def work(self, samples: object, choice: Choice, tell: Tell) -> dict[str, Any]:
        importer = _importer(choice)
        is_new = not fo.dataset_exists(choice.name)
        dataset = fo.Dataset(choice.name, persistent=True) if is_new else fo.load_dataset(choice.name)
        try:
            ids = dataset.add_importer(importer, progress=follow(tell))
        finally:  # what was imported before an error stays, and the next import goes on from there
            if is_new and not len(dataset):
                dataset.delete()
        return {
            "dataset": choice.name,
            "num_imported": len(ids),
            "num_samples": 0 if dataset.deleted else len(dataset),
            "num_failed": len(importer.failures),
            "failures": reports.failure_rows((f"{each.split}/{each.name}", each.error) for each in importer.failures),
        }

    def update_app(
        self, ctx: foo.ExecutionContext, choice: Choice, result: dict[str, Any]
    ) -> Iterator[GeneratedMessage]:
        if ctx.dataset_name == choice.name:
            yield ctx.ops.reload_dataset()
        elif result["num_samples"]:
            yield ctx.ops.open_dataset(choice.name)

    def build_report(self, outputs: types.Object, result: Mapping[str, Any]) -> None:
        imported = f"{result['num_imported']} samples imported into the dataset '{result['dataset']}'"
        if result["failures"]:
            view = types.Warning(label=f"{imported}; some could not be read and were passed over")
        elif result["num_imported"]:
            view = types.Success(label=imported)
        else:
            view = types.Notice(label=f"There was nothing to import: all is in the dataset '{result['dataset']}'")
        outputs.view("title", view)
        labels = {"num_samples": "Samples in the dataset", "num_failed": "Samples that failed"}
        reports.add_counts(outputs, labels)
        reports.add_failures(outputs, result)


def _importer(choice: Choice) -> ReferringDatasetImporter:
    if choice.root is None or choice.layout is None:
        raise ValueError("which folder to import, and as which dataset, is not said")
    return importer_for(LAYOUTS[choice.layout])(
        choice.root,
        split=choice.splits or None,
        cache_dir=choice.cache_dir,
        skip_failures=choice.skip_failures,
        shuffle=choice.shuffle,
        seed=choice.seed,
        max_samples=choice.max_samples,
    )
