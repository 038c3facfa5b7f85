"""A training step: what trains, what is computed how often, and what each option changes."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.glus.config import GlusInference
from fiftyone_refvos.models.glus.inference import GlusSegmenter
from fiftyone_refvos.training.batch import Batch, Collator
from fiftyone_refvos.training.config import LoraConfig, SamplingConfig, TrainingConfig
from fiftyone_refvos.training.lora import published_parameter
from fiftyone_refvos.training.network import TrainingNetwork
from tests.small import CAT, DOG, glus_tiny, noise_video
from tests.training_data import CLIP_SIDE, PUBLISHED, VIDEOS, Setup, from_nothing, glus, tokenizer

INFERENCE_WORDING = TrainingConfig(sampling=SamplingConfig(query_frames=3, wording="inference"))

# Parts of SAM2 that have no effect on a mask prompted by one embedding, and what CLIP computes after the features.
NEVER_USED = (
    "clip.post_layernorm.",
    "sam.sam2.maskmem_tpos_enc",
    "sam.sam2.no_mem_pos_enc",
    "sam.sam2.no_obj_ptr",
    "sam.sam2.mask_downsample.",
    "sam.sam2.obj_ptr_proj.",
    "sam.sam2.sam_prompt_encoder.point_embeddings.",
    "sam.sam2.sam_prompt_encoder.not_a_point_embed.",
    "sam.sam2.sam_prompt_encoder.mask_downscaling.",
    "sam.sam2.sam_mask_decoder.iou_prediction_head.",
    "sam.sam2.sam_mask_decoder.pred_obj_score_head.",
)


def without_gradient(network: TrainingNetwork) -> set[str]:
    return {name for name, parameter in network.glus.named_parameters() if parameter.grad is None}


def without_dropout(setup: Setup) -> Setup:
    return Setup(replace(setup.config, lora=LoraConfig(dropout=0.0)))


def without_checkpointing(setup: Setup) -> Setup:
    return Setup(replace(setup.config, gradient_checkpointing=False))


def test_published_training_leaves_all_but_lora_and_the_trained_parts_alone() -> None:
    network = PUBLISHED.network()
    network(PUBLISHED.batch(VIDEOS)).losses["total"].backward()
    trained = set(network.trained_parameters())
    tops = {published_parameter(name).split(".lora_")[0] for name in trained if "lora_" in name}
    layers = range(network.glus.config.llama.num_hidden_layers)
    assert tops == {f"model.layers.{n}.self_attn.{p}_proj" for n in layers for p in "qv"}
    parts = {name for name in trained if "lora_" not in name}
    kept = ("sam.sam2.sam_mask_decoder.", "llama.embed_tokens.", "lm_head.", "projector.", "seg_projection.")
    assert all(name.startswith(kept) for name in parts)
    assert trained - without_gradient(network) == {
        name
        for name in trained
        if not any(
            part in name for part in (".conv_s0.", ".conv_s1.", ".iou_prediction_head.", ".pred_obj_score_head.")
        )
    }


def test_training_of_everything_reaches_every_parameter_that_a_mask_depends_on() -> None:
    setup = from_nothing(query_frames=2, context_frames=1)
    network = setup.network()
    network(setup.batch(VIDEOS)).losses["total"].backward()
    assert all(parameter.requires_grad for parameter in network.glus.parameters())
    names = {name for name, _ in network.glus.named_parameters()}
    assert without_gradient(network) == {name for name in names if name.startswith(NEVER_USED)}
    assert not any("lora_" in name for name, _ in network.glus.named_parameters())
    for part in ("clip.encoder.layers.0.", "sam.sam2.image_encoder.trunk.", "sam.sam2.memory_"):
        some = [p.grad for name, p in network.glus.named_parameters() if name.startswith(part)]
        assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in some), part


def outputs_alone(network: TrainingNetwork, setup: Setup, seed: int) -> Iterator[Any]:
    for clip in setup.clips(VIDEOS, seed):
        yield network(Collator(CLIP_SIDE, "center_crop")([clip]))


def test_rows_of_a_batch_do_not_depend_on_each_other() -> None:
    setup = without_dropout(PUBLISHED)
    network = setup.network().eval()
    seed = next(s for s in range(9) if len({c.video for c in setup.clips(VIDEOS, s)}) == 2)
    together = network(setup.batch(VIDEOS, seed))
    alone = list(outputs_alone(network, setup, seed))
    embeddings = torch.cat([output.seg_embeddings for output in alone])
    torch.testing.assert_close(together.seg_embeddings, embeddings, atol=1e-4, rtol=1e-4)
    low_res = torch.cat([output.low_res for output in alone], dim=1)
    torch.testing.assert_close(together.low_res, low_res, atol=1e-3, rtol=1e-3)
    assert together.seg_embeddings.shape == (5, 2, 128)
    counts = [len(output.seg_embeddings) for output in alone]
    weighted = sum(n * output.losses["bce"] for n, output in zip(counts, alone, strict=True)) / 5
    assert together.losses["bce"].item() == pytest.approx(weighted.item(), rel=1e-4)


def test_sharing_the_beginning_of_rows_changes_nothing() -> None:
    """With dropout in its updates the language model sees whole rows, else it shares their beginning."""
    setup = without_checkpointing(PUBLISHED)
    whole, shared = setup.network(), without_dropout(setup).network()
    shared.glus.load_state_dict(whole.glus.state_dict())
    batch = setup.batch(VIDEOS)
    lengths: list[list[int]] = []
    for network in (whole, shared):
        seen: list[int] = []
        network.glus.llama.register_forward_pre_hook(
            lambda _, args, kwargs, seen=seen: seen.append(kwargs["inputs_embeds"][..., 0].numel()), with_kwargs=True
        )
        lengths.append(seen)
        network.eval()
    one, other = whole(batch), shared(batch)
    assert [len(seen) for seen in lengths] == [1, 2]
    assert sum(lengths[1]) < 0.85 * sum(lengths[0])
    torch.testing.assert_close(one.seg_hidden, other.seg_hidden, atol=1e-4, rtol=1e-4)
    for output in (one, other):
        output.losses["total"].backward()
    for (name, p), q in zip(whole.trained_parameters().items(), shared.trained_parameters().values(), strict=True):
        if p.grad is not None:
            assert q.grad is not None
            torch.testing.assert_close(p.grad, q.grad, atol=1e-4, rtol=1e-2, msg=name)


@pytest.mark.parametrize("setup", [from_nothing(query_frames=3, context_frames=2), Setup(INFERENCE_WORDING)])
def test_inference_wording_predicts_every_seg_from_the_state_that_it_has_at_inference(setup: Setup) -> None:
    network = setup.network().eval()
    (clip,) = clips = setup.clips(VIDEOS[:1], count=1)
    glus = network.glus
    with torch.no_grad():
        trained = network(Collator(CLIP_SIDE, "center_crop")(clips)).seg_hidden
        tokens = glus.visual_tokens(clip.frames, "center_crop")
        context, query = ([tokens[n] for n in frames] for frames in (clip.context, clip.query))
        segmenter = GlusSegmenter(glus, tokenizer(), GlusInference())
        for row, expression in enumerate(clip.expressions):
            for count in range(1, len(query) + 1):
                prompt = segmenter.prompts.write(Expression("0", expression.text), count)
                prefix = glus.prefill(glus.embed(prompt.prefix, context))
                (hidden,) = glus.answer(prefix, [glus.embed(prompt.suffix, query[:count])]).hidden
                torch.testing.assert_close(trained[row, count - 1], hidden[-1], atol=1e-4, rtol=1e-4)


def test_checkpoint_that_leaves_out_the_last_layer_of_clip_trains_all_others() -> None:
    setup = from_nothing()
    network = TrainingNetwork(glus(mm_vision_select_layer=-2), setup.config)
    before = {name: parameter.detach().clone() for name, parameter in network.glus.clip.named_parameters()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.0)
    network(setup.batch(VIDEOS)).losses["total"].backward()
    optimizer.step()
    changed = {name for name, p in network.glus.clip.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {name for name in before if not name.startswith(("post_layernorm.", "encoder.layers.3."))}


def test_without_memory_each_query_frame_is_decoded_on_its_own() -> None:
    sampling = SamplingConfig(query_frames=2, context_frames=0, wording="inference")
    config = replace(without_dropout(PUBLISHED).config, sampling=sampling)
    setups = [Setup(replace(config, memory=memory)) for memory in (True, False)]
    low_res, used = [], []
    for setup in setups:
        network = setup.network().eval()
        calls: list[int] = []
        for part in (network.glus.sam.sam2.memory_encoder, network.glus.sam.sam2.memory_attention):
            part.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        low_res.append(network(setup.batch(VIDEOS)).low_res)
        used.append(len(calls))
    assert used == [2, 0]
    with_memory, without = low_res
    torch.testing.assert_close(with_memory[0], without[0], atol=1e-4, rtol=1e-4)
    assert (with_memory[1] - without[1]).abs().max() > 1e-2


def test_trained_network_is_run_as_it_was_trained_and_sees_frames_as_its_checkpoint_says() -> None:
    sampling = SamplingConfig(query_frames=1, context_frames=0)
    config = TrainingConfig(memory=False, sampling=sampling)
    network = TrainingNetwork(glus(clip_view="squash"), config)
    segmenter = GlusSegmenter(network.glus, tokenizer(), GlusInference())
    assert config.run_settings == {"context_frames": 0, "window": 1, "memory_bank": False}
    expected = {"clip_view": "squash", "memory_gamma": "checkpoint", **config.run_settings}
    assert expected.items() <= segmenter.identity.items()


def test_collator_shows_clip_what_inference_shows_it() -> None:
    clips = PUBLISHED.clips([VIDEOS[0]], count=1)
    network = glus_tiny().network
    for view in ("center_crop", "squash"):
        batch = Collator(CLIP_SIDE, view)(clips)
        assert torch.equal(batch.clip_pixels, network.clip_pixels(clips[0].frames, view))


def noted(seen: list[Tensor], tensor: Tensor) -> Tensor:
    seen.append(tensor)
    return tensor


@pytest.mark.parametrize("setup", [PUBLISHED, from_nothing(query_frames=2)])
def test_gradient_checkpointing_saves_activations_and_changes_no_gradient(setup: Setup) -> None:
    """With the dropout of the updates, which has to fall the same way the second time."""
    checkpointed, plain = setup.network(), without_checkpointing(setup).network()
    plain.load_state_dict(checkpointed.state_dict())
    batch, kept = setup.batch(VIDEOS), []
    for network in (checkpointed, plain):
        seen: list[Tensor] = []
        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(partial(noted, seen), lambda tensor: tensor):
            total = network(batch).losses["total"]
        total.backward()
        kept.append(sum(tensor.numel() for tensor in seen))
    assert kept[0] < 0.9 * kept[1]
    for (name, p), q in zip(checkpointed.named_parameters(), plain.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad, atol=1e-5, rtol=1e-4, msg=name)


def test_each_frame_is_encoded_once_for_all_expressions() -> None:
    setup = PUBLISHED
    network, batch = setup.network(), setup.batch(VIDEOS)
    seen: dict[str, list[int]] = {"clip": [], "sam": [], "llama": [], "decoder": []}

    def count(name: str, key: str) -> Any:
        def hook(_module: Any, args: Sequence[Any], kwargs: dict[str, Tensor]) -> None:
            seen[name].append(len(kwargs[key] if key else args[0]))

        return hook

    glus = network.glus
    glus.clip.register_forward_pre_hook(count("clip", "pixel_values"), with_kwargs=True)
    glus.sam.sam2.image_encoder.register_forward_pre_hook(count("sam", ""), with_kwargs=True)
    glus.llama.register_forward_pre_hook(count("llama", "inputs_embeds"), with_kwargs=True)
    glus.sam.sam2.sam_mask_decoder.transformer.register_forward_pre_hook(count("decoder", ""), with_kwargs=True)
    network(batch)
    rows = len(batch.rows)
    distinct = sum(len(clip.frames) for clip in setup.clips(VIDEOS))
    assert seen == {"clip": [distinct], "sam": [2 * 2], "llama": [rows], "decoder": [rows, rows]}


def test_memory_learns_also_after_the_network_was_used_for_inference() -> None:
    setup = from_nothing(query_frames=2)
    network = setup.network()
    segmenter = GlusSegmenter(network.glus.eval(), tokenizer(), glus_tiny().settings)
    list(segmenter.segment(noise_video(3), [DOG, CAT]))
    network.train()
    network(setup.batch(VIDEOS)).losses["total"].backward()
    gradient = network.glus.sam.sam2.memory_attention.layers[0].cross_attn_image.q_proj.weight.grad
    assert gradient is not None
    assert gradient.abs().sum() > 0


def test_batch_can_be_pickled_and_moved() -> None:
    batch = PUBLISHED.batch(VIDEOS)
    copy = pickle.loads(pickle.dumps(batch))
    assert copy.rows == batch.rows
    assert torch.equal(copy.targets[0].masks, batch.targets[0].masks)
    assert batch.sample_ids[0] == f"memory/{batch.rows[0].video}/{batch.rows[0].expression}"
    tensors = list(_tensors(batch.to("meta")))
    assert len(tensors) == 8 + 2 + 2 * len(batch.targets)
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Batch):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))
    elif isinstance(value, tuple):
        for part in value:
            yield from _tensors(part)
