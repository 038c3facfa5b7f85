"""Running a model over videos or images: the one path of notebook, operator, command line and workers.

view -> per video its frames and unfinished expressions -> model -> masklets -> one bulk write per video;
what is finished stays, what fails is listed, and a second call goes on where the first one stopped. An image is
a video of one frame.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fiftyone_refvos.masklet import Expression, FrameResult, Masklet

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `import fiftyone_refvos` should not
    import fiftyone as fo

    from fiftyone_refvos.models.segmenter import Segmenter
    from fiftyone_refvos.zoo import RefVOSModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        video: number of the current video or image, from 1
        num_videos: how many videos or images the run has
        fraction: of the whole run, in [0, 1]
    """

    video: int
    num_videos: int
    fraction: float


@dataclass(frozen=True)
class Failure:
    """A video or image that could not be segmented; nothing was written for it."""

    sample_id: str
    filepath: str
    error: str


@dataclass
class SegmentReport:
    """What a run did.

    Attributes:
        label_field: where the masklets are
        num_samples: videos or images that got masklets
        num_expressions: masklets that were written
        num_skipped: videos or images whose masklets were all there already
        failures: videos or images without masklets, each with its reason
        seconds: duration of the run
        images: whether these are images, whose masklets are masks in the sample
    """

    label_field: str
    num_samples: int = 0
    num_expressions: int = 0
    num_skipped: int = 0
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0
    images: bool = False

    def __str__(self) -> str:
        things = "images" if self.images else "videos"
        lines = [
            f"{self.num_expressions} masklets of {self.num_samples} {things} written to {self.path!r} in "
            f"{self.seconds:.0f} s; {self.num_skipped} {things} were complete, {len(self.failures)} failed"
        ]
        lines += [f"  failed: {failure.filepath}: {failure.error}" for failure in self.failures]
        return "\n".join(lines)

    @property
    def path(self) -> str:
        """Where the masks are, as FiftyOne names it."""
        return self.label_field if self.images else f"frames.{self.label_field}"


class _Stopped(BaseException):
    """The progress callback raised an error, which ends the run; not an Exception, so that no video fails of it."""


class FieldExistsError(ValueError):
    """The label field holds something that this run did not make, and would overwrite."""


