"""The RefVOS workbench for FiftyOne: referring video object segmentation, run, measured and browsed.

    import fiftyone.zoo as foz, fiftyone_refvos as rv

    dataset = rv.demo.load(num_videos=8)
    model = foz.load_zoo_model("glus-tiny")
    rv.segment(dataset, model, label_field="glus")

Importing this is quick: FiftyOne and the networks are imported by what needs them.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fiftyone_refvos import demo
from fiftyone_refvos.ask import ask, caption, caption_regions
from fiftyone_refvos.ask_runs import AskReport
from fiftyone_refvos.comparison import Comparison, compare
from fiftyone_refvos.describe import DescriptionReport, describe_objects
from fiftyone_refvos.evaluate import evaluate
from fiftyone_refvos.failure_analysis import find_failures, show_failures
from fiftyone_refvos.import_predictions import ImportReport, import_predictions
from fiftyone_refvos.installation import announce_models, install
from fiftyone_refvos.key_frame_files import (
    KeyFrameImport,
    export_frame_scores,
    export_key_frames,
    import_key_frames,
    import_pseudo_labels,
)
from fiftyone_refvos.key_frame_quality import SelectorQuality, key_frame_quality
from fiftyone_refvos.key_frames import SelectionReport, select_key_frames
from fiftyone_refvos.pseudo_labels import PseudoLabels, make_pseudo_labels
from fiftyone_refvos.relocate import relocate
from fiftyone_refvos.segment import FieldExistsError, SegmentReport, segment
from fiftyone_refvos.single_video import SegmentedVideo, segment_video
from fiftyone_refvos.training.config import TrainingConfig
from fiftyone_refvos.training.mllmseg.config import MllmsegTrainingConfig
from fiftyone_refvos.training.mllmseg.train import TrainedMllmseg, train_mllmseg
from fiftyone_refvos.training.selector.config import SelectorTrainingConfig
from fiftyone_refvos.training.selector.train import TrainedSelector, train_selector
from fiftyone_refvos.training.train import TrainedModel, hold_out, train
from fiftyone_refvos.vote import most_disputed, vote

if TYPE_CHECKING:
    from fiftyone_refvos import types as types

__all__ = [
    "AskReport",
    "Comparison",
    "DescriptionReport",
    "FieldExistsError",
    "ImportReport",
    "KeyFrameImport",
    "MllmsegTrainingConfig",
    "PseudoLabels",
    "SegmentReport",
    "SegmentedVideo",
    "SelectionReport",
    "SelectorQuality",
    "SelectorTrainingConfig",
    "TrainedMllmseg",
    "TrainedModel",
    "TrainedSelector",
    "TrainingConfig",
    "ask",
    "caption",
    "caption_regions",
    "compare",
    "demo",
    "describe_objects",
    "evaluate",
    "export_frame_scores",
    "export_key_frames",
    "find_failures",
    "hold_out",
    "import_key_frames",
    "import_predictions",
    "import_pseudo_labels",
    "install",
    "key_frame_quality",
    "make_pseudo_labels",
    "most_disputed",
    "relocate",
    "segment",
    "segment_video",
    "select_key_frames",
    "show_failures",
    "train",
    "train_mllmseg",
    "train_selector",
    "vote",
]


def __getattr__(name: str) -> Any:
    if name == "types":  # they are classes of FiftyOne, which takes ten seconds to import
        return importlib.import_module("fiftyone_refvos.types")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


announce_models()
