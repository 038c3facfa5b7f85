"""MLLMSeg over images: what is shared, that answers do not depend on each other, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.mllmseg.decoder import CrossAttention, MaskDecoder
from fiftyone_refvos.models.mllmseg.inference import ImageResult, box_of, probabilities_at_size
from fiftyone_refvos.models.mllmseg.prompt import normalise
from tests.small_mllmseg import golden_image, golden_segmenter, noise_image

CARS = Expression("a", "all the red cars")
MAN = Expression("b", "Man near blue box.")
HORSE = Expression("c", "green horse")
PLANE = Expression("d", "small plane on top")
ALL = [CARS, MAN, HORSE, PLANE]


def assert_alike(result: ImageResult, other: ImageResult) -> None:
    assert (result.expression, result.found) == (other.expression, other.found)
    assert (result.unrejected != other.unrejected).mean() <= 2 / 75_000
    assert result.margin == pytest.approx(other.margin, abs=1e-3)


def test_single_answers_do_not_depend_on_the_other_expressions() -> None:
    segmenter, image = golden_segmenter(), golden_image()
    together = list(segmenter.segment_image(image, ALL))
    assert [result.expression for result in together] == ALL
    for result in together:
        (alone,) = segmenter.segment_image(image, [result.expression])
        assert_alike(result, alone)


def test_joint_answers_depend_on_what_was_asked_before() -> None:
    segmenter, image = golden_segmenter(prompting="joint"), golden_image()
    together = list(segmenter.segment_image(image, ALL))
    (alone,) = segmenter.segment_image(image, [PLANE])
    assert [result.found for result in together] == [True, False, False, True]
    assert alone.margin != pytest.approx(together[3].margin, abs=1e-2)
    (single,) = golden_segmenter().segment_image(image, [PLANE])
    assert_alike(alone, single)  # a joint prompt about one expression is a single one


@pytest.mark.parametrize("prompting", ["single", "joint"])
def test_batches_of_expressions_do_not_change_the_answers(prompting: str) -> None:
    image = golden_image()
    many = golden_segmenter(prompting=prompting).segment_image(image, ALL)
    few = golden_segmenter(prompting=prompting, expression_batch=3).segment_image(image, ALL)
    for result, other in zip(many, few, strict=True):
        assert_alike(result, other)


def test_image_runs_once_however_many_expressions(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = golden_segmenter(expression_batch=2)
    network = segmenter.network
    calls: list[tuple[str, int]] = []
    hooks = [
        module.register_forward_hook(lambda module, args, output, name=name: calls.append((name, 1)))
        for name, module in (
            ("vision tower", network.internvl.model.vision_tower),
            ("upsampler", network.mask_decoder.upsample_adapter_l),
            ("image attention", network.mask_decoder.ca_layer_v2l),
            ("self-attention", network.mask_decoder.ca_layer_vl.decoder.layers[0].self_attn),
            ("language model", network.language_model),
            ("last convolution", network.mask_decoder.conv2),
        )
    ]
    try:
        list(segmenter.segment_image(golden_image(), ALL))
    finally:
        for hook in hooks:
            hook.remove()
    counts = {name: sum(1 for other, _ in calls if other == name) for name, _ in calls}
    once = ("vision tower", "upsampler", "image attention", "self-attention")
    assert counts == {**dict.fromkeys(once, 1), "language model": 3, "last convolution": 2}


def test_rejected_expression_has_an_empty_mask_and_keeps_the_unused_one() -> None:
    results = list(golden_segmenter(prompting="joint").segment_image(golden_image(), ALL))
    rejected = results[1]
    assert (rejected.found, rejected.mask.sum(), rejected.score, rejected.box) == (False, 0, 0.0, None)
    assert rejected.margin < 0
    assert rejected.unrejected.sum() > 0
    found = results[0]
    assert np.array_equal(found.mask, found.unrejected)
    assert 0.5 <= found.score <= 1
    rows, columns = np.nonzero(found.mask)
    assert found.box == (columns.min(), rows.min(), columns.max(), rows.max())


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (300, 3), (1080, 1920)])
def test_any_size_of_image_gives_masks_of_that_size(size: tuple[int, int]) -> None:
    (result,) = golden_segmenter().segment_image(noise_image(*size), [CARS])
    assert result.mask.shape == size
    assert result.mask.dtype == bool


def test_many_expressions_and_none_are_results() -> None:
    segmenter = golden_segmenter(expression_batch=64)
    many = [Expression(str(number), f"dog {number}") for number in range(200)]
    ids = [result.expression.id for result in segmenter.segment_image(noise_image(20, 30), many)]
    assert ids == [str(number) for number in range(200)]
    assert list(segmenter.segment_image(noise_image(20, 30), [])) == []


def test_expressions_that_begin_alike_or_are_equal_share_their_beginning() -> None:
    segmenter, image = golden_segmenter(), golden_image()
    alike = [Expression("1", "red"), Expression("2", "red car"), Expression("3", "red")]
    first, second, third = segmenter.segment_image(image, alike)
    assert first.margin == pytest.approx(third.margin, abs=1e-4)
    (alone,) = segmenter.segment_image(image, [alike[1]])
    assert_alike(second, alone)


@pytest.mark.parametrize("image", [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 4), np.uint8), np.zeros((4, 5, 3))])
def test_images_of_another_form_are_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="an image must be RGB"):
        golden_segmenter().segment_image(image, [CARS])


@pytest.mark.parametrize("text", ["", "  ", ".", " ...", ". "])
def test_empty_expressions_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expression 'x' is empty"):
        golden_segmenter().check(Expression("x", text))


@pytest.mark.parametrize(
    "text", ["a [SEG]", "the [rej] one", "<img>", "x<IMG_CONTEXT>", "<image>", "</s>", "<|im_end|>"]
)
def test_reserved_tokens_are_refused(text: str) -> None:
    for case in ("gres_internlm2", "res_qwen2"):
        if text == "</s>" and case == "res_qwen2":
            continue  # plain text to Qwen2
        with pytest.raises(ValueError, match="stands for a special token of the model"):
            golden_segmenter(case).check(Expression("x", text))


def test_prompts_longer_than_the_model_knows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = golden_segmenter(prompting="joint")
    monkeypatch.setattr(segmenter.prompts, "max_length", 420)
    with pytest.raises(ValueError, match="expression 'x' is too long: 600 characters"):
        segmenter.check(Expression("x", "ab " * 200))
    many = [Expression(str(number), "red dog on top") for number in range(12)]
    with pytest.raises(ValueError, match="12 expressions in one prompt make .* ask with prompting='single'"):
        segmenter.segment_image(golden_image(), many)


def test_any_language_is_taken() -> None:
    (result,) = golden_segmenter().segment_image(golden_image(), [Expression("x", "左边的狗 😀 naïve")])
    assert result.mask.shape == (150, 300)


def test_expressions_are_lower_cased_and_lose_full_stops() -> None:
    assert [normalise(text) for text in (" The Red box. ", "two dogs..", "No. 5")] == [
        "the red box",
        "two dogs",
        "no. 5",
    ]


def test_identity_has_the_prompting_and_no_batch_size() -> None:
    assert golden_segmenter(prompting="joint", expression_batch=3).identity == {
        "prompting": "joint",
        "rejected": "empty",
    }


def test_short_cut_of_one_key_equals_the_stock_layer() -> None:
    torch.manual_seed(0)
    layer = CrossAttention(16).eval()
    queries, memory = torch.randn(1, 9, 16), torch.randn(3, 16)
    with torch.no_grad():
        expected = layer(queries.expand(3, -1, -1), memory[:, None])
        torch.testing.assert_close(layer.finish(layer.attend(queries), memory), expected, atol=1e-5, rtol=0)


def test_decoder_in_a_training_gives_the_masks_of_inference_but_for_dropout_and_statistics() -> None:
    torch.manual_seed(0)
    decoder = MaskDecoder(16, 24, 14)
    for module in decoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    arguments = torch.randn(16, 16), torch.randn(4, 24), (4, 4), torch.randn(2, 24)
    trained = decoder(*arguments)
    assert trained.requires_grad
    # the statistics of this very batch, as if it had been seen long enough
    norm = decoder.conv1[1]
    assert isinstance(norm, torch.nn.BatchNorm2d)
    norm.momentum = 1.0
    decoder(*arguments)
    assert norm.running_var is not None
    norm.running_var *= (2 * 16 - 1) / (2 * 16)  # running statistics are unbiased, those of a batch are not
    with torch.no_grad():
        torch.testing.assert_close(decoder.eval()(*arguments), trained, atol=1e-4, rtol=0)


def test_probabilities_are_resized_not_logits() -> None:
    logits = torch.tensor([[-20.0, 1.0]])
    resized = probabilities_at_size(logits, (1, 4))
    expected = torch.tensor([0.0, 0.25, 0.75, 1.0]) * torch.tensor(1.0).sigmoid()
    torch.testing.assert_close(resized[0], expected, atol=1e-6, rtol=0)
    assert (resized >= 0.5).sum() == 2
    assert probabilities_at_size(torch.zeros(0, 4, 4), (2, 3)).shape == (0, 2, 3)


def test_box_has_the_last_pixels_and_none_where_nothing_is_above_one_half() -> None:
    probabilities = torch.full((5, 7), 0.5)
    assert box_of(probabilities) is None
    probabilities[1:3, 2:6] = 0.51
    assert box_of(probabilities) == (2, 1, 5, 2)
