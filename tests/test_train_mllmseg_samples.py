"""What a training of MLLMSeg draws, how it is worded, and the published recipe."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from fiftyone_refvos.training.config import SamplingConfig
from fiftyone_refvos.training.mllmseg.config import RECIPE_STEPS, MllmsegTrainingConfig
from fiftyone_refvos.training.mllmseg.sampling import ImageMixture, draw_expressions, recompressed
from fiftyone_refvos.training.mllmseg.sources import ImageExpression
from fiftyone_refvos.training.optimization import Optimization, learning_rate
from tests.mllmseg_runs import BOTH, CONFIG, DOG, NONE, SOURCE, MemoryImage, MemorySource, learner, writer_of
from tests.small_mllmseg import noise_image


def test_questions_are_in_lower_case_and_tied_answers_reject_what_is_not_there() -> None:
    writer, rng = writer_of(), np.random.default_rng(0)
    decode = writer.prompts.tokenizer.decode
    drawn = [writer.draw(rng, (DOG, NONE), what="it") for _ in range(200)]
    questions = Counter(decode(prompt.question).partition("<|im_end|>")[0].strip() for prompt in drawn)
    assert set(questions) == {
        "Can you segment the dog., no segway here in this image?",
        "Please segment the dog., no segway here in this image.",
        "What are the dog., no segway here in this image? Please respond with segmentation masks.",
        "What are the dog., no segway here in this image? Please output segmentation masks.",
    }
    answers = Counter(decode(prompt.answer) for prompt in drawn)
    assert set(answers) == {
        f"{answer}<|im_end|>\n"
        for answer in (
            "The segmentation results are The Dog. [SEG], no SEGWAY here [REJ].",
            "Sure, they are The Dog.:[SEG], no SEGWAY here:[REJ].",
            "Sure, the mask of The Dog. is [SEG], the mask of no SEGWAY here is [REJ].",
            "Sure, the segmentation of The Dog. is [SEG], the segmentation of no SEGWAY here is [REJ].",
            "Sure, the referred The Dog. is [SEG], the referred no SEGWAY here is [REJ].",
        )
    }
    assert min(questions.values()) > 30
    assert min(answers.values()) > 20
    assert all(len(prompt.decisions) == 2 for prompt in drawn)


def test_the_wording_of_inference_is_that_of_inference() -> None:
    writer = writer_of(wording="inference")
    written = writer.draw(np.random.default_rng(0), (DOG, NONE), what="it")
    assert written == writer.prompts.write(["the dog", "no segway here"], [False, True])


def test_texts_that_cannot_be_asked_are_named() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"expression '7' of image 'x' holds '\[SEG\]'"):
        writer_of().draw(rng, [ImageExpression("7", "a [seg]")], what="image 'x'")
    with pytest.raises(ValueError, match="the 2 expressions of image 'x' are too long: their conversation has"):
        writer_of(max_length=300).draw(rng, (DOG, NONE), what="image 'x'")


def test_expressions_are_drawn_once_each_and_at_most_five() -> None:
    many = [ImageExpression(str(n), f"thing {n}", has_target=n % 2 == 0) for n in range(8)]
    rng = np.random.default_rng(0)
    drawn = [draw_expressions(many, SamplingConfig(expressions=5, no_target=True), rng) for _ in range(100)]
    assert {len({each.id for each in some}) for some in drawn} == {5}
    assert {each.id for some in drawn for each in some} == {each.id for each in many}
    with_target = draw_expressions(many, SamplingConfig(expressions=5), rng)
    assert sorted(each.id for each in with_target) == ["0", "2", "4", "6"]


def test_sources_are_drawn_by_rate_and_images_without_a_drawn_target_never() -> None:
    config = replace(CONFIG, sampling=SamplingConfig(expressions=1, no_target=True))
    other = MemorySource((MemoryImage("c", (BOTH,)),), name="other")
    mixture = ImageMixture([SOURCE, other], [1.0, 3.0], writer_of(), config)
    rng = np.random.default_rng(0)
    samples = [mixture.draw(rng) for _ in range(300)]
    times = Counter(sample.id for sample in samples)
    assert set(times) == {"memory/a", "memory/b", "other/c"}
    # a draw of "memory/a" finds a target in two of three cases
    assert times["other/c"] / 300 == pytest.approx(0.75 / (0.75 + 0.125 + 0.125 * 2 / 3), abs=0.07)
    assert all(sample.masks.any() for sample in samples)
    nothing = MemorySource((MemoryImage("d", (NONE,)),))
    with pytest.raises(ValueError, match="none of 1000 images that were drawn has an expression with a target"):
        ImageMixture([nothing], [1.0], writer_of(), config).draw(rng)


def test_images_go_through_a_jpeg_of_drawn_quality() -> None:
    image = noise_image(30, 40)
    assert recompressed(image, 75).shape == image.shape
    errors = [np.abs(recompressed(image, quality).astype(int) - image).mean() for quality in (75, 90, 100)]
    assert errors[0] > errors[1] > errors[2] > 0
    rng = np.random.default_rng(0)
    kept = ImageMixture([SOURCE], [1.0], writer_of(), replace(CONFIG, jpeg_quality=None)).draw(rng).image
    assert np.array_equal(kept, image)
    mixture = ImageMixture([SOURCE], [1.0], writer_of(), CONFIG)
    drawn = {mixture.draw(rng).image.tobytes() for _ in range(60)}
    assert drawn <= {recompressed(image, quality).tobytes() for quality in range(75, 101)}
    assert len(drawn) > 15


def test_masks_of_another_size_than_the_image_are_named() -> None:
    source = MemorySource((MemoryImage("a", (DOG,), mask_size=(20, 40)),))
    with pytest.raises(ValueError, match=r"image 'memory/a' is 30x40 .* but the masks of 1 expressions are of shape"):
        ImageMixture([source], [1.0], writer_of(), CONFIG).draw(np.random.default_rng(0))


def test_samples_without_any_target_are_learnt_from_where_that_is_asked_for() -> None:
    source = MemorySource((MemoryImage("d", (NONE,)), MemoryImage("e", ()), MemoryImage("f", (DOG,))))
    mixture = ImageMixture([source], [1.0], writer_of(), replace(CONFIG, all_absent=True))
    rng = np.random.default_rng(0)
    drawn = [mixture.draw(rng) for _ in range(60)]
    assert {sample.id for sample in drawn} == {"memory/d", "memory/f"}  # an image about which nothing is said never
    assert {sample.masks.any() for sample in drawn if sample.id == "memory/d"} == {np.False_}


def test_the_published_lengths_warm_up_over_three_percent_and_follow_a_cosine() -> None:
    res, gres = (MllmsegTrainingConfig.of_length(RECIPE_STEPS[task]) for task in ("res", "gres"))
    assert res == MllmsegTrainingConfig()
    assert (gres.steps, gres.warmup_steps) == (20_000, 600)
    assert res.batch_size * res.accumulation == 32
    assert learning_rate(res, 0) == 0
    assert learning_rate(res, 750) == pytest.approx(2e-5)
    assert learning_rate(res, 1500) == pytest.approx(4e-5)
    assert learning_rate(res, 1500 + 48_500 // 2) == pytest.approx(2e-5)
    assert learning_rate(res, 1500 + 48_500 // 4) == pytest.approx(4e-5 * (1 + np.sqrt(0.5)) / 2)


def test_biases_and_layer_norms_do_not_decay() -> None:
    made = learner()
    decaying, kept = Optimization(made, CONFIG).optimizer.param_groups
    assert (decaying["weight_decay"], kept["weight_decay"]) == (0.05, 0.0)
    names = {id(parameter): name for name, parameter in made.network.named_parameters()}
    of_kept = {names[id(parameter)] for parameter in kept["params"]}
    norms = {name for name, each in made.network.named_modules() if isinstance(each, torch.nn.LayerNorm)}
    assert of_kept
    assert all(name.endswith("bias") or name.removesuffix(".weight") in norms for name in of_kept)
    assert not any("bias" in names[id(parameter)] for parameter in decaying["params"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trainable": "all_but_clip"}, "MLLMSeg has no CLIP"),
        ({"focal_weight": -1.0}, "focal_weight is -1.0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"jpeg_quality": (80, 70)}, r"jpeg_quality is \(80, 70\)"),
        ({"measure": "J&F"}, "measure is 'J&F'; choose one of"),
    ],
)
def test_wrong_configurations_are_named(values, message) -> None:
    with pytest.raises(ValueError, match=message):
        MllmsegTrainingConfig(**values)
