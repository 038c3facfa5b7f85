"""One run of `describe_objects` over the videos of a view."""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import fiftyone as fo

from fiftyone_refvos import run_records
from fiftyone_refvos.describe import DescriptionFailure, DescriptionReport
from fiftyone_refvos.describing.pictures import ObjectPictures, VideoPictures
from fiftyone_refvos.describing.stages import (
    STAGES,
    StepAnswer,
    answers_until,
    ask_steps,
    descriptions,
    is_rejected,
    missing_steps,
)
from fiftyone_refvos.description_scope import Known, Wanted, split_records
from fiftyone_refvos.fields import FieldError, frame_source
from fiftyone_refvos.fields.descriptions import (
    GeneratedExpression,
    ObjectRecord,
    State,
    count_records,
    declare_descriptions,
    mark_pending,
    write_generated,
    write_record,
)
from fiftyone_refvos.fields.naming import name_masks, number_objects
from fiftyone_refvos.fields.objects import ObjectTrack, read_objects
from fiftyone_refvos.fields.scores import check_masklet_field
from fiftyone_refvos.segment import FieldExistsError, Progress, describe

if TYPE_CHECKING:
    from fiftyone_refvos.describing.chat import ChatModel
    from fiftyone_refvos.describing.prompts import Prompts

_METHOD = "refvos_describe_objects"

logger = logging.getLogger(__name__)


class DescriptionRun:
    """One call of `describe_objects`."""

    def __init__(
        self, samples: fo.Dataset | fo.DatasetView, chat: ChatModel, prompts: Prompts, wanted: Wanted
    ) -> None:
        self.samples = samples
        self.dataset: fo.Dataset = samples._root_dataset  # no public name leads there from a clips view
        self.chat = chat
        self.prompts = prompts
        self.wanted = wanted

    def prepare(self, *, overwrite: bool) -> None:
        """Declares the schema and the run, after checking everything that can be checked before."""
        self.dataset.reload()  # another process may have written the field since
        field = self.wanted.field
        _check_videos(self.samples)
        check_masklet_field(self.samples, field)
        identity = {**self.chat.identity, **self.prompts.identity, "num_frames": self.wanted.num_frames}
        asked, left = split_records(self.samples, self.wanted) if overwrite else ({}, [])
        self._check_former(identity, overwrite, left)
        declare_descriptions(self.samples, field, expressions_field=self.wanted.expressions_field)
        # Before the record: under the name of the new run no former description may look complete.
        mark_pending(self.dataset, field, asked)
        if run_records.recorded(self.dataset, _key(field)) != identity:  # a run that goes on keeps its record
            run_records.record(self.dataset, _key(field), identity, method=_METHOD)

    def _check_former(self, identity: Mapping[str, Any], overwrite: bool, left: Sequence[tuple[str, str]]) -> None:
        """Refuses to mix what several chat models have said.

        Args:
            identity: of the chat model and the prompts
            overwrite: whether the objects that are asked about get new descriptions
            left: the objects of these samples that keep theirs, each with the reason
        """
        field = self.wanted.field
        former = run_records.recorded(self.dataset, _key(field))
        if former is None or former == dict(identity):
            return
        others = self.dataset.exclude(self.samples.values("id")) if overwrite else self.dataset
        if not left and not count_records(others, field):
            return
        different = sorted(name for name in {*former, *identity} if former.get(name) != identity.get(name))
        changes = ", ".join(f"{name} was {former.get(name)!r} and is {identity.get(name)!r}" for name in different)
        problem = f"objects of 'frames.{field}' were described in another way ({changes}), and one field is for one"
        if not overwrite:
            way_out = "pass overwrite=True to describe them anew"
        elif left:
            (which, why), *_ = left
            problem, way_out = f"{problem}, but {which} would keep its description", why
        else:
            way_out = "overwrite the whole dataset"
        raise FieldExistsError(f"{problem}: {way_out}, or go on with the former settings")

    def save(self, report: DescriptionReport) -> None:
        """Stores the outcome of the latest call, failures included."""
        key = _key(report.field)
        self.dataset.save_run_results(key, self.dataset.init_run_results(key, **asdict(report)), overwrite=True)

    def execute(self, report: DescriptionReport, progress: Callable[[Progress], None] | None) -> None:
        """Describes the objects of one video after another."""
        ids, paths = self.samples.values(["id", "filepath"])

        def tell(number: int, share: float) -> None:
            if progress is not None:
                progress(Progress(number, len(ids), (number - 1 + share) / len(ids)))

        for number, (sample_id, path) in enumerate(zip(ids, paths, strict=True), start=1):
            report.num_videos += 1
            try:
                video = _Video(self, sample_id)
            except Exception as error:  # whatever it is, the other videos go on
                logger.debug("%s failed", path, exc_info=True)
                report.failures.append(DescriptionFailure(sample_id, path, None, describe(error)))
                continue
            for position, track in enumerate(video.tracks):
                tell(number, position / len(video.tracks))
                video.describe(track, report)
            report.num_repeated += video.num_repeated
        if ids:
            tell(len(ids), 1.0)


