"""IoU pseudo-labels: how good a model's mask is in every frame, from which a key frame selector learns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fiftyone_refvos.segment import Failure, Progress

if TYPE_CHECKING:
    import fiftyone as fo

    from fiftyone_refvos.evaluation.pairs import Pair
    from fiftyone_refvos.metrics.bitmask import FrameMasks

# What a frame is worth in which the object is absent and nothing was predicted, so that there is nothing to segment.
AbsentPolicy = Literal["one", "zero", "skip"]
ABSENT: dict[str, float | None] = {"one": 1.0, "zero": 0.0, "skip": None}


@dataclass(frozen=True)
class PseudoLabel:
    """The IoU of one expression in every frame of its video.

    Attributes:
        sample_id: of the video
        video: its name in exported files: of the image folder, else of the file
        expression_id: the expression
        ious: one number in [0, 1] per frame of the video, in order; None where there is no ground truth
        absent: the frame numbers, from 1, with neither object nor prediction
    """

    sample_id: str
    video: str
    expression_id: str
    ious: tuple[float | None, ...]
    absent: tuple[int, ...] = ()


@dataclass
class PseudoLabels:
    """What `make_pseudo_labels` made.

    Attributes:
        pred_field: the masklets that were compared with the ground truth
        labels: one per expression that is predicted and annotated
        unpredicted: (sample id, expression id) of annotated expressions without masklet
        failures: videos without labels, each with its reason
    """

    pred_field: str
    labels: list[PseudoLabel] = field(default_factory=list)
    unpredicted: list[tuple[str, str]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def __str__(self) -> str:
        videos = len({label.sample_id for label in self.labels})
        return (
            f"IoU of {len(self.labels)} expressions of {videos} videos in 'frames.{self.pred_field}'; "
            f"{len(self.unpredicted)} expressions without masklet, {len(self.failures)} videos failed"
        )

    def export(self, folder: Path | str, *, overwrite: bool = False) -> list[Path]:
        """Writes the training labels of GLUS' key frame selector: `<folder>/<video>/<expression id>.json`.

        A file is a list with one number per frame of the video in order, null where there is no ground truth.

        Args:
            folder: where to write; made if need be
            overwrite: replace files that are there

        Returns:
            the files

        Raises:
            FileExistsError: if a file exists, without `overwrite`; nothing is written then
            ValueError: if two videos have the same name
        """
        contents: dict[Path, str] = {}
        for label in self.labels:
            path = Path(folder) / label.video / f"{label.expression_id}.json"
            if path in contents:
                raise ValueError(f"two videos are called {label.video!r}: export views without duplicates of names")
            if path.exists() and not overwrite:
                raise FileExistsError(f"{path} exists: choose another folder, or pass overwrite=True")
            contents[path] = json.dumps(label.ious)
        for path, text in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return list(contents)


def make_pseudo_labels(
    samples: fo.Dataset | fo.DatasetView,
    pred_field: str,
    gt_field: str = "ground_truth",
    *,
    expressions_field: str = "expressions",
    absent_policy: AbsentPolicy = "one",
    skip_failures: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> PseudoLabels:
    """Compares masklets with the ground truth, and writes the IoU of each (expression, frame) as `iou` of its labels.

    The masks of the objects of an expression count as one. The IoU is 0 if only one of the two masks is empty. A
    frame in which nothing was predicted has no label that could carry its 0 or 1: all numbers of an expression are in
    its list `<pred_field>_ious`, too, from which a selector is trained.

    Args:
        samples: a video dataset, a view or a clips view
        pred_field: the frame field with the predicted masklets, without `frames.`
        gt_field: the frame field with the true ones; frames where it is None get no label
        expressions_field: the sample field with the expressions
        absent_policy: what a frame is worth in which both masks are empty: `one` as in GLUS, `zero`, or `skip`,
            no label
        skip_failures: go on after a video that has errors, and list it
        progress: called after every video

    Raises:
        FieldError: as `evaluate`; for images, which have no key frames
        ValueError: for an unknown policy
    """
    from fiftyone_refvos.evaluation.pairs import Fields
    from fiftyone_refvos.evaluation.videos import Videos
    from fiftyone_refvos.fields import declare_frame_list, read_frame_list, write_frame_list
    from fiftyone_refvos.fields.scores import declare_scores, media_name, video_length, write_frame_scores

    if absent_policy not in ABSENT:
        raise ValueError(f"there is no absent_policy {absent_policy!r}, but: {', '.join(ABSENT)}")
    videos = Videos(samples, Fields(pred_field, gt_field, expressions_field))
    declare_scores(samples, pred_field, per_frame=["iou"])
    declare_frame_list(samples, pred_field, "ious", expressions_field=expressions_field)
    found = PseudoLabels(pred_field)
    for number, sample_id in enumerate(videos.ids, start=1):
        sample = videos.dataset[sample_id]
        try:
            pairs = videos.pairs(sample_id)
            length, name = video_length(sample), media_name(sample)
            labels = [_label(pair, sample_id, name, length, absent_policy) for pair in pairs if pair.prediction]
        except ValueError as error:
            if not skip_failures:
                raise
            found.failures.append(Failure(sample_id, sample.filepath, str(error)))
            continue
        found.labels += labels
        found.unpredicted += [(sample_id, pair.expression.id) for pair in pairs if not pair.prediction]
        # What an earlier call wrote into these frames goes, too: they may be annotated no longer.
        ious: dict[tuple[str, int], float | None] = {
            (id_, frame): None
            for id_, (_, frames) in videos.wanted(sample_id).items()
            for frame in (range(1, length + 1) if frames is None else frames)
        }
        for label in labels:
            numbered = enumerate(label.ious, start=1)
            ious |= {(label.expression_id, frame): iou for frame, iou in numbered if iou is not None}
        write_frame_scores(sample, pred_field, {"iou": ious})
        former = read_frame_list(sample, pred_field, "ious", expressions_field=expressions_field)
        known = dict.fromkeys(id_ for id_, _ in ious)
        lists = {id_: _frame_list(former.get(id_), id_, ious, length) for id_ in known}
        write_frame_list(sample, pred_field, "ious", lists, expressions_field=expressions_field)
        if progress is not None:
            progress(Progress(number, len(videos.ids), number / len(videos.ids)))
    return found


def _frame_list(
    former: Sequence[float | None] | None,
    expression_id: str,
    ious: Mapping[tuple[str, int], float | None],
    length: int,
) -> list[float | None]:
    """The number of every frame of the video; a frame that was not looked at keeps its former one."""
    numbers = [number for id_, number in ious if id_ == expression_id]
    values = list(former or ())
    values += [None] * (max(length, *numbers) - len(values))
    for number in numbers:
        values[number - 1] = ious[expression_id, number]
    return values


def frame_iou(
    truth: FrameMasks, prediction: FrameMasks, size: tuple[int, int], absent_policy: AbsentPolicy = "one"
) -> tuple[float | None, bool]:
    """What a frame is worth, the masks of either side as one, and whether both are empty.

    Args:
        truth, prediction: any number of masks, none where there is nothing
        size: (H, W) of the frame
        absent_policy: what it is worth if both are empty
    """
    from fiftyone_refvos.metrics import BitMask, jaccard

    masks = BitMask.of(truth, size), BitMask.of(prediction, size)
    if any(mask.area for mask in masks):
        return jaccard(*masks), False
    return ABSENT[absent_policy], True


def _label(pair: Pair, sample_id: str, video: str, length: int, absent_policy: AbsentPolicy) -> PseudoLabel:
    assert pair.prediction is not None
    # Metadata count a frame too few for some containers.
    ious: list[float | None] = [None] * max(length, pair.numbers[-1])
    absent = []
    for number, truth, prediction in zip(pair.numbers, pair.truth, pair.prediction, strict=True):
        ious[number - 1], nothing = frame_iou(truth, prediction, pair.size, absent_policy)
        if nothing:
            absent.append(number)
    return PseudoLabel(sample_id, video, pair.expression.id, tuple(ious), tuple(absent))
