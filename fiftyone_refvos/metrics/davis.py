"""DAVIS 2017, semi-supervised and unsupervised, and Ref-DAVIS17 by annotator, which builds on the latter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from fiftyone_refvos.metrics.bitmask import BitMask, TrackMasks, difference, empty, union
from fiftyone_refvos.metrics.frame import FrameScore
from fiftyone_refvos.metrics.protocol import Protocol, inner_frames, mean
from fiftyone_refvos.metrics.statistics import db_statistics
from fiftyone_refvos.metrics.video import (
    Summary,
    UnitScores,
    VideoMasks,
    score_masks,
    with_mean,
)

MAX_PROPOSALS = 20  # of the unsupervised task

Track = list[BitMask]


@dataclass(frozen=True, kw_only=True)
class Davis17(Protocol):
    """The two tasks of davis2017-evaluation; object ids are the numbers of a label map, from 1.

    The objects of a video are numbered from 1 to the largest id in its first frame; an id between that never
    occurs is an object that is always absent. Mean over frames per object, then over all objects of all videos;
    the summary has recall and decay too, see `SequenceStatistics`.

    Attributes:
        task: `semi-supervised`: without first and last frame and without regard to void, id against id;
            `unsupervised`: all frames, void pixels ignored, predicted objects assigned by the Hungarian method
            so that the sum of J&F is largest. There `<video>_<k>` counts the pairs by PREDICTED id
    """

    task: Literal["semi-supervised", "unsupervised"]

    def score(self, video: VideoMasks) -> list[UnitScores]:
        supervised = self.task == "semi-supervised"
        frames = inner_frames(video) if supervised else slice(None)
        truth = _numbered(video, {id: video.truth((id,)) for id in video.objects}, slice(1), frames)
        predictions = {id: video.prediction(id) for id in video.predictions}
        predicted = _numbered(video, predictions, frames, frames)
        limit = len(truth) if supervised else MAX_PROPOSALS
        if len(predicted) > limit:
            raise ValueError(
                f"{video.name}: a predicted object has the number {len(predicted)}, the {self.task} task allows "
                f"{limit} here"
            )
        nothing = [empty(video.size, by_columns=True)] * len(video.frames[frames])
        predicted += [nothing] * (len(truth) - len(predicted))
        if supervised:
            scores = [score_masks(*pair) for pair in zip(truth, predicted, strict=True)]
        else:
            scores = _assign(*_without_void(video, truth, predicted))
        return [
            UnitScores.of(values, video=video.name, id=str(k), key=f"{video.name}_{k}", frames=video.frames[frames])
            for k, values in enumerate(scores, start=1)
        ]

    def summarize(self, scores: Sequence[UnitScores]) -> Summary:
        units = {each.key: db_statistics(each.J).named("J") | db_statistics(each.F).named("F") for each in scores}
        names = ("J", "J-Recall", "J-Decay", "J-Decay-64bit", "F", "F-Recall", "F-Decay", "F-Decay-64bit")
        return Summary(
            protocol=self.name,
            percent=False,
            dataset=with_mean({name: mean(values[name] for values in units.values()) for name in names}),
            units={key: with_mean(values) for key, values in units.items()},
        )


@dataclass(frozen=True, kw_only=True)
class RefDavis17(Protocol):
    """Per annotator one label map of all objects, scored as DAVIS17 unsupervised; the mean over the annotators.

    Each expression names one object and has an annotator. Where predictions overlap, the lowest object id wins, as
    in the reference for binary masks (background 0.1, argmax). The assignment lets predicted objects exchange
    their identities freely. The summary's groups are the annotators.
    """

    def score(self, video: VideoMasks) -> list[UnitScores]:
        video.check_queries()
        by_annotator: dict[int, dict[str, TrackMasks]] = {}
        for query in video.queries:
            if query.annotator is None or len(query.object_ids) != 1:
                raise ValueError(f"{video.name}: expression {query.id!r} needs one object and an annotator")
            masks = video.prediction(query.id)
            by_annotator.setdefault(query.annotator, {})[query.object_ids[0]] = masks
        units = []
        for annotator, predictions in sorted(by_annotator.items()):
            merged = merge_labels(video, predictions)
            for each in DAVIS17_UNSUPERVISED.score(replace(video, predictions=merged)):
                units.append(replace(each, annotator=annotator, key=f"{annotator}/{each.key}"))
        return units

    def summarize(self, scores: Sequence[UnitScores]) -> Summary:
        parts = {}
        for annotator in sorted({each.annotator for each in scores if each.annotator is not None}):
            of_annotator = [each for each in scores if each.annotator == annotator]
            parts[str(annotator)] = DAVIS17_UNSUPERVISED.summarize(of_annotator)
        groups = {annotator: part.dataset for annotator, part in parts.items()}
        names = next(iter(groups.values()), {"J": 0.0, "F": 0.0})
        return Summary(
            protocol=self.name,
            percent=False,
            dataset=with_mean({name: mean(values[name] for values in groups.values()) for name in names}),
            groups=groups,
            units={key: values for part in parts.values() for key, values in part.units.items()},
        )


def merge_labels(video: VideoMasks, predictions: Mapping[str, TrackMasks]) -> dict[str, TrackMasks]:
    """Makes the predictions of several objects disjoint, as in a label map: the lowest object id keeps a pixel."""
    taken: Track = [empty(video.size, by_columns=True)] * len(video.frames)
    merged: dict[str, TrackMasks] = {}
    for id in sorted(predictions, key=lambda id: _number(video, id)):
        masks = video.bits(predictions[id], f"prediction of object {id!r}")
        merged[id] = [difference(*pair) for pair in zip(masks, taken, strict=True)]
        taken = [union(*pair) for pair in zip(taken, masks, strict=True)]
    return merged


def _numbered(video: VideoMasks, tracks: Mapping[str, Track], seen: slice, frames: slice) -> list[Track]:
    """The tracks of the objects 1, 2, … up to the largest that has a pixel in the frames `seen`."""
    by_number = {_number(video, id): track for id, track in tracks.items()}
    numbers = [number for number, track in by_number.items() if any(mask.area for mask in track[seen])]
    nothing = [empty(video.size, by_columns=True)] * len(video.frames)
    return [by_number.get(number, nothing)[frames] for number in range(1, max(numbers, default=0) + 1)]


def _number(video: VideoMasks, id: str) -> int:
    if not str(id).isdecimal() or int(id) < 1:
        raise ValueError(f"{video.name}: DAVIS numbers its objects 1, 2, …; {id!r} is no such number")
    return int(id)


def _without_void(video: VideoMasks, *groups: list[Track]) -> list[list[Track]]:
    if video.void is None:
        return [*groups]
    void = video.bits(video.void, "void")
    return [[[difference(*pair) for pair in zip(track, void, strict=True)] for track in group] for group in groups]


def _assign(truth: list[Track], predicted: list[Track]) -> list[list[FrameScore]]:
    """The scores of the pairs whose sum of J&F is largest, in the order of the predicted objects."""
    scores = [[score_masks(true, track) for true in truth] for track in predicted]
    quality = np.zeros((len(predicted), len(truth)))
    for row, line in enumerate(scores):
        for column, frames in enumerate(line):
            quality[row, column] = (mean(s.J for s in frames) + mean(s.F for s in frames)) / 2
    rows, columns = linear_sum_assignment(-quality)
    return [scores[row][column] for row, column in zip(rows, columns, strict=True)]


DAVIS17_SEMI_SUPERVISED = Davis17(
    name="davis17-semi-supervised",
    description=(
        "DAVIS 2017 semi-supervised, as davis2017-evaluation: first and last frame dropped, void not used, object "
        "by object; a prediction with a larger object number than the truth is an error (the program exits)."
    ),
    task="semi-supervised",
)
DAVIS17_UNSUPERVISED = Davis17(
    name="davis17-unsupervised",
    description=(
        "DAVIS 2017 unsupervised, as davis2017-evaluation: all frames, void ignored, at most 20 proposals per "
        "video, assigned to the objects by the Hungarian method."
    ),
    task="unsupervised",
)
REF_DAVIS17_PER_ANNOTATOR = RefDavis17(
    name="ref-davis17-per-annotator",
    description=(
        "Ref-DAVIS17 as ReferFormer and VideoLISA: the predictions of an annotator's expressions become one label "
        "map, scored as DAVIS 2017 unsupervised; mean over the four annotators. Not comparable with "
        "`ref-davis17-per-expression`."
    ),
)
