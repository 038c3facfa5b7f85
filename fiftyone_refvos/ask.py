"""Asking a model about samples: answers, captions with masks, and captions of regions.

view -> per sample its picture or frames -> question -> answer -> a text, and labels of what it names;
what is answered stays, what fails is listed, and a second call goes on where the first one stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fiftyone_refvos.ask_runs import AskReport, Written, check_former, for_each
from fiftyone_refvos.masklet import Expression, Masklet, encode
from fiftyone_refvos.models.registry import ANSWERING, MODELS
from fiftyone_refvos.segment import FieldExistsError, Progress, describe

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `import fiftyone_refvos` should not
    import fiftyone as fo

    from fiftyone_refvos.models.sa2va.chat import Sa2vaChat
    from fiftyone_refvos.models.sa2va.images import ImageAnswer
    from fiftyone_refvos.video import Frame
    from fiftyone_refvos.zoo import RefVOSModel


def ask(
    samples: fo.Dataset | fo.DatasetView,
    model: RefVOSModel | str,
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
        model: of Sa2VA, from `foz.load_zoo_model`, or its name in the zoo
        question: free text
        answer_field: sample field for the answers
        label_field: field for the masks of what an answer shows, if any: of the samples, or of the frames of videos.
            A mask is labelled with its phrase, or with the question
        overwrite: replace the answers of these samples, each once there is a new one
        progress: called after every sample

    Raises:
        ValueError: for a model that answers no questions, and a question that cannot be asked; nothing is written
        FieldError: for samples that are no images or videos, and names that cannot be fields
        FieldExistsError: if a field holds something else, or the answers of another model or to another question
    """
    from fiftyone_refvos.models.sa2va.chat import label_without_phrase

    chat, identity = _open(model)
    chat.check(question)

    def answer_image(image: Frame) -> ImageAnswer:
        return chat.about_image(image, question)

    run = _Answers(
        samples, identity | {"question": question}, answer_field, label_field, label_without_phrase(question)
    )
    return run.execute(answer_image, lambda frames: chat.about_video(frames, question), overwrite, progress)


