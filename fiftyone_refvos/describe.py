"""Expressions for objects that have masks but no text, written by a chat model.

view -> per video its objects -> per object pictures, questions, answers -> expressions, the masks that say so, and a
record of every object, so that a second call asks only what is missing.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from fiftyone_refvos.describing.prompts import load_prompts
from fiftyone_refvos.describing.stages import STAGES, Stage
from fiftyone_refvos.segment import Progress

if TYPE_CHECKING:  # `import fiftyone` takes ten seconds, and `import fiftyone_refvos` should not
    import fiftyone as fo

    from fiftyone_refvos.describing.chat import ChatModel

logger = logging.getLogger(__name__)

Objects = Literal["unnamed", "all"]


@dataclass(frozen=True)
class DescriptionFailure:
    """An object without a description; what the chat model has said of it so far is in its record.

    Attributes:
        sample_id, filepath: of the video
        object_id: None where the whole video could not be read
        error: why
    """

    sample_id: str
    filepath: str
    object_id: str | None
    error: str


@dataclass
class DescriptionReport:
    """What `describe_objects` did.

    Attributes:
        field: the frame field with the masks
        num_videos: that were looked at
        num_objects: objects that got expressions
        num_expressions: expressions that were written
        num_rejected: objects whose descriptions contradict each other, and that got none
        num_skipped: objects that were done already
        num_repeated: expressions that say the same as another generated one of the same video
        failures: objects without description, each with its reason
        seconds: duration of the run
    """

    field: str
    num_videos: int = 0
    num_objects: int = 0
    num_expressions: int = 0
    num_rejected: int = 0
    num_skipped: int = 0
    num_repeated: int = 0
    failures: list[DescriptionFailure] = dataclasses.field(default_factory=list)
    seconds: float = 0.0

    def __str__(self) -> str:
        lines = [
            f"{self.num_expressions} expressions of {self.num_objects} objects in 'frames.{self.field}' of "
            f"{self.num_videos} videos written in {self.seconds:.0f} s; {self.num_rejected} objects rejected, "
            f"{self.num_skipped} were complete, {len(self.failures)} failed"
        ]
        if self.num_repeated:
            lines.append(f"  {self.num_repeated} expressions say the same as another one of their video")
        for each in self.failures:
            thing = "" if each.object_id is None else f", object {each.object_id!r}"
            lines.append(f"  failed: {each.filepath}{thing}: {each.error}")
        return "\n".join(lines)


def describe_objects(
    samples: fo.Dataset | fo.DatasetView,
    chat: ChatModel,
    *,
    field: str = "ground_truth",
    stages: Sequence[Stage] = ("video",),
    objects: Objects = "unnamed",
    prompts: Path | str | None = None,
    num_frames: int = 8,
    attempts: int = 3,
    expressions_field: str = "expressions",
    overwrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> DescriptionReport:
    """Lets a chat model write expressions for objects that have masks but no text.

    Each object is described alone and in the whole frame, where its mask is largest; a check compares both, and a
    conflict drops the object. Then it is described in its scene, outlined in that frame, and over the video, outlined
    in several frames. New expressions have the `kind` "generated", `object_ids`, `stage`, `verdict` and
    `stage_answers`; the masks of the object get their `expression_id`. `<field>_descriptions` keeps a record of every
    object. Resumable: only what is missing is asked.

    Args:
        samples: a video dataset, or a view; of a view that filters masks only their objects are described
        chat: who is asked, such as `ServerChat` or `TransformersChat`
        field: the frame field with the masks, without `frames.`
        stages: whose descriptions become expressions: any of "object", "scene" and "video". The stages before the
            last one are run in any case
        objects: "unnamed", those that no expression names, or "all"
        prompts: a file to use instead of the package's own prompts
        num_frames: how many frames of a video are shown at most
        attempts: how often a question is asked whose answer is of no use
        expressions_field: the sample field for the expressions
        overwrite: describe anew what is described already, of the objects that this call is about: those that the
            view shows, and with "unnamed" those that nobody else has named. All others keep what they have
        progress: called before every object, and at the end

    Raises:
        FieldError: for anything but whole videos, and fields of other types
        PromptError: for a file of prompts that cannot be used
        ValueError: for unknown stages, and numbers that are not positive
        FieldExistsError: if another chat model, or other prompts, described objects of this field; with `overwrite`
            if they described others than those that this call is about
    """
    from fiftyone_refvos.description_run import DescriptionRun
    from fiftyone_refvos.description_scope import Wanted

    if not stages or {*stages} - {*STAGES}:
        raise ValueError(f"stages is {tuple(stages)!r}, but has to name some of {', '.join(STAGES)}")
    if objects not in get_args(Objects):
        raise ValueError(f"objects is {objects!r}, but has to be 'unnamed' or 'all'")
    if num_frames < 1 or attempts < 1:
        raise ValueError(f"num_frames ({num_frames}) and attempts ({attempts}) must be positive")
    wanted = Wanted(
        field=field,
        expressions_field=expressions_field,
        stages=tuple(stage for stage in STAGES if stage in stages),
        objects=objects,
        num_frames=num_frames,
        attempts=attempts,
    )
    run = DescriptionRun(samples, chat, load_prompts(prompts), wanted)
    run.prepare(overwrite=overwrite)
    report = DescriptionReport(field)
    start = time.monotonic()
    try:
        run.execute(report, progress)
    finally:  # also after an interruption: what was written stays, and is accounted for
        report.seconds = time.monotonic() - start
        run.save(report)
    if report.failures:
        logger.warning("%s", report)
    return report
