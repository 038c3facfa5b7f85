"""Every dataset that can be imported, by name; light to import."""

from __future__ import annotations

from pathlib import Path

from fiftyone_refvos.datasets.files import DatasetError
from fiftyone_refvos.datasets.layout import Layout
from fiftyone_refvos.datasets.layouts.a2d_sentences import A2DSentences
from fiftyone_refvos.datasets.layouts.jhmdb_sentences import JHMDBSentences
from fiftyone_refvos.datasets.layouts.lvvis import LvVis
from fiftyone_refvos.datasets.layouts.mevis import MeViS
from fiftyone_refvos.datasets.layouts.reason_vos import ReasonVOS
from fiftyone_refvos.datasets.layouts.ref_davis17 import RefDAVIS17
from fiftyone_refvos.datasets.layouts.ref_sav import RefSAV
from fiftyone_refvos.datasets.layouts.refer import GRefCOCO, RefCOCO, RefCOCOg, RefCOCOPlus
from fiftyone_refvos.datasets.layouts.refer_youtube_vos import ReferYouTubeVOS
from fiftyone_refvos.datasets.layouts.revos import ReVOS

_LAYOUTS: tuple[type[Layout], ...] = (
    MeViS,
    ReferYouTubeVOS,
    RefDAVIS17,
    ReVOS,
    ReasonVOS,
    LvVis,
    RefSAV,
    A2DSentences,
    JHMDBSentences,
    RefCOCO,
    RefCOCOPlus,
    RefCOCOg,
    GRefCOCO,
)

LAYOUTS: dict[str, type[Layout]] = {layout.name: layout for layout in _LAYOUTS}


def recognise(root: Path) -> list[type[Layout]]:
    """The layouts that a folder has; several for a folder with several datasets, [] for none.

    One of which only a damaged file speaks counts where there is no other.
    """
    fits = {layout: _fits(layout, root) for layout in _LAYOUTS if root.is_dir()}
    found = [layout for layout, fit in fits.items() if fit] or [layout for layout, fit in fits.items() if fit is None]
    seeming = {name for layout in found for name in layout.also_fits}
    return [layout for layout in found if layout.name not in seeming]


def _fits(layout: type[Layout], root: Path) -> bool | None:
    """Whether a folder has a layout; None where a damaged file, of which its import tells, leaves that open."""
    try:
        return bool(layout(root).splits())
    except DatasetError:
        return None
