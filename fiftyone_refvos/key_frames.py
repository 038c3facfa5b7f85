"""Key frames: chosen by a selector for every expression of a view, and then started from by `segment`.

view -> per video its frames and expressions -> selector -> scores of all frames -> the best one per expression;
they are written with the expressions, and on masklets, where the field has any.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fiftyone_refvos.models.registry import SELECTORS
from fiftyone_refvos.segment import Failure, FieldExistsError, Progress, describe

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `import fiftyone_refvos` should not
    import fiftyone as fo

    from fiftyone_refvos.masklet import Expression
    from fiftyone_refvos.models.selector.protocol import FrameSelector
    from fiftyone_refvos.zoo import SelectorModel

logger = logging.getLogger(__name__)

MIDDLE, ORACLE, CONFIDENCE = "middle", "oracle", "confidence"
WITHOUT_WEIGHTS: Mapping[str, str] = {
    MIDDLE: "the middle of the video, whatever the expression",
    ORACLE: "the highest true IoU of a model's masklets, from pseudo-labels",
    CONFIDENCE: "the highest score that a model gave its own masklets",
}
"""Selectors that need no weights, each with what it chooses."""


@dataclass
class SelectionReport:
    """What `select_key_frames` did.

    Attributes:
        field: what the attributes of the expressions are named after
        num_videos, num_expressions: that got key frames
        num_skipped: videos whose key frames were all there already
        failures: videos without new key frames, each with its reason
    """

    field: str
    num_videos: int = 0
    num_expressions: int = 0
    num_skipped: int = 0
    failures: list[Failure] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"key frames of {self.num_expressions} expressions of {self.num_videos} videos written to "
            f"'{self.field}_key_frame'; {self.num_skipped} videos were complete, {len(self.failures)} failed"
        ]
        return "\n".join([*lines, *(f"  failed: {each.filepath}: {each.error}" for each in self.failures)])


def select_key_frames(
    samples: fo.Dataset | fo.DatasetView,
    selector: FrameSelector | SelectorModel | str,
    *,
    field: str,
    masklets_field: str | None = None,
    expressions_field: str = "expressions",
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> SelectionReport:
    """Chooses the frame of every video that shows best what each expression names.

    Written are `<field>_key_frame` (a frame number) and `<field>_key_frame_scores` (one per frame) of the
    expressions, and `key_frame_score` of the masks in `frames.<field>`, if there are any.
    `rv.segment(…, key_frames=field)` starts from them. Resumable: only what is missing is done.

    Args:
        samples: a video dataset, a view or a clips view
        selector: "middle", "oracle", "confidence", a name of the zoo or a model of it, or any `FrameSelector`
        field: what the attributes are named after: a field of masklets, or another name
        masklets_field: for "oracle" the masklets with pseudo-labels, for "confidence" those with scores; by default
            `field`
        expressions_field: the sample field with the expressions
        overwrite: choose anew where there are key frames
        progress: called after every video
        options: with which a selector of the zoo is loaded, such as `checkpoint`

    Raises:
        ValueError: for an unknown selector, and a selector that cannot be loaded
        FieldError: for images, and fields of other types
        FieldExistsError: if another selector chose the key frames, or one with other settings; with `overwrite` if
            it chose those of other samples
    """
    from fiftyone_refvos import fields, run_records

    source = _source(selector, masklets_field or field, expressions_field, options)
    fields.check_label_field(field)
    dataset = samples._root_dataset
    ids = _video_ids(samples)
    source.check(dataset)
    _check_former(samples, field, expressions_field, source.identity, overwrite)
    fields.declare_key_frames(samples, field, expressions_field=expressions_field)
    anew = overwrite and samples._is_clips  # they replace frames, not whole videos
    if overwrite and not anew:
        fields.mark_all_unselected(samples, field, expressions_field=expressions_field)
    run_records.record(dataset, run_records.selection_key(field), source.identity)
    report = SelectionReport(field)
    for number, (sample_id, path) in enumerate(ids, start=1):
        try:
            written = _select(samples[sample_id], source, field, expressions_field, anew)
        except Exception as error:  # whatever it is, the other videos go on
            logger.debug("%s failed", path, exc_info=True)
            report.failures.append(Failure(sample_id, path, describe(error)))
        else:
            report.num_videos += bool(written)
            report.num_skipped += not written
            report.num_expressions += written
        if progress is not None:
            progress(Progress(number, len(ids), number / len(ids)))
    if report.failures:
        logger.warning("%s", report)
    return report


def _check_former(
    samples: fo.Dataset | fo.DatasetView, field: str, expressions: str, identity: Mapping[str, Any], overwrite: bool
) -> None:
    """Refuses to mix what several selectors have chosen in one field."""
    from fiftyone_refvos import fields, run_records

    dataset = samples._root_dataset
    former = run_records.recorded(dataset, run_records.selection_key(field))
    if former in (None, identity) or not fields.has_key_frames(samples, field, expressions_field=expressions):
        return
    chosen = f"the key frames '{field}_key_frame' were chosen by another selector ({former})"
    if not overwrite:
        raise FieldExistsError(f"{chosen}: pass overwrite=True to replace them, or choose another field")
    others = dataset.exclude(samples.values("sample_id" if samples._is_clips else "id"))
    if fields.count_key_frames(others, field, expressions_field=expressions):
        raise FieldExistsError(
            f"{chosen}, those of other samples, too, and one field is for one: overwrite the whole dataset, or "
            "choose another field"
        )


@dataclass(frozen=True)
class _Source:
    """Where the selector of each video comes from.

    Attributes:
        identity: what tells it from others, as plain values
        open: the selector of a sample
        check: refuses a dataset without what it needs
    """

    identity: dict[str, Any]
    open: Callable[[fo.Sample], FrameSelector]
    check: Callable[[fo.Dataset], None] = lambda dataset: None


def _source(
    selector: FrameSelector | SelectorModel | str, masklets: str, expressions: str, options: dict[str, Any]
) -> _Source:
    if not isinstance(selector, str):
        opened = getattr(selector, "selector", selector)  # a model of the zoo holds one
        return _Source({"name": type(opened).__name__, **selector.identity}, lambda sample: opened)
    if selector in SELECTORS:
        from fiftyone_refvos.zoo import SelectorModel, SelectorModelConfig

        model = SelectorModel(SelectorModelConfig({"name": selector, **options}))
        return _Source(dict(model.identity), lambda sample: model.selector)
    if options:
        raise ValueError(f"the selector {selector!r} has no options, but was given {', '.join(sorted(options))}")
    if selector == MIDDLE:
        from fiftyone_refvos.models.selector.protocol import MiddleFrameSelector

        middle = MiddleFrameSelector()
        return _Source({"name": MIDDLE}, lambda sample: middle)
    identity = {"name": selector, "masklets": masklets}
    if selector == ORACLE:
        return _Source(identity, lambda sample: _oracle(sample, masklets, expressions))
    if selector == CONFIDENCE:
        return _Source(
            identity,
            lambda sample: _confidence(sample, masklets, expressions),
            lambda dataset: _check_masks(dataset, masklets),
        )
    known = ", ".join([*WITHOUT_WEIGHTS, *SELECTORS])
    raise ValueError(f"unknown selector {selector!r}; the selectors are {known}")


def _oracle(sample: fo.Sample, masklets: str, expressions: str) -> FrameSelector:
    from fiftyone_refvos import fields
    from fiftyone_refvos.models.selector.simple import RecordedSelector

    ious = fields.read_frame_list(sample, masklets, "ious", expressions_field=expressions)
    return RecordedSelector(ious, name=f"pseudo-label of {masklets!r} (rv.make_pseudo_labels makes them)")


def _confidence(sample: fo.Sample, masklets: str, expressions: str) -> FrameSelector:
    """The mean score of the masks of each frame, 0 where there is none; frames without masklets are unknown."""
    import numpy as np

    from fiftyone_refvos import fields
    from fiftyone_refvos.models.selector.simple import RecordedSelector

    length, recorded = len(fields.frame_source(sample)), {}
    for masklet in fields.read_masklets(sample, masklets, expressions_field=expressions):
        values: list[float | None] = [None] * length
        for t, frame in enumerate(masklet.frames):
            shown = masklet.scores[t][masklet.mask(frame).any(axis=(1, 2))]
            if frame < length:
                values[frame] = float(np.mean(shown)) if len(shown) else 0.0
        recorded[masklet.expression.id] = values
    return RecordedSelector(recorded, name=f"masklet in {masklets!r}")


def _check_masks(dataset: fo.Dataset, masklets: str) -> None:
    from fiftyone_refvos.fields.scores import check_masklet_field

    check_masklet_field(dataset, masklets)


def _video_ids(samples: fo.Dataset | fo.DatasetView) -> list[tuple[str, str]]:
    from fiftyone_refvos.fields import FieldError

    if samples.media_type != "video":
        raise FieldError(
            f"key frames are chosen in videos, but the target holds {samples.media_type or 'no'} samples"
        )
    return list(zip(*samples.values(["id", "filepath"]), strict=True))


def _select(sample: fo.Sample, source: _Source, field: str, expressions_field: str, anew: bool) -> int:
    from fiftyone_refvos import fields
    from fiftyone_refvos.models.selector.protocol import best_frame

    expressions: list[Expression] = fields.read_expressions(sample, expressions_field)
    if not expressions:
        raise fields.FieldError(f"there are no expressions in {expressions_field!r}; add some")
    where = {"expressions_field": expressions_field}
    lists = fields.read_frame_list(sample, field, "key_frame_scores", **where)
    scored = {id_ for id_, values in lists.items() if any(value is not None for value in values)}
    missing = [each for each in expressions if anew or each.id not in scored]
    if not missing:
        return 0
    frames = fields.frame_source(sample)
    scores = source.open(sample).scores(frames, missing)
    keys = {each.id: best_frame(scores[each.id], each, video=frames.name) for each in missing}
    fields.write_key_frames(sample, field, keys, {id_: each.tolist() for id_, each in scores.items()}, **where)
    return len(missing)
