"""FiftyOne dataset types: `fo.Dataset.from_dir(folder, dataset_type=rv.types.MeViS)`."""

from __future__ import annotations

from typing import ClassVar

import fiftyone.types as fot

from fiftyone_refvos.datasets.importer import ReferringDatasetImporter, importer_for
from fiftyone_refvos.datasets.layout import Layout
from fiftyone_refvos.datasets.layouts.mevis import MeViS as MeViSLayout


class ReferringDataset(fot.Dataset):
    """A published dataset that is imported from its official layout."""

    layout_cls: ClassVar[type[Layout]]

    def get_dataset_importer_cls(self) -> type[ReferringDatasetImporter]:
        """The importer of the layout."""
        return importer_for(self.layout_cls)


class MeViS(ReferringDataset):
    """MeViS, v1 and v2."""

    layout_cls = MeViSLayout
