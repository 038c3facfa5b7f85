"""Every dataset that can be imported, by name; light to import."""

from __future__ import annotations

from pathlib import Path

from fiftyone_refvos.datasets.layout import Layout
from fiftyone_refvos.datasets.layouts.mevis import MeViS

# Where the folder of one dataset could also be read as another, the more particular one comes first.
_LAYOUTS: tuple[type[Layout], ...] = (MeViS,)

LAYOUTS: dict[str, type[Layout]] = {layout.name: layout for layout in _LAYOUTS}


def recognise(root: Path) -> list[type[Layout]]:
    """The layouts that a folder has; several for a folder with several datasets, [] for none."""
    return [layout for layout in _LAYOUTS if root.is_dir() and layout(root).splits()]
