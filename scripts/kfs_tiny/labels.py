"""What glus-tiny makes of videos that it was not trained on: the IoU of its masks in every frame, as label files."""

from __future__ import annotations

import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from fiftyone_refvos.demo.rendered import RenderedExpression, RenderedVideo, RenderedVideos
from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.segmenter import Segmenter
from fiftyone_refvos.pseudo_labels import frame_iou

ORDER = ("motion", "relation", "multi", "attribute", "motion", "relation", "multi", "motion")
"""Kinds of the expressions of a video that get labels; what has no target is 0 everywhere, and teaches nothing."""


def label(
    folder: Path, videos: RenderedVideos, segmenter: Segmenter, say: Callable[[int, int], None] | None = None
) -> None:
    """Labels every video that has no labels yet, `<folder>/<video>/<expression id>.json`, as GLUS writes them.

    Args:
        folder: gets a folder per video
        videos: of which the mirrored ones are left out
        segmenter: whose masks are judged
        say: told after every video how many of how many are done
    """
    numbers = range(0, len(videos), 2)
    for done, number in enumerate(numbers, 1):
        video = videos.video(number)
        if (folder / video.name).exists():
            continue
        part = folder / f".{video.name}.part"
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for id_, ious in true_ious(video, choose(video), segmenter).items():
            (part / f"{id_}.json").write_text(json.dumps(ious))
        os.rename(part, folder / video.name)
        if say is not None:
            say(done, len(numbers))


def choose(video: RenderedVideo) -> list[RenderedExpression]:
    """At most one expression for every place of `ORDER`."""
    rng, left = np.random.default_rng(int(video.name)), defaultdict(list)
    for expression in video.expressions:
        left[expression.kind].append(expression)
    for several in left.values():
        rng.shuffle(several)
    return [left[kind].pop() for kind in ORDER if left[kind]]


def true_ious(
    video: RenderedVideo, expressions: Sequence[RenderedExpression], segmenter: Segmenter
) -> Mapping[str, list[float]]:
    """The IoU of each frame per expression id; 0 where there is neither object nor mask, and so nothing to see."""
    asked = {each.id: each for each in expressions}
    ious = {id_: [0.0] * len(video) for id_ in asked}
    for result in segmenter.segment(video, [Expression(each.id, each.text) for each in expressions]):
        truth = video.targets([asked[result.expression_id]], result.frame) > 0
        iou, _ = frame_iou(truth, result.masks, video.size, "zero")
        ious[result.expression_id][result.frame] = float(iou or 0)
    return ious