def segment(
    samples: fo.Dataset | fo.DatasetView,
    model: RefVOSModel | str,
    *,
    label_field: str,
    prompts: str | Sequence[str] | None = None,
    prompt_field: str = "expressions",
    key_frames: str | None = None,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> SegmentReport:
    """Writes the masklets of every expression of every video into `frames.<label_field>`, of images `<label_field>`.

    Resumable: called again with the same model and settings it does only what is missing, which are
    expressions without masklets, and those whose text was edited. A video that fails is listed in the report
    and does not stop the others; nothing is written for it. Of a clips view, the model sees the frames of
    each clip alone, and the masks of these frames are written. What is said of videos holds for images, too.

    Args:
        samples: a dataset of videos or images, a view of its samples, or a clips view
        model: of `foz.load_zoo_model`, or the name of one; for images one of `IMAGE_MODELS`
        label_field: frame field for the masklets; for images the sample field
        prompts: texts to look for in every video, which are added to its `expressions`
        prompt_field: where the expressions are, if no `prompts` are given: a field with text, a list of
            texts, Classifications or TemporalDetections. Texts are added to `expressions`
        key_frames: start from the key frames of this name, as `select_key_frames` and `import_key_frames` write them,
            and go on in both directions; an expression without one starts from the first frame. Masklets that
            started elsewhere are made anew
        overwrite: replace what the label field holds of these samples, each video once it has new masklets
        progress: called while the run goes on

    Raises:
        ValueError: for prompts that the model cannot take, images and a model of videos alone, or key frames of
            images; nothing is written
        FieldError: for other samples, a missing prompt field, or fields of other types
        FieldExistsError: if the label field was made by another model, or with other settings
    """
    from fiftyone_refvos import run_records

    images = _are_images(samples)
    if images and key_frames is not None:
        raise ValueError(f"key frames are of videos: segment images without key_frames={key_frames!r}")
    run = _Run(samples, _load(model, images=images), label_field, prompts, prompt_field, key_frames)
    run.prepare(overwrite=overwrite)
    report = SegmentReport(label_field, images=images)
    start = time.monotonic()
    try:
        run.execute(report, progress)
    except _Stopped as stop:
        raise stop.__cause__ or stop from None
    finally:  # also after an interruption: what was written stays, and is accounted for
        report.seconds = time.monotonic() - start
        run_records.save_report(run.dataset, label_field, report)
    if report.failures:
        logger.warning("%s", report)
    return report


def _load(model: RefVOSModel | str, *, images: bool) -> RefVOSModel:
    """The model for images, or for videos.

    Raises:
        ValueError: for a model of videos alone, if it is for images; before it is loaded
    """
    if isinstance(model, str):
        import fiftyone.zoo as foz

        from fiftyone_refvos.models.registry import check_takes_images

        if images:
            check_takes_images(model)
        loaded: RefVOSModel = foz.load_zoo_model(model)
    else:
        loaded = model
    return loaded.for_images() if images else loaded.for_videos()


def _are_images(samples: fo.Dataset | fo.DatasetView) -> bool:
    """Whether these are images; if not, they are whole videos or clips of them.

    Raises:
        FieldError: for anything else
    """
    from fiftyone_refvos.fields import FieldError

    dataset = samples._dataset
    if dataset.media_type == "group":
        raise FieldError(
            "the dataset is grouped, and its videos or images are a part of it: pass a dataset of its own, which "
            "dataset.select_group_slices('<slice with videos or images>').clone() makes"
        )
    if samples.media_type == "video":
        return False
    if samples.media_type == "image" and not dataset._is_generated:
        return True
    kind = "a view of frames or patches" if dataset._is_generated else f"{samples.media_type or 'no'} samples"
    raise FieldError(
        f"videos and images can be segmented, but {samples.name or 'this view'!r} holds {kind}: pass the dataset, a "
        "view of its samples, or clips"
    )


class _Run:
    """One call of `segment`."""

    def __init__(
        self,
        samples: fo.Dataset | fo.DatasetView,
        model: RefVOSModel,
        label_field: str,
        prompts: str | Sequence[str] | None,
        prompt_field: str,
        key_frames: str | None,
    ) -> None:
        from fiftyone_refvos import fields

        self.samples = samples
        self.model = model
        self.label_field = label_field
        self.prompts = [prompts] if isinstance(prompts, str) else prompts
        self.prompt_field = prompt_field
        self.key_frames = key_frames
        self.identity = {**model.identity, **({"key_frames": key_frames} if key_frames else {})}
        self.dataset: fo.Dataset = samples._root_dataset  # no public name leads there from a clips view
        typed = prompts is not None
        self.expressions_field = fields.EXPRESSIONS if typed else fields.expressions_field(samples, prompt_field)

    def prepare(self, *, overwrite: bool) -> None:
        """Declares the schema and the run, after checking everything that can be checked before."""
        from fiftyone_refvos import fields, run_records

        self.dataset.reload()  # another process may have written the field since
        fields.check_label_field(self.label_field)
        if self.prompts is not None:
            self._check_prompts(self.prompts)
        if self.key_frames is not None:
            self._check_key_frames(self.key_frames)
        self.overwrite_clips = overwrite and self.samples._is_clips  # they replace frames, not whole videos
        if overwrite:
            run_records.check_overwrite(self.samples, self.label_field, self.identity)
        else:
            run_records.check_field(self.dataset, self.label_field, self.identity)
        fields.declare_masklet_schema(self.samples, self.label_field, expressions_field=self.expressions_field)
        run_records.register(self.dataset, self.label_field, self.identity)
        if overwrite and not self.overwrite_clips:
            # The masks themselves go when there are new ones: a video that fails keeps what it had.
            fields.mark_all_unfinished(self.samples, self.label_field, expressions_field=self.expressions_field)

    def _check_prompts(self, prompts: Sequence[str]) -> None:
        """Refuses prompts before any of them is written into a sample."""
        if not prompts:
            raise ValueError("prompts is empty; say what is to be segmented, or leave it out to use a prompt field")
        for prompt in prompts:
            if not isinstance(prompt, str):
                raise ValueError(f"a prompt is text, got {prompt!r}")
            self.model.segmenter.check(Expression("prompts", prompt.strip()))

    def _check_key_frames(self, name: str) -> None:
        """Refuses key frames that do not exist, or that writing the masklets would take away."""
        from fiftyone_refvos import fields

        if name == self.label_field:
            raise ValueError(f"{name!r} has the key frames that the masklets start from: choose another label field")
        if not fields.has_key_frames(self.dataset, name, expressions_field=self.expressions_field):
            raise fields.FieldError(
                f"dataset {self.dataset.name!r} has no key frames '{name}_key_frame' in {self.expressions_field!r}: "
                "call select_key_frames or import_key_frames before"
            )

    def execute(self, report: SegmentReport, progress: Callable[[Progress], None] | None) -> None:
        """Segments one video or image after another."""
        # One look-up per video instead of one long iteration: a view may change by what is written here, and a
        # cursor of the database dies while a large model works on one video.
        ids, paths = self.samples.values(["id", "filepath"])
        num_videos = len(ids)
        for number, (sample_id, path) in enumerate(zip(ids, paths, strict=True), start=1):

            def tell(share: float, number: int = number) -> None:
                if progress is not None:
                    try:
                        progress(Progress(number, num_videos, (number - 1 + share) / num_videos))
                    except Exception as error:  # the caller wants to stop: no failure of the video
                        raise _Stopped from error

            tell(0.0)
            try:
                written = self._segment_video(self.samples[sample_id], tell)
            except Exception as error:  # whatever it is, the other videos go on
                logger.debug("%s failed", path, exc_info=True)
                report.failures.append(Failure(sample_id, path, describe(error)))
            else:
                report.num_samples += bool(written)
                report.num_skipped += not written
                report.num_expressions += written
            tell(1.0)

    def _segment_video(self, sample: fo.Sample, tell: Callable[[float], None]) -> int:
        """Segments what is missing in one video; returns the number of expressions written."""
        from fiftyone_refvos import fields

        if self.prompts is not None:
            expressions = fields.add_expressions(sample, self.prompts)
        else:
            expressions = fields.read_expressions(sample, self.prompt_field)
        if not expressions:
            raise fields.FieldError(f"there are no expressions in {self.prompt_field!r}; add some, or pass prompts=")
        where = {"field": self.label_field, "expressions_field": self.expressions_field}
        finished = set() if self.overwrite_clips else fields.finished_expressions(sample, **where)
        keys = None if self.key_frames is None else self._keys(sample, self.key_frames, expressions)
        if keys is not None:
            former = self._started_from(sample)
            finished = {id_ for id_ in finished if former.get(id_) == keys.get(id_)}
        missing = [expression for expression in expressions if expression.id not in finished]
        if not missing:
            return 0
        if keys is not None:
            keys = {expression.id: keys[expression.id] for expression in missing}
        masklets = segment_frames(self.model.segmenter, fields.frame_source(sample), missing, tell, key_frames=keys)
        fields.clear_leftovers(sample, **where)
        scores = None if self.key_frames is None else self._key_frame_scores(sample, self.key_frames, masklets)
        fields.write_masklets(
            sample,
            self.label_field,
            masklets,
            expressions_field=self.expressions_field,
            key_frame_scores=scores,
        )
        return len(masklets)

    def _keys(self, sample: fo.Sample, name: str, expressions: Sequence[Expression]) -> dict[str, int]:
        """The index of the key frame of every expression; the first frame where none was chosen, as in GLUS."""
        from fiftyone_refvos import fields

        known = fields.read_key_frames(sample, name, expressions_field=self.expressions_field)
        return {expression.id: known.get(expression.id, 0) for expression in expressions}

    def _started_from(self, sample: fo.Sample) -> dict[str, int]:
        """The index of the key frame that each masklet of the label field started from."""
        from fiftyone_refvos import fields

        try:
            return fields.read_key_frames(sample, self.label_field, expressions_field=self.expressions_field)
        except fields.FieldError:  # in another clip of the video
            return {}

    def _key_frame_scores(
        self, sample: fo.Sample, name: str, masklets: Sequence[Masklet]
    ) -> dict[str, list[float | None]]:
        """The scores of the selector for the frames of each masklet, where it gave any."""
        from fiftyone_refvos import fields

        known = fields.read_frame_list(sample, name, "key_frame_scores", expressions_field=self.expressions_field)
        return {
            masklet.expression.id: [known[masklet.expression.id][frame] for frame in masklet.frames]
            for masklet in masklets
            if len(known.get(masklet.expression.id, ())) > masklet.frames[-1]
        }


def segment_frames(
    segmenter: Segmenter,
    frames: Any,
    expressions: Sequence[Expression],
    tell: Callable[[float], None] = lambda share: None,
    *,
    key_frames: Mapping[str, int] | None = None,
) -> list[Masklet]:
    """Runs a model over the frames of one video.

    Args:
        segmenter: the model
        frames: of the video
        expressions: what to look for
        tell: is given the finished share, in [0, 1]
        key_frames: index from 0 per expression id, from which to work in both directions
    """
    total = len(frames) * len(expressions)

    def counted(results: Iterable[FrameResult]) -> Iterator[FrameResult]:
        for done, result in enumerate(results, start=1):
            yield result
            tell(done / total)

    results = counted(segmenter.segment(frames, expressions, key_frames=key_frames))
    return Masklet.collect(results, expressions, key_frames=key_frames)


def describe(error: Exception) -> str:
    """What a report says of an error: our own ones explain themselves, others come with their type."""
    text = str(error).strip()
    return text if isinstance(error, ValueError) and text else f"{type(error).__name__}: {text}"
