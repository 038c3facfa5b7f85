"""Training of MLLMSeg: what is drawn and how it is worded, the loop, and `rv.train_mllmseg` from a view."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fiftyone_refvos as rv
from fiftyone_refvos import fields
from fiftyone_refvos.cli import main
from fiftyone_refvos.fields import FieldError
from fiftyone_refvos.masklet import BoolArray, Expression
from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.internvl_tokenizer import ChatTokenizer, load_tokenizer
from fiftyone_refvos.models.mllmseg.config import MllmsegInference
from fiftyone_refvos.models.mllmseg.inference import MllmsegSegmenter
from fiftyone_refvos.models.mllmseg.loading import load_mllmseg
from fiftyone_refvos.models.mllmseg.network import MllmsegNetwork
from fiftyone_refvos.models.mllmseg.saving import save_checkpoint
from fiftyone_refvos.training.config import LoraConfig, LossConfig, SamplingConfig
from fiftyone_refvos.training.loop import run
from fiftyone_refvos.training.lora import merged_state
from fiftyone_refvos.training.mllmseg.config import RECIPE_STEPS, MllmsegTrainingConfig
from fiftyone_refvos.training.mllmseg.conversation import ImageConversationWriter
from fiftyone_refvos.training.mllmseg.learner import MllmsegLearner
from fiftyone_refvos.training.mllmseg.sampling import ImageMixture, draw_expressions, recompressed
from fiftyone_refvos.training.mllmseg.sources import ImageExpression
from fiftyone_refvos.training.mllmseg.views import ImageViewSource
from fiftyone_refvos.training.optimization import Optimization, learning_rate
from fiftyone_refvos.training.state import read_best, trained_tensors
from fiftyone_refvos.video import Frame
from tests.image_masks import SIZE, add_images, box
from tests.small_mllmseg import checkpoint_of, noise_image

CASE = "gres_internlm2"
CONFIG = MllmsegTrainingConfig(
    steps=2,
    batch_size=1,
    accumulation=1,
    warmup_steps=1,
    learning_rate=1e-3,
    gradient_checkpointing=False,
    lora=LoraConfig(rank=2, alpha=4),
)


@pytest.fixture(scope="module", autouse=True)
def cpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        yield


@dataclass(frozen=True)
class MemoryImage:
    """Noise with a box for each expression that has a target."""

    name: str
    expressions: tuple[ImageExpression, ...]
    mask_size: tuple[int, int] = (30, 40)

    def read(self) -> Frame:
        return noise_image(30, 40)

    def masks(self, expressions: Sequence[ImageExpression]) -> BoolArray:
        masks = np.zeros((len(expressions), *self.mask_size), dtype=bool)
        masks[[each.has_target for each in expressions], 5:20, 10:30] = True
        return masks


@dataclass(frozen=True)
class MemorySource:
    images: tuple[MemoryImage, ...]
    name: str = "memory"

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> MemoryImage:
        return self.images[index]


DOG, BOTH = ImageExpression("0", "The Dog."), ImageExpression("1", "Both animals")
NONE = ImageExpression("2", "no SEGWAY here", has_target=False)
SOURCE = MemorySource((MemoryImage("a", (DOG, BOTH, NONE)), MemoryImage("b", (DOG,))))


def tokenizer_of(case: str) -> ChatTokenizer:
    return load_tokenizer(checkpoint_of(case), "qwen2" if "qwen2" in case else "internlm2")


def writer_of(case: str = CASE, wording: Any = "random", max_length: int = 2048) -> ImageConversationWriter:
    return ImageConversationWriter(tokenizer_of(case), wording, tokens_per_image=256, max_length=max_length)


def learner(case: str = CASE, config: MllmsegTrainingConfig = CONFIG) -> MllmsegLearner:
    segmenter = load_mllmseg(checkpoint_of(case), device="cpu", dtype="float32")
    return MllmsegLearner(segmenter.network, segmenter.prompts.tokenizer, config, [SOURCE], [1.0])


def segmenter_of(made: MllmsegLearner, case: str) -> MllmsegSegmenter:
    """The network in training, as it is run."""
    network = made.network.eval().mllmseg
    assert isinstance(network, MllmsegNetwork)
    return MllmsegSegmenter(network, tokenizer_of(case), MllmsegInference())


# --- what is drawn ---


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


# --- the recipe ---


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


# --- the loop ---


def test_a_batch_follows_from_its_generator_alone() -> None:
    made = learner(config=replace(CONFIG, batch_size=2))
    first, again = (made.draw(np.random.default_rng(3)) for _ in range(2))
    assert made.sample_ids(first) == made.sample_ids(again)
    assert torch.equal(first.input_ids, again.input_ids)
    assert all(np.array_equal(a, b) for a, b in zip(first.images, again.images, strict=True))


def test_losses_are_weighted_and_every_parameter_can_train() -> None:
    still = replace(CONFIG, dropout=0.0, lora=None)
    everything = replace(still, trainable="all", losses=LossConfig(ce=0.5, dice=2.0), focal_weight=3.0)
    plain, weighted = learner(config=still), learner(config=everything)
    batch, rng = plain.draw(np.random.default_rng(1)), np.random.default_rng(0)
    losses, others = plain.losses(batch, rng), weighted.losses(batch, rng)
    for name, weight in (("ce", 0.5), ("dice", 2.0), ("focal", 3.0)):
        assert others[name].item() == pytest.approx(weight * losses[name].item(), rel=1e-4)
    others["total"].backward()
    gradients = {n: p.grad for n, p in weighted.network.named_parameters() if p.grad is not None}
    patches = next(each for name, each in gradients.items() if "patch_embeddings.projection" in name)
    assert patches.abs().sum() > 0
    assert not any("vision_tower" in name for name in trained_tensors(plain.network))


def test_a_resumed_run_ends_as_one_without_a_stop_statistics_included(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=3)
    whole, stopped, resumed = (learner(config=config) for _ in range(3))
    run(whole, config, tmp_path / "whole")
    answers = iter([False, True])
    outcome = run(stopped, config, tmp_path / "run", should_stop=lambda: next(answers))
    assert (outcome.steps, outcome.stopped_because) == (1, "should_stop")
    run(resumed, config, tmp_path / "run")
    expected, found = trained_tensors(whole.network), trained_tensors(resumed.network)
    assert expected.keys() == found.keys()
    assert sum("running_" in name for name in found) == 2
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    assert not all(torch.equal(tensor, found[name]) for name, tensor in trained_tensors(stopped.network).items())


@pytest.mark.parametrize("case", ["gres_internlm2", "res_qwen2"])
def test_the_merged_checkpoint_gives_what_the_trained_network_gives(case: str, tmp_path: Path) -> None:
    made = learner(case)
    run(made, CONFIG, tmp_path / "run")
    trained = segmenter_of(made, case)
    save_checkpoint(merged_state(trained.network), tmp_path / "merged", base=checkpoint_of(case))
    loaded = load_mllmseg(tmp_path / "merged", device="cpu", dtype="float32")
    before = load_mllmseg(checkpoint_of(case), device="cpu", dtype="float32")
    image, asked = noise_image(30, 40), [Expression("0", "the dog")]
    answers = [next(iter(each.answers(each.look(image), asked))) for each in (trained, loaded, before)]
    torch.testing.assert_close(answers[0].mask_logits, answers[1].mask_logits, atol=1e-4, rtol=0)
    assert answers[0].margin == pytest.approx(answers[1].margin, abs=1e-4)
    assert (answers[0].mask_logits - answers[2].mask_logits).abs().max() > 1e-3
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["use_llm_lora"] == 0


def test_bfloat16_holds_what_is_frozen_in_half_the_memory(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=1, precision="bf16")
    made = learner(config=config)
    kinds = {(each.requires_grad, each.dtype) for each in made.network.parameters()}
    assert kinds == {(True, torch.float32), (False, torch.bfloat16)}
    found: list[bool] = []

    def validate() -> float:
        (result,) = segmenter_of(made, CASE).segment_image(noise_image(30, 40), [Expression("0", "the dog")])
        found.append(result.unrejected.shape == (30, 40))
        return 0.5

    outcome = run(made, config, tmp_path, validate=validate)
    assert found == [True]
    assert all(np.isfinite(value) for value in outcome.losses.values())
    best = read_best(tmp_path / "best")
    assert best is not None
    assert best.value == 0.5


# --- rv.train_mllmseg ---


@pytest.fixture
def images(dataset, tmp_path):
    """Two images with six expressions, two of them without a target, and their true masks in `truth`."""
    add_images(dataset)
    for number, sample in enumerate(dataset):
        path = tmp_path / f"{number}.png"
        Image.fromarray(noise_image(*SIZE)).save(path)
        sample.filepath = str(path)
        sample.save()
    return dataset


def test_a_view_is_a_source_of_images_with_the_union_of_the_objects_of_an_expression(images) -> None:
    source = ImageViewSource(images, masks_field="truth", name="mine")
    assert str(source.report) == "6 expressions (2 without a target) of 2 images"
    image = source.image(0)
    assert (image.name, image.read().shape) == ("0", (*SIZE, 3))
    assert [(each.text, each.has_target) for each in image.expressions] == [
        ("the dog", True),
        ("both", True),
        ("no such thing", False),
    ]
    masks = image.masks(image.expressions[::-1])
    assert np.array_equal(masks, [np.zeros(SIZE), box(4) | box(30), box(4)])
    shown = fields.expressions.show_expressions(
        images, "expressions", [images.last().expressions.classifications[1].id]
    )
    with pytest.raises(FieldError, match=r"nothing to train on .* 1 images without an expression with a target"):
        ImageViewSource(shown, masks_field="truth")
    typed = images.first()
    fields.add_expressions(typed, "the moon")
    assert "left out: 1 expressions without true masks" in str(ImageViewSource(images, masks_field="truth").report)


def test_what_cannot_be_learnt_is_named(images) -> None:
    sample = images.last()
    with pytest.raises(FieldError, match=r"has no field 'ground_truth' with masklets, but in: truth, model"):
        ImageViewSource(images)
    with pytest.raises(FieldError, match="learns from whole images, but .* holds patches or frames"):
        ImageViewSource(images.to_patches("truth"), masks_field="truth")
    for text, message in (
        ("the cat", r"'0' \('the cat'\) .* has no mask in 'truth': draw one, set its no_target to True"),
        ("no cat", r"'1' \('no cat'\) .* is marked to have no target, but has masks in 'truth'"),
    ):
        stored = {each.expression_id: each for each in sample.truth.detections}
        kept = sample.truth.copy()
        label = next(each for each in sample.expressions.classifications if each.label == text)
        before = (label.object_ids, label.no_target)
        if text == "the cat":
            sample.truth.detections.remove(stored[label.expression_id])
        else:
            sample.truth.detections.append(stored["0"].copy())
            sample.truth.detections[-1].expression_id = label.expression_id
            label.object_ids = None
        sample.save()
        with pytest.raises(FieldError, match=rf"{sample.id}.*{message}"):
            ImageViewSource(images, masks_field="truth")
        sample.truth, (label.object_ids, label.no_target) = kept, before
        sample.save()
    sample.truth.detections[0].mask = np.ones((3, 3), dtype=bool)
    sample.save()
    with pytest.raises(FieldError, match=rf"{sample.id}.*'truth'"):
        ImageViewSource(images, masks_field="truth")


def test_videos_are_refused(dataset, tmp_path) -> None:
    import fiftyone as fo

    dataset.add_sample(fo.Sample(filepath="/videos/a.mp4"))
    with pytest.raises(FieldError, match="learns from whole images, but .* holds video samples"):
        rv.train_mllmseg(dataset, checkpoint_of(CASE), folder=tmp_path / "run", config=CONFIG)
    assert not (tmp_path / "run").exists()


def test_a_view_trains_a_checkpoint_that_loads_and_goes_on(images, tmp_path: Path, capsys) -> None:
    calls: list[int] = []
    options: dict[str, Any] = {"folder": tmp_path / "run", "masks_field": "truth", "validation_field": "truth"}
    trained = rv.train_mllmseg(
        {"mine": images, "memory": SOURCE},
        checkpoint_of(CASE),
        config=replace(CONFIG, batch_size=2),
        validation_view=images.limit(1),
        rates={"mine": 3, "memory": 1},
        progress=lambda progress: calls.append(progress.video),
        **options,
    )
    assert (trained.steps, trained.stopped_because, calls) == (2, "finished", [1, 2])
    assert set(trained.losses) == {"ce", "focal", "dice", "total"}
    assert trained.reports["memory"] == "2 images"
    assert "best validation: gIoU" in str(trained)
    segmenter = load_mllmseg(trained.checkpoint, device="cpu")
    hits = []  # what the validation measured is what the saved model does
    sample = images.first()
    expected = {"0": box(4), "1": box(4) | box(30), "2": None}
    (image,) = fields.frame_source(sample).read([0])
    for result in segmenter.segment_image(image, fields.read_expressions(sample)):
        true = expected[result.expression.id]
        if true is None or not result.found:
            hits.append(float(true is None and not result.found))
        else:
            hits.append((result.mask & true).sum() / (result.mask | true).sum())
    assert trained.validation == pytest.approx(np.mean(hits), abs=0.01)
    with pytest.raises(CheckpointError, match="holds another training"):
        rv.train_mllmseg(images, checkpoint_of(CASE), config=CONFIG, **options)
    arguments = ["train-mllmseg", images.name, str(trained.checkpoint), str(tmp_path / "more"), "--task", "gres"]
    arguments += ["--masks-field", "truth", "--validation-field", "truth", "--validation-share", "0.5"]
    arguments += ["--steps", "1", "--batch-size", "1", "--accumulation", "1", "--measure", "cIoU"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "MLLMSeg trained for 1 steps (finished)" in out
    assert "best validation: cIoU" in out
    assert load_mllmseg(tmp_path / "more" / "merged", device="cpu").network.config.lora_rank == 0
