"""Training in updates of low rank and in few bits gives the network that it is meant to give."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fiftyone_refvos.models.glus.inference import GlusSegmenter
from fiftyone_refvos.training.lora import merge_lora, merged_state
from fiftyone_refvos.training.network import TrainingNetwork
from tests.small import CAT, DOG, glus_tiny, noise_video
from tests.training_data import PUBLISHED, VIDEOS, Setup, from_nothing, glus


def test_new_lora_changes_nothing_and_merged_lora_is_the_same_network() -> None:
    setup = PUBLISHED
    network, batch = setup.network().eval(), setup.batch(VIDEOS)
    plain = Setup(replace(setup.config, lora=None)).network().eval()
    before = network(batch)
    torch.testing.assert_close(before.seg_hidden, plain(batch).seg_hidden, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        for name, parameter in network.glus.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    changed = network(batch).seg_hidden
    assert (changed - before.seg_hidden).abs().max() > 1e-2
    state = merged_state(network.glus)
    torch.testing.assert_close(network(batch).seg_hidden, changed)  # it stayed as it was
    plain.glus.load_state_dict(state)
    torch.testing.assert_close(plain(batch).seg_hidden, changed, atol=1e-4, rtol=1e-4)
    merge_lora(network.glus)
    assert network.glus.state_dict().keys() == state.keys()
    torch.testing.assert_close(network.glus.state_dict(), state)


def test_frozen_weights_are_held_in_bfloat16_where_all_is_computed_in_it() -> None:
    setup = Setup(replace(PUBLISHED.config, precision="bf16"))
    network, batch = setup.network(), setup.batch(VIDEOS)
    large = {name: p for name, p in network.glus.named_parameters() if name.startswith(("llama.", "clip."))}
    assert {p.dtype for p in large.values() if not p.requires_grad} == {torch.bfloat16}
    small = {name: p for name, p in network.glus.named_parameters() if name not in large}
    assert {p.dtype for p in (*network.trained_parameters().values(), *small.values())} == {torch.float32}
    exact = PUBLISHED.network()
    exact.load_state_dict(network.state_dict())  # the same rounded weights, in float32
    outputs = []
    for each in (network.eval(), exact.eval()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs.append(each(batch))
    torch.testing.assert_close(outputs[0].losses, outputs[1].losses, rtol=2e-2, atol=2e-2)
    outputs[0].losses["total"].backward()
    assert all(p.grad.isfinite().all() for p in network.trained_parameters().values() if p.grad is not None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        segmenter = GlusSegmenter(network.glus, glus_tiny().prompts.tokenizer, glus_tiny().settings)
        assert len(list(segmenter.segment(noise_video(3), [DOG, CAT]))) == 6
    assert {tensor.dtype for tensor in merged_state(network.glus).values()} == {torch.bfloat16, torch.float32}


@pytest.mark.parametrize("setup", [PUBLISHED, from_nothing()])
def test_weights_that_are_stored_in_bfloat16_are_trained_in_float32(setup: Setup) -> None:
    network = TrainingNetwork(glus().bfloat16(), setup.config)
    assert {p.dtype for p in network.parameters()} == {torch.float32}


@pytest.mark.parametrize("setup", [PUBLISHED, from_nothing(query_frames=2, context_frames=2)])
def test_mixed_precision_gives_finite_losses_and_gradients(setup: Setup) -> None:
    network, batch = setup.network(), setup.batch(VIDEOS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = network(batch).losses
    losses["total"].backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in network.trained_parameters().values() if p.grad is not None)
