"""Prompts, pictures and stages of a description, without FiftyOne."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from fiftyone_refvos.describing import ChatError, PromptError, StepAnswer, load_prompts
from fiftyone_refvos.describing.pictures import GREY, YELLOW, ObjectPictures, VideoPictures, outline
from fiftyone_refvos.describing.prompts import OWN
from fiftyone_refvos.describing.stages import ask_steps, clean, descriptions
from tests.chats import RuleChat, agreeing
from tests.fields_data import masklet
from tests.small import ArrayFrames

H, W, T = 60, 80, 20


def pictures(count: int = 8) -> ObjectPictures:
    """A square that moves right, is largest in frame 7, and hidden in frames 10 to 12."""
    masks = np.zeros((T, 1, H, W), dtype=bool)
    frames = np.zeros((T, H, W, 3), dtype=np.uint8)
    for t in range(T):
        frames[t] = 10 * t
        if not 10 <= t <= 12:
            side = 12 if t == 7 else 10
            masks[t, 0, 20 : 20 + side, 3 * t : 3 * t + side] = True
        frames[t][masks[t, 0]] = (200, 0, 0)
    found = masklet(masks)
    return ObjectPictures(VideoPictures(ArrayFrames(frames), found.frames, count), found)


def test_the_cut_out_shows_the_object_alone_where_it_is_largest() -> None:
    made = pictures()
    assert made.best_frame == 7
    assert (made.full[0, 0] == 70).all()
    assert made.crop.shape == (224, 224, 3)  # 12 pixels and 2 around them, enlarged
    assert (made.crop[0] == GREY).all()
    assert (made.crop[112, 112] == (200, 0, 0)).all()
    assert (
        made.place
        == "from 26 % to 41 % of its width, from the left, and from 33 % to 53 % of its height, from the top"
    )


def test_outlines_lie_around_the_object() -> None:
    made = pictures()
    yellow = (made.outlined == YELLOW).all(axis=-1)
    assert yellow.sum() == 14 * 14 - 12 * 12
    assert (made.outlined[20:32, 21:33] == (200, 0, 0)).all()
    assert (made.outlined[~yellow] == made.full[~yellow]).all()
    one = np.zeros((H, W), dtype=bool)
    one[0, 0] = True  # at the border
    assert (outline(made.full, one) == YELLOW).all(axis=-1).sum() == 3


def test_the_video_is_shown_in_eight_frames_from_the_first_to_the_last() -> None:
    shown = pictures().video
    assert [int(frame[0, 0, 0]) // 10 for frame in shown] == [0, 2, 5, 8, 10, 13, 16, 19]
    outlined = [bool((frame == YELLOW).all(axis=-1).any()) for frame in shown]
    assert outlined == [True, True, True, True, False, True, True, True]
    assert len(pictures(3).video) == 3


def test_an_object_without_a_pixel() -> None:
    empty = masklet(np.zeros((2, 1, H, W), dtype=bool))
    with pytest.raises(ValueError, match="no pixel in any frame"):
        ObjectPictures(VideoPictures(ArrayFrames([np.zeros((H, W, 3), np.uint8)] * 2), (0, 1), 8), empty)


def test_every_step_gets_its_pictures_and_what_was_said_before() -> None:
    chat = agreeing(full='"A disc, which is red."')
    answers = list(ask_steps(chat, load_prompts(), pictures(), until="video"))
    assert chat.steps == ["crop", "full", "check", "scene", "video"]
    assert [len(images) for _, images, _ in chat.asked] == [1, 1, 0, 1, 8]
    questions = {step: text for step, _, text in chat.asked}
    assert "from 26 % to 41 % of its width" in questions["full"]
    assert "First: a red disc\nSecond: A disc, which is red.\n" in questions["check"]
    assert "a red disc" in questions["scene"]
    assert "These 8 pictures" in questions["video"]
    assert "the red disc left of the tree" in questions["video"]
    assert answers[1] == StepAnswer("full", "refvos-en/full", '"A disc, which is red."')
    assert answers[2].verdict == "consistent"
    assert descriptions(answers) == {
        "object": "a red disc",
        "scene": "the red disc left of the tree",
        "video": "the red disc that rolls to the tree",
    }
    assert descriptions(answers[:4]).keys() == {"object", "scene"}
    assert descriptions(answers[:2]) == {}  # not checked yet


def test_a_conflict_ends_it() -> None:
    chat = agreeing(check="**Conflict**: one is a dog.")
    answers = list(ask_steps(chat, load_prompts(), pictures(), until="video"))
    assert chat.steps == ["crop", "full", "check"]
    assert answers[-1].verdict == "conflict"
    assert descriptions(answers) == {}
    assert list(ask_steps(chat, load_prompts(), pictures(), until="video", known=answers)) == []


def test_what_is_known_is_not_asked_again() -> None:
    prompts, chat = load_prompts(), agreeing()
    known = list(ask_steps(chat, prompts, pictures(), until="object"))
    more = list(ask_steps(chat, prompts, pictures(), until="scene", known=known))
    assert [answer.step for answer in more] == ["scene"]
    assert chat.steps == ["crop", "full", "check", "scene"]


def test_answers_of_no_use_are_asked_for_again_with_a_bound() -> None:
    answers = iter(["", "<think>hm", "a red disc"])
    chat = agreeing(crop=lambda images: next(answers))
    (found, *_) = ask_steps(chat, load_prompts(), pictures(), until="object")
    assert (found.answer, chat.steps.count("crop")) == ("a red disc", 3)
    chat = agreeing(check="It is inconsistent, or not.")
    with pytest.raises(ChatError, match="begins with CONSISTENT or CONFLICT in 2 attempts.*It is inconsistent"):
        list(ask_steps(chat, load_prompts(), pictures(), until="object", attempts=2))
    assert chat.steps.count("check") == 2


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("  the dog\n that runs ", "the dog that runs"),
        ("<think>a cat?\nno</think>\n“the dog”", "the dog"),
        ('"the dog" and "the cat"', '"the dog" and "the cat"'),
        ("<think>cut off", ""),
        ("a cat? no\n</think>\n\nthe dog", "the dog"),
        ("<think>a cat?</think> or\n</think> the dog <think>or", "the dog"),
    ],
)
def test_clean(answer, text) -> None:
    assert clean(answer) == text


def changed(tmp_path: Path, **steps: str | None) -> Path:
    content = yaml.safe_load(OWN.read_text(encoding="utf-8"))
    content["name"] = "mine"
    content["steps"] |= steps
    content["steps"] = {step: text for step, text in content["steps"].items() if text is not None}
    path = tmp_path / "prompts.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def test_prompts_of_a_file_of_ones_own(tmp_path) -> None:
    path = changed(tmp_path, crop="Was ist das? Es kostet $$1.")
    prompts = load_prompts(path)
    assert prompts.fill("crop", {}) == "Was ist das? Es kostet $1."
    assert prompts.name_of("crop") == "mine/crop"
    assert prompts.identity["prompts_sha256"] != load_prompts().identity["prompts_sha256"]
    answers = list(ask_steps(RuleAll(), prompts, pictures(), until="object"))
    assert answers[0].prompt == "mine/crop"


class RuleAll(RuleChat):
    """Says the same to everything."""

    def __init__(self) -> None:
        super().__init__({})

    def ask(self, images, text) -> str:
        return "consistent"


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ({"check": "Is $crop right?"}, "'check' does not use \\$full"),
        ({"scene": "Where is $object in $video?"}, "'scene' uses \\$video, but can be given \\$object, \\$place"),
        ({"crop": "This costs $ 5"}, "'crop' has a \\$ that begins no name"),
        ({"crop": " "}, "'crop' has to be text"),
        ({"crop": None}, "'steps' has to hold check, crop, full, scene, video, but holds"),
        ({"more": "?"}, "'steps' has to hold"),
    ],
)
def test_prompts_that_cannot_be_used(tmp_path, steps, message) -> None:
    with pytest.raises(PromptError, match=f"prompts.yaml: .*{message}"):
        load_prompts(changed(tmp_path, **steps))


def test_files_that_hold_no_prompts(tmp_path) -> None:
    with pytest.raises(PromptError, match="cannot be read as prompts"):
        load_prompts(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(PromptError, match="the file has to hold name, steps, verdicts, but holds \\[1\\]"):
        load_prompts(tmp_path / "list.yaml")
