"""FiftyOne dataset types: `fo.Dataset.from_dir(folder, dataset_type=rv.types.MeViS)` and `dataset.export(…)`."""

from __future__ import annotations

from typing import ClassVar

import fiftyone.types as fot

from fiftyone_refvos.datasets.importer import ReferringDatasetImporter, importer_for
from fiftyone_refvos.datasets.layout import Layout
from fiftyone_refvos.datasets.layouts.mevis import MeViS as MeViSLayout
from fiftyone_refvos.exports.exporter import MaskletExporter, exporter_for
from fiftyone_refvos.exports.format import Format
from fiftyone_refvos.exports.formats.mevis import MeViS as MeViSFormat


class ReferringDataset(fot.Dataset):
    """A published dataset that is imported from its official layout."""

    layout_cls: ClassVar[type[Layout]]

    def get_dataset_importer_cls(self) -> type[ReferringDatasetImporter]:
        """The importer of the layout."""
        return importer_for(self.layout_cls)


class MaskletFormat(fot.Dataset):
    """A format that masklets are exported to: `dataset.export("out", dataset_type=…, masklets_field="glus")`."""

    format_cls: ClassVar[type[Format]]

    def get_dataset_exporter_cls(self) -> type[MaskletExporter]:
        """The exporter of the format."""
        return exporter_for(self.format_cls)


class MeViS(ReferringDataset, MaskletFormat):
    """MeViS, v1 and v2."""

    layout_cls = MeViSLayout
    format_cls = MeViSFormat
