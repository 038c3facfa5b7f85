"""The operators of the plugin: each is a form, one call of `fiftyone_refvos`, and a report of what it did.

FiftyOne imports this package as `fiftyone.plugins.orgs.…`, and runs the plugin entry at every listing of
operators: modules here import each other relatively, `fiftyone_refvos` by its own name, and nothing heavy.
"""

from typing import Any

from .import_referring_dataset import ImportReferringDataset
from .segment_expressions import SegmentExpressions

OPERATORS = (SegmentExpressions, ImportReferringDataset)


def register(plugin: Any) -> None:
    """Registers all operators with FiftyOne."""
    for operator in OPERATORS:
        plugin.register(operator)
