"""The stages: which questions are asked of an object, in which order, and what its description is in the end."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from fiftyone_refvos.describing.chat import ChatError, ChatModel, excerpt
from fiftyone_refvos.describing.pictures import ObjectPictures
from fiftyone_refvos.describing.prompts import CHECK, CONFLICT, Prompts
from fiftyone_refvos.video import Frame

Stage = Literal["object", "scene", "video"]
STAGES: tuple[Stage, ...] = get_args(Stage)

# The steps of each stage; the last stages have one.
_STEPS: dict[Stage, tuple[str, ...]] = {"object": ("crop", "full", CHECK), "scene": ("scene",), "video": ("video",)}
# The step whose answer is the description of a stage, once the object is checked.
_TEXT: dict[Stage, str] = {"object": "crop", "scene": "scene", "video": "video"}
_IMAGES: dict[str, Callable[[ObjectPictures], Sequence[Frame]]] = {
    "crop": lambda pictures: [pictures.crop],
    "full": lambda pictures: [pictures.full],
    CHECK: lambda pictures: [],
    "scene": lambda pictures: [pictures.outlined],
    "video": lambda pictures: pictures.video,
}

_REASONING_END = "</think>"  # of what some models think aloud; templates often open it in the question
_CUT_OFF = re.compile(r"<think>.*", re.DOTALL)


@dataclass(frozen=True)
class StepAnswer:
    """What a chat model has said in one step.

    Attributes:
        step: "crop", "full", "check", "scene" or "video"
        prompt: the name of the question
        answer: as it came
        verdict: of the check "consistent" or "conflict", else None
    """

    step: str
    prompt: str
    answer: str
    verdict: str | None = None


def ask_steps(
    chat: ChatModel,
    prompts: Prompts,
    pictures: ObjectPictures,
    *,
    until: Stage,
    known: Iterable[StepAnswer] = (),
    attempts: int = 3,
) -> Iterator[StepAnswer]:
    """Asks what is not known yet, and yields every new answer at once; a conflict ends it.

    Args:
        chat: who is asked
        prompts: the questions
        pictures: of the object
        until: the last stage
        known: answers of an earlier call, to questions of the same prompts
        attempts: how often a question is asked whose answer is empty, or a check without a verdict

    Raises:
        ChatError: if a question has no answer that can be used
    """
    answers = {answer.step: answer for answer in known}
    for step in _steps(until):
        if step not in answers:
            images = _IMAGES[step](pictures)
            values = {"place": pictures.place, "count": str(len(images)), **_filled(answers)}
            answers[step] = _ask(chat, prompts, step, images, prompts.fill(step, values), attempts)
            yield answers[step]
        if answers[step].verdict == CONFLICT:
            return


def missing_steps(until: Stage, known: Iterable[StepAnswer]) -> bool:
    """Whether there is anything left to ask up to a stage."""
    answers = list(known)
    return not is_rejected(answers) and not {answer.step for answer in answers}.issuperset(_steps(until))


def is_rejected(answers: Iterable[StepAnswer]) -> bool:
    """Whether the check found a conflict, so that there is no description."""
    return any(answer.verdict == CONFLICT for answer in answers)


def descriptions(answers: Iterable[StepAnswer]) -> dict[Stage, str]:
    """The description of every stage that is complete; none of a rejected object."""
    given = {answer.step: answer for answer in answers}
    if is_rejected(given.values()):
        return {}
    return {stage: clean(given[_TEXT[stage]].answer) for stage in STAGES if given.keys() >= {*_steps(stage)}}


def answers_until(stage: Stage, answers: Iterable[StepAnswer]) -> list[StepAnswer]:
    """The answers that the description of a stage rests on."""
    steps = _steps(stage)
    return [answer for answer in answers if answer.step in steps]


def last_stage(stages: Iterable[Stage]) -> Stage:
    """The one that is reached last."""
    return max(stages, key=STAGES.index)


def clean(answer: str) -> str:
    """What an answer says: without what the model thought aloud, line breaks, and quotes around all of it."""
    text = " ".join(_CUT_OFF.sub("", answer.rpartition(_REASONING_END)[2]).split())
    for first, last in ('""', "“”", "''"):
        if len(text) > 1 and text[0] == first and text[-1] == last and first not in text[1:-1]:
            text = text[1:-1].strip()
    return text


def _steps(until: Stage) -> list[str]:
    return [step for stage in STAGES[: STAGES.index(until) + 1] for step in _STEPS[stage]]


def _filled(answers: Mapping[str, StepAnswer]) -> dict[str, str]:
    """What questions may name of earlier answers."""
    texts = {step: clean(answer.answer) for step, answer in answers.items()}
    return texts | ({"object": texts["crop"]} if "crop" in texts else {})


def _ask(
    chat: ChatModel, prompts: Prompts, step: str, images: Sequence[Frame], question: str, attempts: int
) -> StepAnswer:
    answer = ""
    for _ in range(attempts):
        answer = chat.ask(images, question)
        text = clean(answer)
        verdict = prompts.verdict(text) if step == CHECK else None
        if text and (step != CHECK or verdict is not None):
            return StepAnswer(step, prompts.name_of(step), answer, verdict)
    needed = f" that begins with {' or '.join(prompts.words.values())}" if step == CHECK else ""
    raise ChatError(
        f"the question {prompts.name_of(step)!r} got no answer{needed} in {attempts} attempts; the last was "
        f"{excerpt(answer)}"
    )