class _Video:
    """The objects of one video that are to be described."""

    def __init__(self, run: DescriptionRun, sample_id: str) -> None:
        self.run = run
        self.wanted = wanted = run.wanted
        self.sample = run.dataset[sample_id]
        source = frame_source(self.sample)
        tracks = read_objects(self.sample, wanted.field, source.size)
        _check_ids(tracks, wanted.field)
        if number_objects(self.sample, wanted.field):
            tracks = read_objects(self.sample, wanted.field, source.size)
        self.known = known = Known.of(run.samples, self.sample, wanted)
        self.tracks = [
            track
            for track in tracks
            if known.why_left_out(str(track.object_id), track.expression_ids, wanted) is None
        ]
        frames = tracks[0].masklet.frames if tracks else ()  # the annotated ones, of all objects
        self.pictures = VideoPictures(source, frames, wanted.num_frames)
        self.texts: list[str] = []

    def describe(self, track: ObjectTrack, report: DescriptionReport) -> None:
        """Describes one object, and accounts for it."""
        object_id = str(track.object_id)
        record = self.known.records.get(object_id, ObjectRecord(object_id, "pending"))
        answers = [StepAnswer(**answer) for answer in record.answers]
        if self._is_done(record, answers):
            report.num_skipped += 1
            return
        try:
            for answer in self._ask(track, answers):
                answers.append(answer)
            self._keep(track, dataclasses.replace(record, state="pending", answers=_plain(answers), error=None))
            written = self._write(track, answers, anew=record.anew)
        except BaseException as error:  # whatever it is, what was answered is not asked again
            reason = describe(error) if isinstance(error, Exception) else type(error).__name__
            self._keep(track, dataclasses.replace(record, state="failed", answers=_plain(answers), error=reason))
            if not isinstance(error, Exception):
                raise
            logger.debug("object %s of %s failed", object_id, self.sample.filepath, exc_info=True)
            report.failures.append(DescriptionFailure(self.sample.id, self.sample.filepath, object_id, reason))
            return
        state: State = "rejected" if is_rejected(answers) else "described"
        self._keep(track, ObjectRecord(object_id, state, _plain(answers), written))
        report.num_rejected += state == "rejected"
        report.num_objects += bool(written)
        report.num_expressions += len(written)

    def _is_done(self, record: ObjectRecord, answers: Sequence[StepAnswer]) -> bool:
        if record.state == "described":
            stages = self.wanted.stages
            return record.expressions.keys() >= {*stages} and not missing_steps(stages[-1], answers)
        return record.state == "rejected"

    def _ask(self, track: ObjectTrack, answers: Sequence[StepAnswer]) -> Iterator[StepAnswer]:
        """Asks what is not known; an object of which all is known needs no pictures."""
        until, attempts = self.wanted.stages[-1], self.wanted.attempts
        if missing_steps(until, answers):
            pictures = ObjectPictures(self.pictures, track.masklet)
            known = tuple(answers)
            chat, prompts = self.run.chat, self.run.prompts
            yield from ask_steps(chat, prompts, pictures, until=until, known=known, attempts=attempts)

    def _write(self, track: ObjectTrack, answers: Sequence[StepAnswer], *, anew: bool) -> dict[str, str]:
        """Writes the expressions of an object, `anew` also where the answers are the former ones, then what its masks
        say; returns their ids by stage."""
        object_id = str(track.object_id)
        texts = descriptions(answers)
        former = self.known.generated.get(object_id, {})
        verdict = next((answer.verdict for answer in answers if answer.verdict is not None), None)
        expressions = [
            GeneratedExpression(stage, texts[stage], verdict, _plain(answers_until(stage, answers)))
            for stage in STAGES
            if stage in texts and (stage in self.wanted.stages or stage in former)
        ]
        written = write_generated(
            self.sample,
            self.wanted.field,
            object_id,
            expressions,
            frames=_visible(track),
            anew=anew,
            expressions_field=self.wanted.expressions_field,
        )
        named = {expression.id: expression.text for expression in written.values()}
        dropped = self.known.own_ids(object_id) - named.keys()
        if named or dropped:
            name_masks(self.sample, self.wanted.field, object_id, named, dropped)
        self.texts += named.values()
        return {stage: expression.id for stage, expression in written.items()}

    def _keep(self, track: ObjectTrack, record: ObjectRecord) -> None:
        write_record(self.sample, self.wanted.field, record, frames=_visible(track))

    @property
    def num_repeated(self) -> int:
        """How many of the new expressions say the same as another one of them."""
        return len(self.texts) - len(set(self.texts))


def _key(field: str) -> str:
    """The key under which `dataset.get_run_info` finds the run that described the objects of a field."""
    return f"describe_{field}"


def _check_videos(samples: fo.Dataset | fo.DatasetView) -> None:
    """Raises a FieldError for anything but whole videos."""
    if samples.media_type != "video" or samples._is_clips or samples._dataset._is_generated:
        kind = "clips" if samples._is_clips else f"{samples.media_type or 'no'} samples"
        raise FieldError(
            f"objects of whole videos can be described, but {samples.name or 'this view'!r} holds {kind}: pass the "
            "video dataset, or a view of its samples"
        )


def _visible(track: ObjectTrack) -> list[int]:
    """The frames, from 0, that show an object."""
    return [frame for frame, found in zip(track.masklet.frames, track.masklet.found, strict=True) if found]


def _plain(answers: Iterable[StepAnswer]) -> tuple[dict[str, Any], ...]:
    return tuple(asdict(answer) for answer in answers)


def _check_ids(tracks: Sequence[ObjectTrack], field: str) -> None:
    """Raises a FieldError where an object id, or what stands for it, is that of several objects."""
    twice = [identity for identity, times in Counter(track.identity for track in tracks).items() if times > 1]
    if twice:
        kind, value = twice[0]
        raise FieldError(
            f"'frames.{field}' has several objects with the {kind} {value!r}, as masklets of models have, where "
            "every expression counts its own: give every object of the video an id of its own"
        )
