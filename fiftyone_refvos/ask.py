"""Asking a model about samples: answers, captions with masks, and captions of regions.

view -> per sample its picture or frames -> question -> answer -> a text, and labels of what it names;
what is answered stays, what fails is listed, and a second call goes on where the first one stopped.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fiftyone_refvos.masklet import Expression, Masklet, encode
from fiftyone_refvos.models.registry import ANSWERING, MODELS
from fiftyone_refvos.segment import Failure, FieldExistsError, Progress, describe

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `import fiftyone_refvos` should not
    import fiftyone as fo

    from fiftyone_refvos.models.sa2va.chat import Sa2vaChat
    from fiftyone_refvos.models.sa2va.images import ImageAnswer
    from fiftyone_refvos.models.sa2va.inference import Sa2vaSegmenter
    from fiftyone_refvos.video import Frame
    from fiftyone_refvos.zoo import RefVOSModel

logger = logging.getLogger(__name__)


@dataclass
class AskReport:
    """What a run did.

    Attributes:
        field: where the answers are
        num_samples: that got answers
        num_answers: that were written; more than samples where each of several regions has its own
        num_skipped: samples whose answers were all there already
        failures: samples without new answers, each with its reason
        seconds: duration of the run
    """

    field: str
    num_samples: int = 0
    num_answers: int = 0
    num_skipped: int = 0
    failures: list[Failure] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [
            f"{self.num_answers} answers about {self.num_samples} samples written to '{self.field}' in "
            f"{self.seconds:.0f} s; {self.num_skipped} samples were complete, {len(self.failures)} failed"
        ]
        return "\n".join([*lines, *(f"  failed: {each.filepath}: {each.error}" for each in self.failures)])


def ask(
    samples: fo.Dataset | fo.DatasetView,
    model: RefVOSModel | Sa2vaSegmenter | str,
    question: str,
    *,
    answer_field: str,
    label_field: str | None = None,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> AskReport:
    """Asks the same about every image or video, and writes the answers as text.

    Resumable: samples with an answer are left out. A sample that fails is listed in the report and does not stop
    the others.

    Args:
        samples: an image or video dataset, or a view of one
        model: of Sa2VA, from `foz.load_zoo_model` or `load_sa2va`, or its name in the zoo
        question: free text
        answer_field: sample field for the answers
        label_field: field for the masks of what an answer shows, if any: of the samples, or of the frames of videos.
            A mask is labelled with its phrase, or with the question
        overwrite: remove the answers of these samples first
        progress: called after every sample

    Raises:
        ValueError: for a model that answers no questions, and a question that cannot be asked; nothing is written
        FieldError: for samples that are no images or videos, and names that cannot be fields
        FieldExistsError: if a field holds something else, or the answers of another model or to another question
    """
    chat, identity = _open(model)
    chat.check(question)

    def answer_image(image: Frame) -> ImageAnswer:
        return chat.about_image(image, question)

    run = _Answers(samples, identity | {"question": question}, answer_field, label_field, question)
    return run.execute(answer_image, lambda frames: chat.about_video(frames, question), overwrite, progress)


def caption(
    samples: fo.Dataset | fo.DatasetView,
    model: RefVOSModel | Sa2vaSegmenter | str,
    *,
    caption_field: str,
    label_field: str,
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> AskReport:
    """Describes every image or video: a caption, and masks of its phrases. As `ask` otherwise.

    Args:
        samples, model, overwrite, progress: as of `ask`
        caption_field: sample field for the captions
        label_field: field for the masks, each labelled with its phrase; of videos a frame field, in all frames

    Raises:
        ValueError, FieldError, FieldExistsError: as `ask`
    """
    chat, identity = _open(model)
    run = _Answers(samples, identity | {"task": "grounded caption"}, caption_field, label_field, "")
    return run.execute(chat.describe_image, chat.describe_video, overwrite, progress)


def caption_regions(
    samples: fo.Dataset | fo.DatasetView,
    model: RefVOSModel | Sa2vaSegmenter | str,
    *,
    regions_field: str,
    attribute: str = "caption",
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> AskReport:
    """Describes every box, mask or set of points of a label field of images; the caption is an attribute of each.

    Resumable: labels with a caption are left out.

    Args:
        samples, model, progress: as of `ask`; a model with an InternVL base
        regions_field: sample field with Detections, whose masks go before their boxes, or Keypoints
        attribute: of each label, for its caption
        overwrite: remove the captions of these samples first

    Raises:
        ValueError: for a model that answers no questions
        FieldError: for videos, and a field without regions
        FieldExistsError: if the attribute holds something else, or captions of another model
    """
    from fiftyone_refvos import fields, run_records

    chat, identity = _open(model)
    _check_samples(samples)
    fields.check_label_field(attribute)
    path = f"{fields.region_path(samples, regions_field)}.{attribute}"
    key = run_records.answers_key(f"{regions_field}_{attribute}")
    identity = identity | {"task": "region captions"}
    dataset = samples._root_dataset
    _check_former(samples, path, key, identity, overwrite=overwrite)
    fields.declare_text(dataset, path)
    run_records.record_answers(dataset, key, identity)
    if overwrite:
        fields.clear_texts(samples, path)

    def work(sample: fo.Sample) -> int:
        image = read_image(sample)
        regions = fields.read_regions(sample, regions_field, image.shape[:2], without=attribute)
        answers = chat.describe_regions(image, list(regions.values()))
        texts = {label_id: answer.caption for label_id, answer in zip(regions, answers, strict=True)}
        fields.write_region_texts(sample, path, texts)
        return len(texts)

    return _for_each(samples, path, key, work, progress)


class _Answers:
    """One call of `ask` or `caption`."""

    def __init__(
        self,
        samples: fo.Dataset | fo.DatasetView,
        identity: dict[str, Any],
        answer_field: str,
        label_field: str | None,
        otherwise: str,
    ) -> None:
        from fiftyone_refvos import fields, run_records

        _check_samples(samples)
        fields.check_label_field(answer_field)
        if label_field is not None:
            fields.check_label_field(label_field)
        if label_field == answer_field:
            raise fields.FieldError(f"{answer_field!r} cannot hold both answers and masks: choose two fields")
        self.samples = samples
        self.identity = identity | ({"label_field": label_field} if label_field else {})
        self.answer_field = answer_field
        self.label_field = label_field
        self.key = run_records.answers_key(answer_field)
        self.otherwise = otherwise

    def execute(
        self,
        answer_image: Callable[[Frame], ImageAnswer],
        answer_video: Callable[[Any], Any],
        overwrite: bool,
        progress: Callable[[Progress], None] | None,
    ) -> AskReport:
        """Checks everything that can be checked before, declares the schema and the run, and asks."""
        from fiftyone_refvos import fields, run_records

        dataset = self.samples._root_dataset
        _check_former(self.samples, self.answer_field, self.key, self.identity, overwrite=overwrite)
        self._check_labels(dataset)
        fields.declare_answers(self.samples, self.answer_field, self.label_field)
        run_records.record_answers(dataset, self.key, self.identity)
        if overwrite:
            fields.clear_answers(self.samples, self.answer_field, self.label_field)
        is_video = dataset.media_type == "video"

        def work(sample: fo.Sample) -> int:
            if fields.has_answer(sample, self.answer_field):
                return 0
            if is_video:
                found = answer_video(fields.frame_source(sample))
                self._write(sample, found.answer.caption, found.masklets)
            else:
                seen = answer_image(read_image(sample))
                self._write(sample, seen.answer.caption, _things(seen, self.otherwise))
            return 1

        return _for_each(self.samples, self.answer_field, self.key, work, progress)

    def _check_labels(self, dataset: fo.Dataset) -> None:
        """Refuses a label field that holds anything but what answers of this field show."""
        from fiftyone_refvos import fields, run_records

        if self.label_field is None:
            return
        path = fields.things_path(self.samples, self.label_field)
        former = run_records.recorded(dataset, self.key) or {}
        if dataset.get_field(path) is not None and former.get("label_field") != self.label_field:
            raise FieldExistsError(
                f"{path!r} exists and was not made with the answers in {self.answer_field!r}: choose another name"
            )

    def _write(self, sample: fo.Sample, text: str, things: list[Masklet]) -> None:
        from fiftyone_refvos import fields

        if self.label_field is not None:
            fields.write_things(sample, self.label_field, things)
        fields.write_answer(sample, self.answer_field, text)  # last: a sample with an answer is complete


def read_image(sample: fo.Sample) -> Frame:
    """The picture of an image sample, RGB."""
    from fiftyone_refvos import fields

    (image,) = fields.frame_source(sample).read([0])
    return image


def _things(seen: ImageAnswer, otherwise: str) -> list[Masklet]:
    """What an answer shows of an image, as masklets of one frame."""
    return [
        Masklet(
            expression=Expression(str(number), label),
            size=(mask.shape[0], mask.shape[1]),
            frames=(0,),
            masks=((encode(mask[None])[0],),),
            scores=score.reshape(1, 1),
            found=np.ones(1, dtype=bool),
        )
        for number, (label, mask, score) in enumerate(
            zip(seen.answer.labels(otherwise), seen.masks, seen.scores, strict=True)
        )
    ]


def _open(model: RefVOSModel | Sa2vaSegmenter | str) -> tuple[Sa2vaChat, dict[str, Any]]:
    """What asks a model, and what tells its answers from those of others, as plain values."""
    if isinstance(model, str):
        if model in MODELS and model not in ANSWERING:
            raise _answers_nothing(model)
        import fiftyone.zoo as foz

        model = foz.load_zoo_model(model)
    from fiftyone_refvos.models.sa2va.chat import Sa2vaChat
    from fiftyone_refvos.models.sa2va.inference import Sa2vaSegmenter

    segmenter = getattr(model, "segmenter", model)  # a model of the zoo holds one
    if not isinstance(segmenter, Sa2vaSegmenter):
        raise _answers_nothing(getattr(getattr(model, "config", None), "name", type(model).__name__))
    return Sa2vaChat(segmenter), {"name": type(segmenter).__name__, **model.identity}  # type: ignore[union-attr]


def _answers_nothing(name: str) -> ValueError:
    return ValueError(f"{name!r} answers no questions; models of Sa2VA do: {', '.join(ANSWERING)}")


def _check_samples(samples: fo.Dataset | fo.DatasetView) -> None:
    from fiftyone_refvos.fields import FieldError

    if samples._dataset._is_generated or samples.media_type not in ("image", "video"):
        kind = "a view of frames, patches or clips" if samples._dataset._is_generated else samples.media_type
        raise FieldError(
            f"images and videos can be asked about, but {samples.name or 'this view'!r} holds {kind or 'no samples'}:"
            " pass an image or video dataset, or a view of its samples"
        )


def _check_former(
    samples: fo.Dataset | fo.DatasetView, path: str, key: str, identity: Mapping[str, Any], *, overwrite: bool
) -> None:
    """Refuses to mix answers of several models, or to several questions, in one field."""
    from fiftyone_refvos import run_records

    dataset = samples._root_dataset
    dataset.reload()  # another process may have written the field since
    if dataset.get_field(path) is None:
        return
    former = run_records.recorded(dataset, key)
    if former is None:
        raise FieldExistsError(f"{path!r} exists and holds no answers of ours: choose another name")
    different = sorted(name for name in {*former, *identity} if former.get(name) != identity.get(name))
    if not different:
        return
    changes = ", ".join(f"{name} was {former.get(name)!r} and is {identity.get(name)!r}" for name in different)
    problem = f"{path!r} was written by another run ({changes})"
    if not overwrite:
        raise FieldExistsError(f"{problem}: pass overwrite=True to replace it, or choose another name")
    if others := dataset.exclude(samples.values("id")).count(path):
        raise FieldExistsError(
            f"{problem} and holds {others} answers about other samples, and one field is for one question: overwrite "
            "the whole dataset, or choose another name"
        )


def _for_each(
    samples: fo.Dataset | fo.DatasetView,
    path: str,
    key: str,
    work: Callable[[fo.Sample], int],
    progress: Callable[[Progress], None] | None,
) -> AskReport:
    """Works on one sample after another; `work` gives the number of answers that it has written."""
    from fiftyone_refvos import run_records

    report = AskReport(path)
    start = time.monotonic()
    ids, paths = samples.values(["id", "filepath"])
    try:
        for number, (sample_id, filepath) in enumerate(zip(ids, paths, strict=True), start=1):
            try:
                written = work(samples._root_dataset[sample_id])
            except Exception as error:  # whatever it is, the other samples go on
                logger.debug("%s failed", filepath, exc_info=True)
                report.failures.append(Failure(sample_id, filepath, describe(error)))
            else:
                report.num_samples += bool(written)
                report.num_skipped += not written
                report.num_answers += written
            if progress is not None:
                progress(Progress(number, len(ids), number / len(ids)))
    finally:  # also after an interruption: what was written stays, and is accounted for
        report.seconds = time.monotonic() - start
        run_records.save_outcome(samples._root_dataset, key, asdict(report))
    if report.failures:
        logger.warning("%s", report)
    return report
