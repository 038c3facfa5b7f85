"""MLLMSeg training cases: one step with LoRA in both modes of its statistics, gradients, and merging."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from fiftyone_refvos.models.checkpoint import iterate_tensors, load_strictly
from fiftyone_refvos.models.internlm2_weights import pack_wqkv
from fiftyone_refvos.models.internvl_tokenizer import load_tokenizer
from fiftyone_refvos.models.llama_tokenizer import IMAGE_TOKEN
from fiftyone_refvos.models.mllmseg.config import MllmsegConfig
from fiftyone_refvos.models.mllmseg.network import MllmsegNetwork
from fiftyone_refvos.models.mllmseg.prompt import IGNORED, REJ_TOKEN, PromptWriter
from fiftyone_refvos.models.mllmseg.weights import empty_network, translated
from fiftyone_refvos.training.config import LoraConfig, LossConfig
from fiftyone_refvos.training.lora import ADAPTER
from fiftyone_refvos.training.mllmseg.batch import ImageBatch, ImageConversation, collate
from fiftyone_refvos.training.mllmseg.config import MllmsegTrainingConfig
from fiftyone_refvos.training.mllmseg.network import MllmsegOutput, MllmsegTrainingNetwork
from fiftyone_refvos.verify.mllmseg import (
    PIXEL_TOLERANCE,
    Golden,
    compare_words,
    is_case,
    load_case,
    read_image,
)
from fiftyone_refvos.verify.report import CaseReport

LOSS_TOLERANCE = 1e-5  # relative
GRADIENT_TOLERANCE = 1e-4  # relative to the norm, or to the largest value of a tensor
MERGED_TOLERANCE = 1e-6
# Smaller ones are compared as numbers: norms to 1e-7, since that of a bias before a batch norm is 0 but for rounding
# (up to 1.4e-8 with one thread; the next one is 1.6e-3); values to 5e-7, since one ReLU whose input is 0 but for
# rounding moves them by up to 2e-7.
_SMALL_NORM = 1e-3
_SMALL_VALUE = 5e-3

_BASE = ".base_layer.weight"
_LORA = (".lora_A.default.weight", ".lora_B.default.weight")
# how the training asks; the inference of the same case asks about the same in the words of inference
_REQUEST = r"^<image>\nPlease segment (.*) in this image\.$"
_WRAPPER = "language_model.base_model.model."
# InternLM2's name of a projection, and its names in stock LLaMA
_PROJECTIONS = {
    "attention.wqkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention.wo": ("self_attn.o_proj",),
    "feed_forward.w1": ("mlp.gate_proj",),
    "feed_forward.w3": ("mlp.up_proj",),
    "feed_forward.w2": ("mlp.down_proj",),
}


def is_step_case(path: Path) -> bool:
    """A folder with an MLLMSeg checkpoint in training, a batch, and what a step of it gave."""
    return is_case(path, inputs="training.json")


def check_step(path: Path) -> CaseReport:
    """Runs a training step in fp32 on the CPU, as it was made, and compares every stored quantity."""
    report = CaseReport(path, "MLLMSeg, training step")
    golden = Golden(report, load_file(path / "outputs.safetensors"))
    inputs = json.loads((path / "inputs" / "training.json").read_text(encoding="utf-8"))
    network, writer = _network_in_training(path, inputs)
    batch = _compare_batch(golden, path, inputs, network.mllmseg, writer)
    with torch.no_grad():
        evaluated = network.eval()(batch)
    golden.values("eval.llm_hidden_last8", evaluated.hidden[:, -40:])
    _compare_losses(golden, "eval", network, batch, evaluated)
    trained = network.train()(batch)
    _compare_losses(golden, "train", network, batch, trained)
    statistics = network.mllmseg.mask_decoder.state_dict()
    for name in [name for name in golden.tensors if name.startswith("train.buffers_after.res_decoder.")]:
        golden.values(name, statistics[name.removeprefix("train.buffers_after.res_decoder.")])
    trained.losses["total"].backward()
    _compare_gradients(golden, network.mllmseg, inputs["grad_norms"])
    _compare_merged(golden, path, inputs)
    golden.finish()
    return report


def _network_in_training(path: Path, inputs: Mapping[str, Any]) -> tuple[MllmsegTrainingNetwork, PromptWriter]:
    """The network of a checkpoint that was saved in training, its updates as parameters of their own."""
    folder = path / "checkpoint"
    config = MllmsegConfig.read(folder)
    network = empty_network(config)
    updates: dict[str, Tensor] = {}
    tensors = translated(_without_updates(iterate_tensors(folder), updates), config)
    load_strictly(network, tensors, where=str(folder), device=torch.device("cpu"), dtype=torch.float32)
    lora = LoraConfig(rank=inputs["lora"]["r"], alpha=inputs["lora"]["alpha"], dropout=0.0)
    weights = inputs["weights"]
    training = MllmsegTrainingConfig(
        lora=lora,
        dropout=0.0,
        gradient_checkpointing=False,
        losses=LossConfig(ce=weights["ce"], dice=weights["dice"]),
        focal_weight=weights["focal"],
    )
    prepared = MllmsegTrainingNetwork(network, training)
    _set_updates(network, updates)
    tokenizer = load_tokenizer(folder, config.family)
    length = config.internvl.text_config.max_position_embeddings
    return prepared, PromptWriter(tokenizer, tokens_per_image=network.tokens_per_image, max_length=length)


def _without_updates(
    tensors: Iterator[tuple[str, Tensor]], updates: dict[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """The weights under the updates, under their names in a merged checkpoint; the updates go into `updates`."""
    for name, tensor in tensors:
        if name.endswith(_LORA):
            updates[name] = tensor
        else:
            yield name.replace(_BASE, ".weight"), tensor


def _set_updates(network: MllmsegNetwork, updates: Mapping[str, Tensor]) -> None:
    """Puts published updates in their places; of a packed projection, B is cut as the projection is."""
    matrices = _matrices(network)
    with torch.no_grad():
        for name, tensor in updates.items():
            parts = matrices[name]
            sizes = [len(part) for part in parts]
            cut = [tensor] * len(parts) if name.endswith(_LORA[0]) else _unpacked(tensor, network, sizes)
            for part, value in zip(parts, cut, strict=True):
                part.copy_(value)


def _unpacked(tensor: Tensor, network: MllmsegNetwork, sizes: list[int]) -> list[Tensor]:
    if len(sizes) == 1:
        return [tensor]
    # where each row of the packed tensor comes from: packing their numbers tells
    rows = [torch.arange(sum(sizes[:n]), sum(sizes[: n + 1])) for n in range(len(sizes))]
    order = pack_wqkv(rows[0], rows[1], rows[2], network.config.internvl.text_config).argsort()
    return list(tensor[order].split(sizes))


def _matrices(network: MllmsegNetwork) -> dict[str, list[torch.nn.Parameter]]:
    """The matrices of all updates by their published names: several where a projection is packed."""
    found: dict[str, list[torch.nn.Parameter]] = {}
    for number, layer in enumerate(network.language_model.layers):
        for packed, own in _PROJECTIONS.items():
            modules = [layer.get_submodule(name) for name in own]
            stem = f"{_WRAPPER}model.layers.{number}.{packed}"
            found[stem + _LORA[0]] = [module.lora_A[ADAPTER].weight for module in modules]
            found[stem + _LORA[1]] = [module.lora_B[ADAPTER].weight for module in modules]
    return found


def _compare_batch(
    golden: Golden, path: Path, inputs: Mapping[str, Any], network: MllmsegNetwork, writer: PromptWriter
) -> ImageBatch:
    samples = []
    for number, row in enumerate(inputs["samples"]):
        masks = golden.take(f"gt_masks.{number}").numpy().astype(bool)
        image = read_image(path / "inputs" / row["file"])
        prompt = writer.converse(row["question"].removeprefix(IMAGE_TOKEN), row["answer"])
        samples.append(ImageConversation(row["file"], image, prompt, masks))
        golden.values(f"pixel_values_s8.{number}", network.pixels(image)[..., ::8, ::8], PIXEL_TOLERANCE)
    batch = collate(samples, writer)
    golden.report.add_equal("lengths", batch.attention_mask.sum(1).tolist(), inputs["lengths"])
    exact = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "position_ids": batch.position_ids,
        "labels_ignore_padding": batch.labels,
        "labels_reference": _reference_labels(batch),
        "offset": torch.arange(len(samples) + 1),
    }
    for name, tensor in exact.items():
        golden.values(name, tensor, 0.0)
    return batch


def _reference_labels(batch: ImageBatch) -> Tensor:
    """The published program labels its padding with token 0, and so counts it."""
    return batch.labels.masked_fill(~batch.attention_mask & (batch.labels == IGNORED), 0)


def _compare_losses(
    golden: Golden, mode: str, network: MllmsegTrainingNetwork, batch: ImageBatch, output: MllmsegOutput
) -> None:
    """The terms in their published order: total, ce, focal, dice, both mask losses, soft IoU."""
    with torch.no_grad():
        reference = network.config.losses.ce * network.cross_entropy(output.hidden, _reference_labels(batch))
    for name, ce in (("ignorepad", output.losses["ce"]), ("reference", reference)):
        focal, dice = output.losses["focal"], output.losses["dice"]
        ours = torch.stack([ce + focal + dice, ce, focal, dice, focal + dice, output.iou]).detach()
        key = f"{mode}.{name}.losses"
        golden.report.add_values(key, ours / golden.take(key), torch.ones(6), LOSS_TOLERANCE)
    for number, logits in enumerate(output.mask_logits):
        golden.values(f"{mode}.mask_logits_s4.{number}", logits[:, ::4, ::4])


def _compare_gradients(golden: Golden, network: MllmsegNetwork, norms: Mapping[str, float]) -> None:
    """All gradients by their norms, a few value by value; those of a packed projection are packed again."""
    gradients = _published_gradients(network)
    report = golden.report
    report.add_equal("trainable", sorted(gradients), sorted(norms))
    for name, norm in norms.items():
        ours = gradients.get(name, torch.empty(0)).double().norm()
        error = (ours - norm) / max(norm, _SMALL_NORM)
        report.add_values(f"grad_norms.{name}", error, torch.zeros_like(error), GRADIENT_TOLERANCE)
    total = torch.stack([gradient.double().norm() for gradient in gradients.values()]).norm()
    expected = golden.take("train.grad_norm_total").double()
    report.add_values("train.grad_norm_total", total[None] / expected, torch.ones_like(expected), GRADIENT_TOLERANCE)
    for name in [name for name in golden.tensors if name.startswith("grad.")]:
        theirs = golden.take(name)
        scale = theirs.abs().max().clamp(min=_SMALL_VALUE)
        mine = gradients.get(name.removeprefix("grad."), torch.empty(0))
        report.add_values(name, mine / scale, theirs / scale, GRADIENT_TOLERANCE)


def _published_gradients(network: MllmsegNetwork) -> dict[str, Tensor]:
    language_model, config = network.language_model, network.config.internvl.text_config
    whole = {
        f"{_WRAPPER}model.tok_embeddings.weight": language_model.embed_tokens.weight,
        f"{_WRAPPER}model.norm.weight": language_model.norm.weight,
        f"{_WRAPPER}output.weight": network.internvl.lm_head.weight,
        **{f"res_decoder.{name}": parameter for name, parameter in network.mask_decoder.named_parameters()},
    }
    gradients = {name: parameter.grad for name, parameter in whole.items() if parameter.grad is not None}
    for name, parts in _matrices(network).items():
        own = [part.grad for part in parts if part.grad is not None]
        if len(own) == 1 or name.endswith(_LORA[0]):  # A is one parameter, whose gradient is that of all three
            gradients[name] = own[0]
        else:
            gradients[name] = pack_wqkv(own[0], own[1], own[2], config)
    return gradients


@torch.inference_mode()
def _compare_merged(golden: Golden, path: Path, inputs: Mapping[str, Any]) -> None:
    """The checkpoint as it is loaded for inference, its updates merged."""
    segmenter = load_case(path, prompting="joint")
    network, writer = segmenter.network, segmenter.prompts
    compare_words(golden.report, inputs, segmenter)
    layers = network.language_model.layers
    for name in [name for name in golden.tensors if name.startswith("merged.")]:
        _, _, number, packed = name.removesuffix(".weight").removeprefix("merged.language_model.").split(".", 3)
        parts = [layers[int(number)].get_submodule(own).weight for own in _PROJECTIONS[packed]]
        config = network.config.internvl.text_config
        merged = parts[0] if len(parts) == 1 else pack_wqkv(parts[0], parts[1], parts[2], config)
        golden.values(name, merged, MERGED_TOLERANCE)
    row = next(each for each in inputs["samples"] if each["file"] == inputs["merged_infer"]["image"])
    texts = re.split(", ", re.sub(_REQUEST, r"\1", row["question"]))
    absent = [token == REJ_TOKEN for token in re.findall(r"\[SEG\]|\[REJ\]", row["answer"])]
    prompt = writer.write(texts, absent)
    golden.integers("merged_infer.input_ids", writer.expanded(prompt.prefix + prompt.suffix))
    look = segmenter.look(read_image(path / "inputs" / row["file"]))
    logits = network.mask_decoder.masks(look.decoded, segmenter.states(look, writer.write(texts)))
    golden.values("merged_infer.mask_logits_s4", logits)
