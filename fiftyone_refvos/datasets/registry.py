"""Every dataset that can be imported, by name; light to import."""

from __future__ import annotations

from pathlib import Path

from fiftyone_refvos.datasets.layout import Layout
from fiftyone_refvos.datasets.layouts.a2d_sentences import A2DSentences
from fiftyone_refvos.datasets.layouts.jhmdb_sentences import JHMDBSentences
from fiftyone_refvos.datasets.layouts.mevis import MeViS
from fiftyone_refvos.datasets.layouts.refer import GRefCOCO, RefCOCO, RefCOCOg, RefCOCOPlus

# Where the folder of one dataset could also be read as another, the more particular one comes first.
_LAYOUTS: tuple[type[Layout], ...] = (
    MeViS,
    A2DSentences,
    JHMDBSentences,
    RefCOCO,
    RefCOCOPlus,
    RefCOCOg,
    GRefCOCO,
)

LAYOUTS: dict[str, type[Layout]] = {layout.name: layout for layout in _LAYOUTS}


def recognise(root: Path) -> list[type[Layout]]:
    """The layouts that a folder has; several for a folder with several datasets, [] for none."""
    return [layout for layout in _LAYOUTS if root.is_dir() and layout(root).splits()]
