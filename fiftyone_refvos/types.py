"""FiftyOne dataset types: `fo.Dataset.from_dir(folder, dataset_type=rv.types.MeViS)`."""

from __future__ import annotations

from typing import ClassVar

import fiftyone.types as fot

from fiftyone_refvos.datasets.importer import ReferringDatasetImporter, importer_for
from fiftyone_refvos.datasets.layout import Layout
from fiftyone_refvos.datasets.layouts import refer
from fiftyone_refvos.datasets.layouts.a2d_sentences import A2DSentences as A2DSentencesLayout
from fiftyone_refvos.datasets.layouts.jhmdb_sentences import JHMDBSentences as JHMDBSentencesLayout
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


class A2DSentences(ReferringDataset):
    """A2D-Sentences; needs `pip install 'fiftyone-refvos[datasets]'`."""

    layout_cls = A2DSentencesLayout


class JHMDBSentences(ReferringDataset):
    """JHMDB-Sentences."""

    layout_cls = JHMDBSentencesLayout


class RefCOCO(ReferringDataset):
    """RefCOCO."""

    layout_cls = refer.RefCOCO


class RefCOCOPlus(ReferringDataset):
    """RefCOCO+."""

    layout_cls = refer.RefCOCOPlus


class RefCOCOg(ReferringDataset):
    """RefCOCOg."""

    layout_cls = refer.RefCOCOg


class GRefCOCO(ReferringDataset):
    """gRefCOCO."""

    layout_cls = refer.GRefCOCO
