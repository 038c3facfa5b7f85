"""The RefVOS workbench for FiftyOne: referring video object segmentation, run, measured and browsed.

    import fiftyone.zoo as foz, fiftyone_refvos as rv

    dataset = rv.demo.load(num_videos=8)
    model = foz.load_zoo_model("glus-tiny")
    rv.segment(dataset, model, label_field="glus")

Importing this is quick: FiftyOne and the networks are imported by what needs them.
"""

from fiftyone_refvos import demo
from fiftyone_refvos.installation import announce_models, install
from fiftyone_refvos.segment import FieldExistsError, SegmentReport, segment
from fiftyone_refvos.single_video import SegmentedVideo, segment_video

__all__ = [
    "FieldExistsError",
    "SegmentReport",
    "SegmentedVideo",
    "demo",
    "install",
    "segment",
    "segment_video",
]

announce_models()
