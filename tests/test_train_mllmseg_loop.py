"""MLLMSeg in the training loop: batches, losses, resuming, and the checkpoint that comes out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.mllmseg.loading import load_mllmseg
from fiftyone_refvos.models.mllmseg.saving import save_checkpoint
from fiftyone_refvos.training.config import LossConfig
from fiftyone_refvos.training.loop import run
from fiftyone_refvos.training.lora import merged_state
from fiftyone_refvos.training.state import read_best, trained_tensors
from tests.mllmseg_runs import CASE, CONFIG, learner, segmenter_of
from tests.small_mllmseg import checkpoint_of, noise_image


@pytest.fixture(scope="module", autouse=True)
def cpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACCELERATE_USE_CPU", "true")
        yield


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
