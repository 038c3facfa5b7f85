"""The measures of this field, bit by bit as the official programs compute them, without FiftyOne and torch.

`score_frame` and `jaccard` compare two masks; a `Protocol` of `PROTOCOLS` scores videos and averages over a
dataset; an `ImageProtocol` of `IMAGE_PROTOCOLS` does so for images. Masks are NumPy arrays or COCO RLEs:

    >>> from fiftyone_refvos.metrics import PROTOCOLS, Query, VideoMasks, score_frame
    >>> score_frame(true_mask, predicted_mask).F
    >>> video = VideoMasks(name="dogs", size=(480, 854), frames=["00000", "00001"],
    ...                    objects={"3": [rle, None]}, predictions={"0": masklet.masks},
    ...                    queries=[Query("0", object_ids=("3",))])
    >>> PROTOCOLS["mevis"].evaluate([video]).dataset["J&F"]
"""

from fiftyone_refvos.metrics.bitmask import BitMask, FrameMasks, MaskLike, TrackMasks
from fiftyone_refvos.metrics.boundary import BOUND_TH, boundary_radius
from fiftyone_refvos.metrics.davis import (
    DAVIS17_SEMI_SUPERVISED,
    DAVIS17_UNSUPERVISED,
    REF_DAVIS17_PER_ANNOTATOR,
    merge_labels,
)
from fiftyone_refvos.metrics.expressions import MEVIS, REASONVOS, REF_DAVIS17_PER_EXPRESSION
from fiftyone_refvos.metrics.first_seen import SAV, SAV_ALL_FRAMES, VOS_BENCHMARK, VOS_BENCHMARK_ALL_FRAMES
from fiftyone_refvos.metrics.frame import FrameScore, jaccard, score_frame
from fiftyone_refvos.metrics.images import IMAGE_PROTOCOLS, ImageProtocol, ImageScore, score_image
from fiftyone_refvos.metrics.no_target import no_target_accuracy
from fiftyone_refvos.metrics.protocol import Protocol
from fiftyone_refvos.metrics.revos import REF_SAV, REVOS, REVOS_PNG_PROGRAM, REVOS_RLE_PROGRAM, REVOS_UNROUNDED
from fiftyone_refvos.metrics.statistics import SequenceStatistics, db_statistics
from fiftyone_refvos.metrics.video import Query, Summary, UnitScores, VideoMasks, score_masks

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        MEVIS,
        REVOS,
        REVOS_UNROUNDED,
        REVOS_RLE_PROGRAM,
        REVOS_PNG_PROGRAM,
        REF_SAV,
        REF_DAVIS17_PER_ANNOTATOR,
        REF_DAVIS17_PER_EXPRESSION,
        REASONVOS,
        DAVIS17_SEMI_SUPERVISED,
        DAVIS17_UNSUPERVISED,
        SAV,
        SAV_ALL_FRAMES,
        VOS_BENCHMARK,
        VOS_BENCHMARK_ALL_FRAMES,
    )
}

__all__ = [
    "BOUND_TH",
    "DAVIS17_SEMI_SUPERVISED",
    "DAVIS17_UNSUPERVISED",
    "IMAGE_PROTOCOLS",
    "MEVIS",
    "PROTOCOLS",
    "REASONVOS",
    "REF_DAVIS17_PER_ANNOTATOR",
    "REF_DAVIS17_PER_EXPRESSION",
    "REF_SAV",
    "REVOS",
    "REVOS_PNG_PROGRAM",
    "REVOS_RLE_PROGRAM",
    "REVOS_UNROUNDED",
    "SAV",
    "SAV_ALL_FRAMES",
    "VOS_BENCHMARK",
    "VOS_BENCHMARK_ALL_FRAMES",
    "BitMask",
    "FrameMasks",
    "FrameScore",
    "ImageProtocol",
    "ImageScore",
    "MaskLike",
    "Protocol",
    "Query",
    "SequenceStatistics",
    "Summary",
    "TrackMasks",
    "UnitScores",
    "VideoMasks",
    "boundary_radius",
    "db_statistics",
    "jaccard",
    "merge_labels",
    "no_target_accuracy",
    "score_frame",
    "score_image",
    "score_masks",
]
