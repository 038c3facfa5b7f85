"""The operators of the plugin: each is a form, one call of `fiftyone_refvos`, and a report of what it did.

FiftyOne imports this package as `fiftyone.plugins.orgs.…`, and runs the plugin entry at every listing of
operators: modules here import each other relatively, `fiftyone_refvos` by its own name, and nothing heavy.
"""

from typing import Any

from .ask_model import AskModel
from .compare_models import CompareModels
from .describe_objects import DescribeObjects
from .evaluate_masklets import EvaluateMasklets
from .export_masklets import ExportMasklets
from .find_failures import FindFailures
from .import_predictions import ImportPredictions
from .import_referring_dataset import ImportReferringDataset
from .load_adapter import LoadAdapter
from .make_pseudo_labels import MakePseudoLabels
from .segment_expressions import SegmentExpressions
from .select_key_frames import SelectKeyFrames
from .show_view import ShowView
from .train_model import TrainModel
from .train_selector import TrainSelector
from .vote import Vote

OPERATORS = (
    SegmentExpressions,
    EvaluateMasklets,
    FindFailures,
    CompareModels,
    Vote,
    MakePseudoLabels,
    AskModel,
    DescribeObjects,
    TrainModel,
    LoadAdapter,
    SelectKeyFrames,
    TrainSelector,
    ShowView,
    ImportReferringDataset,
    ImportPredictions,
    ExportMasklets,
)


def register(plugin: Any) -> None:
    """Registers all operators with FiftyOne."""
    for operator in OPERATORS:
        plugin.register(operator)
