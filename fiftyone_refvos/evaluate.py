"""Evaluating masklets and masks of images by a published protocol, kept as an evaluation run of FiftyOne.

view -> per video or image its true and predicted masks -> scores, in processes -> the protocol's averages -> one
write of all fields at the end, so that an evaluation that is interrupted leaves the dataset as it was.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from fiftyone_refvos.segment import Progress

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `import fiftyone_refvos` should not
    import fiftyone as fo

    from fiftyone_refvos.evaluation.results import MaskletEvaluationResults
    from fiftyone_refvos.metrics import ImageProtocol, Protocol

logger = logging.getLogger(__name__)


def evaluate(
    samples: fo.Dataset | fo.DatasetView,
    pred_field: str,
    *,
    eval_key: str,
    gt_field: str = "ground_truth",
    protocol: Protocol | ImageProtocol | str | None = None,
    expressions_field: str = "expressions",
    num_workers: int = 1,
    skip_failures: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> MaskletEvaluationResults:
    """Evaluates the masklets of `frames.<pred_field>` (images: `<pred_field>`) against those of `frames.<gt_field>`.

    Of a view only the expressions and frames that it shows are evaluated; clips of one video count as one video.
    A frame whose ground truth is None is not annotated and does not count; an empty list says that the object is
    not there. A video in which nothing was predicted counts as the protocol says, which is mostly as 0. Typed
    expressions without true masks are not evaluated, unless the dataset says that they have no target.

    Writes `<eval_key>_J` and `<eval_key>_F` on the predicted detections (of the union of the objects of their
    expression in that frame), the means `<eval_key>_J`, `_F` and `_JF` on the expressions, and the means over its
    expressions on the sample. These are J and F of the expression by itself under every protocol; of images they are
    `<eval_key>_iou`. The run is in `dataset.list_evaluations()`; `dataset.delete_evaluation(eval_key)` removes its
    fields. An existing run of that key is replaced, but only when the new one is complete.

    Args:
        samples: a dataset of videos or images, a view or a clips view
        pred_field: the frame field with the predicted masklets, without `frames.`; the sample field for images
        eval_key: the name of the run, and the beginning of the names of its fields
        gt_field: the field with the true masklets
        protocol: of `fiftyone_refvos.metrics.PROTOCOLS`, or its name; MeViS' by default: the mean over all frames
            of an expression, then over all expressions. For images of `IMAGE_PROTOCOLS`, gRefCOCO's by default
        expressions_field: the sample field with the expressions
        num_workers: processes that score. More than 1 needs `if __name__ == "__main__":` in scripts, as
            everything does that starts processes
        skip_failures: go on after a video or image that cannot be evaluated, and list it in the results; nothing is
            written for it, and it counts nowhere
        progress: called while the run goes on

    Raises:
        FieldError: for fields of other types, masks of different sizes, annotated frames without prediction, and
            unknown expression ids, with sample, frame and field; without `skip_failures`
        ValueError: for an unknown protocol, one of other media, an invalid key, or nothing to evaluate; for videos
            that the protocol refuses, without `skip_failures`
    """
    from fiftyone_refvos.evaluation.images import ImageOutcome, Images
    from fiftyone_refvos.evaluation.pairs import Fields
    from fiftyone_refvos.evaluation.run import MaskletEvaluation, MaskletEvaluationConfig
    from fiftyone_refvos.evaluation.scoring import (
        find_image_protocol,
        find_protocol,
        score_all,
        score_expressions,
        score_video,
    )
    from fiftyone_refvos.evaluation.video_outcome import VideoOutcome
    from fiftyone_refvos.evaluation.videos import Videos

    fields = Fields(pred_field, gt_field, expressions_field)
    media: Videos | Images
    outcome: VideoOutcome | ImageOutcome
    rules: Any
    read: Callable[[str], list[Any]]
    score: Callable[[Any], Any]
    if samples._root_dataset.media_type == "image":
        rules, media = find_image_protocol(protocol), Images(samples, fields)
        outcome, read, score = ImageOutcome(media), media.masks, score_expressions
    else:
        rules, media = find_protocol(protocol), Videos(samples, fields)
        outcome, read, score = VideoOutcome(media), partial(media.masks, protocol=rules), partial(score_video, rules)
    config = MaskletEvaluationConfig(
        pred_field, gt_field, expressions_field=expressions_field, protocol=rules.name, skip_failures=skip_failures
    )
    method = MaskletEvaluation(config)
    method.validate_run(samples, eval_key)
    tell = _teller(progress, len(media.ids))
    tell(0)
    readers: Iterator[Callable[[], list[Any]]] = (partial(read, sample_id) for sample_id in media.ids)
    with closing(score_all(readers, score, num_workers)) as scores:
        for number, (sample_id, result) in enumerate(zip(media.ids, scores, strict=True), start=1):
            if isinstance(result, Exception) and not skip_failures:
                raise outcome.error(sample_id, result) from result
            outcome.add(sample_id, result)
            tell(number)
    results = outcome.results(rules, method, eval_key)
    outcome.write(method, eval_key, results)
    if results.failures:
        logger.warning("%d of %d samples could not be evaluated", len(results.failures), len(media.ids))
    return results


def _teller(progress: Callable[[Progress], None] | None, num_videos: int) -> Callable[[int], Any]:
    """Reports a number of finished videos."""
    if progress is None or not num_videos:
        return lambda done: None
    return lambda done: progress(Progress(min(done + 1, num_videos), num_videos, done / num_videos))
