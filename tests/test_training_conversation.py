"""What the trainer asks and answers: wording, ids, labels, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.glus.prompt import PromptWriter
from fiftyone_refvos.models.llama_tokenizer import IMAGE_ID
from fiftyone_refvos.training.config import SamplingConfig
from fiftyone_refvos.training.conversation import ANSWERS, IGNORED, QUESTIONS, Round, draw_rounds
from tests.training_data import tokenizer, writer


def test_random_wording_draws_every_question_and_answer() -> None:
    rounds = draw_rounds(np.random.default_rng(0), 200, "random")
    assert {turn.question for turn in rounds} == set(QUESTIONS)
    assert {turn.answer for turn in rounds} == set(ANSWERS)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("context_frames", [0, 4])
def test_inference_wording_up_to_each_seg_is_the_prompt_of_inference(count: int, context_frames: int) -> None:
    sampling = SamplingConfig(wording="inference", context_frames=context_frames)
    rounds = draw_rounds(np.random.default_rng(0), 4, "inference")
    ours = writer(sampling).write("The Dog.", rounds, what="it")
    assert ours.open_answers
    hidden = [position - 1 for position in ours.seg_positions[: count - 1]]  # open answers of the rounds before
    prompt = [token for n, token in enumerate(ours.ids[: ours.seg_positions[count - 1]]) if n not in hidden]
    prompts = PromptWriter(tokenizer(), window=4, context_frames=context_frames, tokens_per_image=16, max_length=2048)
    assert prompt == prompts.write(Expression("0", "The Dog."), count).ids


def test_answers_are_labelled_and_each_round_has_one_seg() -> None:
    write = writer(SamplingConfig(query_frames=2, context_frames=1))
    turns = [Round(QUESTIONS[1], ANSWERS[0]), Round(QUESTIONS[2], ANSWERS[4])]
    conversation = write.write(" A dog. ", turns, what="it")
    assert conversation.text.endswith(
        "USER: <im_start><image><im_end>\nPlease finished the following tasks on the context frames above.\n"
        "<im_start><image><im_end>\nPlease segment the a dog. in this frame. ASSISTANT: It is [SEG].</s>"
        "USER: <im_start><image><im_end>\nWhat is a dog. in this frame? Please respond with segmentation mask. "
        "ASSISTANT: [SEG].</s>"
    )
    assert conversation.ids == write.tokenizer.encode(conversation.text)
    assert not conversation.open_answers
    labelled = [label for label in conversation.labels if label != IGNORED]
    encode = write.tokenizer.encode
    assert labelled == encode("It is [SEG].</s>")[1:] + encode("[SEG].</s>")[1:]
    assert [conversation.ids[position] for position in conversation.seg_positions] == [write.seg_id] * 2


def test_without_context_frames_there_is_no_context_sentence() -> None:
    conversation = writer(SamplingConfig(query_frames=1, context_frames=0)).write("a dog", [Round()], what="it")
    assert conversation.ids.count(IMAGE_ID) == 1
    assert "context" not in conversation.text


def test_expression_without_target_differs_only_in_the_labels_at_seg() -> None:
    write = writer(SamplingConfig(query_frames=2))
    turns = [Round(), Round()]
    there = write.write("a dog", turns, what="it")
    absent = write.write("a dog", turns, has_target=False, what="it")
    assert absent.ids == there.ids
    assert absent.seg_positions == there.seg_positions
    changed = [n for n, (a, b) in enumerate(zip(absent.labels, there.labels, strict=True)) if a != b]
    assert changed == there.seg_positions
    opened = write.tokenizer.encode("Sure, the segmentation result is")
    stand_in = write.tokenizer.encode("Sure, the segmentation result is empty")[len(opened)]
    assert {absent.labels[n] for n in changed} == {stand_in} == {write.no_target_id}
    assert write.no_target_id != write.seg_id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("the [seg] dog", r"it holds '\[SEG\]', which stands for a special token"),
        ("a <image>", "it holds '<image>'"),
        ("no</s>", "it holds '</s>'"),
        (" . ", None),
        (".", "it is empty"),
        ("", "it is empty"),
        ("dog " * 2000, "it is too long: its conversation has"),
    ],
)
def test_text_that_cannot_be_asked_is_refused(text: str, message: str | None) -> None:
    write = writer(SamplingConfig())
    if message is None:
        assert write.write(text, [Round()] * 4, what="it").seg_positions
        return
    with pytest.raises(ValueError, match=message):
        write.write(text, [Round()] * 4, what="it")
