"""Chat about images and videos, grounded captions, captions of regions, and what boxes and points mark."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.sa2va.chat import DESCRIBE_IMAGE, DESCRIBE_REGION, Sa2vaChat
from fiftyone_refvos.models.sa2va.families import IMAGE, Turn
from fiftyone_refvos.models.sa2va.images import ask_about_image
from fiftyone_refvos.models.sa2va.inference import Sa2vaSegmenter
from fiftyone_refvos.models.sa2va.regions import GRID, Box, Points, Region, region_masks
from tests.scripted_sa2va import GROUNDED, scripted_sa2va
from tests.small import ArrayFrames, noise_video

BALL = "A red ball.<|im_end|>"
(PICTURE,) = noise_video(1, (48, 80)).frames


class Nothing(ArrayFrames):
    """A video without frames."""

    def __init__(self) -> None:
        super().__init__([])


def prompt_text(segmenter: Sa2vaSegmenter, ids: list[int]) -> str:
    """A prompt, in which each run of visual tokens is one "#"."""
    family = segmenter.family
    kept = [id_ for n, id_ in enumerate(ids) if id_ != family.image_id or ids[n - 1] != family.image_id]
    (mark,) = (family.tokenizer.decode([family.image_id]),)
    return family.tokenizer.decode(kept).replace(mark, "#")


def cells(mask: np.ndarray) -> np.ndarray:
    """What the network sees of a mask."""
    picture = torch.from_numpy(mask)[None, None].float()
    return torch.nn.functional.interpolate(picture, size=(GRID, GRID), mode="nearest")[0, 0].bool().numpy()


def test_image_chat_of_several_turns_repeats_what_was_said_and_shows_the_image_once() -> None:
    segmenter = scripted_sa2va(BALL, "It is red.<|im_end|>")
    chat = Sa2vaChat(segmenter)
    first = chat.about_image(PICTURE, "What is it?")
    assert (first.answer.text, first.answer.caption) == (BALL, "A red ball.")
    assert first.masks.shape == (0, 48, 80)
    history = [Turn("What is it?", first.answer.text)]
    second = chat.about_image(PICTURE, "Which colour?", history=history)
    assert second.answer.caption == "It is red."
    start = prompt_text(segmenter, first.answer.prompt)
    assert prompt_text(segmenter, second.answer.prompt) == (
        f"{start}{BALL}\n<|im_start|>user\nWhich colour?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert second.answer.prompt[: len(first.answer.prompt)] == first.answer.prompt
    cut_off = chat.about_image(PICTURE, "Which colour?", history=[Turn("What is it?", "A red ball.")])
    assert cut_off.answer.prompt == second.answer.prompt


@pytest.mark.parametrize("case", ["qwen2_5_vl_a", "qwen3_vl_a"])
def test_chat_of_the_qwen_families_is_written_by_their_template(case: str) -> None:
    segmenter = scripted_sa2va(BALL, case=case)
    chat = Sa2vaChat(segmenter)
    history = [Turn("What is it?", chat.about_image(PICTURE, "What is it?").answer.text)]
    answer = chat.about_image(PICTURE, "Which colour?", history=history).answer
    text = prompt_text(segmenter, answer.prompt)
    assert text.count("#") == 1
    assert text.endswith(
        "What is it?<|im_end|>\n<|im_start|>assistant\nA red ball.<|im_end|>\n"
        "<|im_start|>user\nWhich colour?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_chat_without_an_image_is_text_alone() -> None:
    segmenter = scripted_sa2va(BALL)
    answer = Sa2vaChat(segmenter).about_nothing("And then?", history=[Turn("Hello!", "Hi.")])
    assert prompt_text(segmenter, answer.prompt) == (
        "<|im_start|>user\nHello!<|im_end|>\n<|im_start|>assistant\nHi.<|im_end|>\n"
        "<|im_start|>user\nAnd then?<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_seg_token_of_an_earlier_answer_gives_no_mask() -> None:
    chat = Sa2vaChat(scripted_sa2va(BALL))
    answer = chat.about_image(PICTURE, "What is it?", history=[Turn("Where is it?", "It is [SEG].<|im_end|>")])
    assert len(answer.masks) == 0


def test_questions_that_cannot_be_asked_are_named() -> None:
    chat = Sa2vaChat(scripted_sa2va(BALL))
    with pytest.raises(ValueError, match="the question is empty"):
        chat.about_image(PICTURE, " ")
    with pytest.raises(ValueError, match=r"the question holds '\[SEG\]'"):
        chat.about_video(noise_video(2), "say [SEG]")
    with pytest.raises(ValueError, match="the question is too long: a prompt of"):
        chat.about_nothing("word " * 40_000)
    with pytest.raises(ValueError, match="has no frames"):
        chat.about_video(Nothing(), "What is it?")
    with pytest.raises(ValueError, match="the images of a chat come with its first question"):
        ask_about_image(chat._asker, PICTURE, f"{IMAGE}What?", history=[Turn("Hello!", "Hi.")])


def test_video_question_looks_at_the_first_frames_and_an_answer_without_seg_reads_no_other() -> None:
    segmenter = scripted_sa2va("A ball jumps.<|im_end|>")
    frames = noise_video(9)
    answer = Sa2vaChat(segmenter).about_video(frames, "What happens?")
    assert answer.answer.caption == "A ball jumps."
    assert answer.key_frames == (0, 1, 2, 3, 4)
    assert answer.masklets == []
    assert frames.reads == [0, 1, 2, 3, 4]
    assert prompt_text(segmenter, answer.answer.prompt).count("<img>#</img>\n") == 4  # "\n" between the frames
    spread = Sa2vaChat(scripted_sa2va("A ball.<|im_end|>", mode="uniform", key_frames=3))
    assert spread.about_video(noise_video(9), "What happens?").key_frames == (0, 4, 8)


def test_grounded_caption_of_an_image_has_a_mask_per_phrase() -> None:
    segmenter = scripted_sa2va(GROUNDED)
    answer = Sa2vaChat(segmenter).describe_image(PICTURE)
    assert answer.answer.caption == "A red ball and the object in this image."
    assert answer.answer.labels(otherwise="") == ["red ball", "the object"]
    assert answer.masks.shape == (2, 48, 80)
    assert (answer.masks[0] != answer.masks[1]).any()
    same = ask_about_image(segmenter.asker, PICTURE, DESCRIBE_IMAGE)
    assert (same.masks == answer.masks).all()


def test_grounded_caption_of_a_video_has_a_masklet_per_phrase() -> None:
    answer = Sa2vaChat(scripted_sa2va(GROUNDED)).describe_video(noise_video(7))
    assert [masklet.expression.text for masklet in answer.masklets] == ["red ball", "the object"]
    assert [masklet.frames for masklet in answer.masklets] == [tuple(range(7))] * 2


def test_question_of_referring_segmentation_gives_the_masklet_of_its_expression() -> None:
    segmenter = scripted_sa2va("Sure, [SEG].<|im_end|>")
    asked = Sa2vaChat(segmenter).about_video(noise_video(7), "\nPlease segment the ball.")
    (masklet,) = asked.masklets
    assert masklet.expression.text == "Please segment the ball."
    results = {each.frame: each for each in segmenter.segment(noise_video(7), [Expression("0", "the ball")])}
    assert any(result.masks.any() for result in results.values())
    for frame, masks in zip(masklet.frames, masklet.dense(), strict=True):
        assert (masks != results[frame].masks).mean() <= 5e-4


def test_regions_are_captioned_together_as_each_is_alone() -> None:
    segmenter = scripted_sa2va(BALL, expression_batch=2)
    regions: list[Region] = [Box(0, 0, 40, 20), Points(((60.0, 30.0),)), np.eye(48, 80, dtype=bool)]
    seen: list[int] = []
    hook = segmenter.network.mllm.model.vision_tower.register_forward_hook(lambda *_: seen.append(1))
    together = Sa2vaChat(segmenter).describe_regions(PICTURE, regions)
    hook.remove()
    assert len(seen) == 1
    assert [answer.caption for answer in together] == ["A red ball."] * 3
    for answer, mask in zip(together, region_masks(regions, (48, 80)), strict=True):
        alone = ask_about_image(segmenter.asker, PICTURE, DESCRIBE_REGION, regions=mask[None]).answer
        assert answer.prompt == alone.prompt
        assert torch.allclose(answer.generation.hidden, alone.generation.hidden, atol=1e-5)
    counts = [answer.prompt.count(segmenter.family.image_id) for answer in together]
    whole = segmenter.family.see_image(PICTURE).tokens.shape[0]
    assert [count - whole for count in counts] == [int(cells(mask).sum()) for mask in region_masks(regions, (48, 80))]
    assert not torch.allclose(together[0].generation.hidden, together[1].generation.hidden, atol=1e-3)
    assert Sa2vaChat(segmenter).describe_regions(PICTURE, []) == []


def test_regions_are_refused_in_families_that_know_none() -> None:
    chat = Sa2vaChat(scripted_sa2va(BALL, case="qwen3_vl_a"))
    with pytest.raises(ValueError, match="regions cannot be marked for qwen3_vl: only InternVL bases know them"):
        chat.describe_regions(PICTURE, [Box(0, 0, 9, 9)])
    with pytest.raises(ValueError, match="regions cannot be marked for qwen3_vl"):
        chat.about_image(PICTURE, "What is region1?", regions=[Box(0, 0, 9, 9)])


def test_boxes_are_filled_and_points_mark_the_cells_around_them() -> None:
    regions: list[Region] = [Box(10, 4, 30.4, 12), Points(((60, 30),)), Points(((0, 0),))]
    box, inside, corner = region_masks(regions, (48, 80))
    assert np.argwhere(box).min(0).tolist() == [4, 10]
    assert np.argwhere(box).max(0).tolist() == [11, 29]
    assert box.sum() == 8 * 20
    assert cells(inside).sum() == 9
    assert np.argwhere(cells(inside)).mean(0).tolist() == [10, 12]  # cells of 3 x 5 pixels
    assert np.argwhere(cells(corner)).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


@pytest.mark.parametrize("size", [(48, 80), (100, 201), (7, 12)])
def test_small_regions_are_seen_and_others_are_as_published(size: tuple[int, int]) -> None:
    height, width = size
    for y, x in [(0, 0), (height // 2 + 1, width // 3 + 1), (height - 1, width - 1)]:
        dot = np.zeros(size, dtype=bool)
        dot[y, x] = True
        (seen,) = region_masks([dot], size)
        assert cells(seen).sum() >= 1
        assert seen[y, x]
    large = np.zeros(size, dtype=bool)
    large[: height // 2] = True
    assert (region_masks([large], size)[0] == large).all()


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (Box(5, 5, 5, 9), "region 1 is no box: its edges left, top, right, bottom are"),
        (Box(float("nan"), 0, 1, 1), "region 1 is no box"),
        (Box(90, 0, 99, 9), r"region 1 is the box .*, outside of the image of 80x48 pixels"),
        (Points(()), "region 1 has no points"),
        (Points(((80, 1),)), r"the point \(80, 1\), outside of the image of 80x48"),
        (np.zeros((48, 80), dtype=bool), "region 1 is an empty mask"),
        (np.ones((4, 4), dtype=bool), r"region 1 is a mask of \(4, 4\), the image is \(48, 80\)"),
    ],
)
def test_regions_that_are_none_are_named(region, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        region_masks([region], (48, 80))