def caption(
    samples: fo.Dataset | fo.DatasetView,
    model: RefVOSModel | str,
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
    from fiftyone_refvos.models.sa2va.chat import UNNAMED

    chat, identity = _open(model)
    run = _Answers(samples, identity | {"task": "grounded caption"}, caption_field, label_field, UNNAMED)
    return run.execute(chat.describe_image, chat.describe_video, overwrite, progress)


def caption_regions(
    samples: fo.Dataset | fo.DatasetView,
    model: RefVOSModel | str,
    *,
    regions_field: str,
    attribute: str = "caption",
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> AskReport:
    """Describes every box, mask or set of points of a label field of images; the caption is an attribute of each.

    Resumable: labels with a caption are left out, and so are those that a view does not show. A region that cannot
    be described is listed with its sample, and does not stop the others.

    Args:
        samples, model, progress: as of `ask`; a model with an InternVL base
        regions_field: sample field with Detections, whose masks go before their boxes, or Keypoints
        attribute: of each label, for its caption
        overwrite: replace the captions of these labels, each once there is a new one

    Raises:
        ValueError: for a model that answers no questions
        FieldError: for videos, and a field without regions
        FieldExistsError: if the attribute holds something else, or captions of another model
    """
    from fiftyone_refvos import fields, run_records

    chat, identity = _open(model)
    _check_samples(samples)
    fields.check_label_field(attribute)
    labels = fields.region_path(samples, regions_field)
    path, key = f"{labels}.{attribute}", run_records.regions_key(regions_field, attribute)
    identity = identity | {"task": "region captions", "path": path}
    dataset, shown = samples._root_dataset, fields.shown_labels(samples, labels)

    def among_shown(label: tuple[str, str]) -> bool:
        return label[1] in shown.get(label[0], ())

    def others() -> int:
        return sum(not among_shown(label) for label in fields.captioned_labels(dataset, path))

    check_former(dataset, path, key, identity, others, overwrite=overwrite)
    fields.declare_text(dataset, path)
    if overwrite:
        fields.mark_texts_outdated(dataset, path, filter(among_shown, fields.captioned_labels(dataset, path)))
    run_records.record_answers(dataset, key, identity)

    def work(sample: fo.Sample) -> Written:
        image = _picture(sample)
        size = image.shape[:2]
        regions = fields.read_regions(sample, regions_field, size, among=shown[sample.id], without=attribute)
        masks, problems = {}, []
        for label_id, region in regions.items():
            try:
                masks[label_id] = chat.region(f"label {label_id}", region, size)
            except ValueError as error:
                problems.append(describe(error))
        answers = chat.describe_regions(image, list(masks.values()))
        texts = {label_id: answer.caption for label_id, answer in zip(masks, answers, strict=True)}
        fields.write_region_texts(sample, path, texts)
        return Written(len(texts), "; ".join(problems))

    return for_each(samples, path, key, work, progress)


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

        dataset: fo.Dataset = self.samples._root_dataset

        def others() -> int:
            return int(dataset.exclude(self.samples.values("id")).count(self.answer_field))

        check_former(dataset, self.answer_field, self.key, self.identity, others, overwrite=overwrite)
        self._check_labels(dataset)
        fields.declare_answers(self.samples, self.answer_field, self.label_field)
        if overwrite:
            fields.mark_answers_outdated(self.samples, self.answer_field)
        # After the marks: under the name of the new run no former answer may look complete.
        run_records.record_answers(dataset, self.key, self.identity)
        is_video = dataset.media_type == "video"

        def work(sample: fo.Sample) -> Written:
            if fields.has_answer(sample, self.answer_field):
                return Written(0)
            if is_video:
                found = answer_video(fields.frame_source(sample))
                self._write(sample, found.answer.caption, found.masklets)
            else:
                seen = answer_image(_picture(sample))
                self._write(sample, seen.answer.caption, _things(seen, self.otherwise))
            return Written(1)

        return for_each(self.samples, self.answer_field, self.key, work, progress)

    def _check_labels(self, dataset: fo.Dataset) -> None:
        """Refuses a label field with anything but what answers of this field show, and to leave theirs in another."""
        from fiftyone_refvos import fields, run_records

        former = (run_records.recorded(dataset, self.key) or {}).get("label_field")
        if former == self.label_field:
            return
        if former is not None and dataset.get_field(path := fields.masklet_path(dataset, former)) is not None:
            kind = "frame" if dataset.media_type == "video" else "sample"
            raise FieldExistsError(
                f"{path!r} holds the masks of the former answers in {self.answer_field!r}: pass "
                f"label_field={former!r} to replace them, or delete them with "
                f"dataset.delete_{kind}_field({former!r}) before"
            )
        if self.label_field is None:
            return
        path = fields.masklet_path(dataset, self.label_field)
        if dataset.get_field(path) is not None:
            raise FieldExistsError(
                f"{path!r} exists and was not made with the answers in {self.answer_field!r}: choose another name"
            )

    def _write(self, sample: fo.Sample, text: str, things: list[Masklet]) -> None:
        from fiftyone_refvos import fields

        if self.label_field is not None:
            fields.write_things(sample, self.label_field, things)
        fields.write_answer(sample, self.answer_field, text)  # last: a sample with an answer is complete


def _picture(sample: fo.Sample) -> Frame:
    """The picture of an image sample, RGB, as `image_files` reads it."""
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


def _open(model: RefVOSModel | str) -> tuple[Sa2vaChat, dict[str, Any]]:
    """What asks a model, and what tells its answers from those of others, as plain values."""
    if isinstance(model, str):
        if model in MODELS and model not in ANSWERING:
            raise _answers_nothing(model)
        import fiftyone.zoo as foz

        loaded: RefVOSModel = foz.load_zoo_model(model)
    else:
        loaded = model
    from fiftyone_refvos.models.sa2va.chat import Sa2vaChat
    from fiftyone_refvos.models.sa2va.inference import Sa2vaSegmenter

    if isinstance(loaded, Sa2vaSegmenter):
        raise ValueError(
            "a Sa2vaSegmenter alone does not say which weights it has, and the answers of two would be mixed: pass "
            "foz.load_zoo_model(name, checkpoint=folder)"
        )
    segmenter = getattr(loaded, "segmenter", None)
    if not isinstance(segmenter, Sa2vaSegmenter):
        raise _answers_nothing(getattr(getattr(loaded, "config", None), "name", type(loaded).__name__))
    return Sa2vaChat(segmenter), dict(loaded.identity)


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
