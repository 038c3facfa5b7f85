"""InternVL checkpoints (`internvl_chat`): published tensor names onto the stock classes, LoRA merged on the way."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from torch import Tensor
from transformers import InternVLConfig

from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.internlm2_weights import internlm2_tensors
from fiftyone_refvos.models.llama import COMPUTED

Tensors = Iterable[tuple[str, Tensor]]

_VISION_PREFIX = "vision_model."
_LANGUAGE_PREFIX = "language_model."
_PROJECTOR_PREFIX = "mlp1."
_VISION = {
    "embeddings.class_embedding": "embeddings.cls_token",
    "embeddings.position_embedding": "embeddings.position_embeddings",
    "embeddings.patch_embedding.weight": "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embedding.bias": "embeddings.patch_embeddings.projection.bias",
}
_VISION_LAYER = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "ls1": "lambda_1",
    "ls2": "lambda_2",
    "attn.proj": "attention.projection_layer",
    "attn.q_norm": "attention.q_norm",
    "attn.k_norm": "attention.k_norm",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
_PROJECTOR = {"0": "layer_norm", "1": "linear_1", "3": "linear_2"}
_LAYER = re.compile(r"^encoder\.layers\.(\d+)\.(.+?)(\.weight|\.bias)?$")
_WRAPPER = ".base_model.model."  # how peft names a model that it wraps
_LORA = re.compile(r"^(.*)\.(base_layer|lora_A\.default|lora_B\.default)\.weight$")
_PARTS = ("base_layer", "lora_A.default", "lora_B.default")


def internvl_tensors(tensors: Tensors, config: InternVLConfig, *, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a checkpoint under the names of `InternVLForConditionalGeneration`, without computed constants.

    The names of other parts stay as they are.

    Args:
        tensors: pairs of published names and tensors, without LoRA; they may be on the meta device
        config: whose numbers of heads say how packed projections are cut
        prefix: of InternVL's own parts in the network that they are for

    Raises:
        CheckpointError: for a packed projection that cannot be cut
    """
    for name, tensor in tensors:
        if COMPUTED.search(name):
            continue
        if not name.startswith((_VISION_PREFIX, _PROJECTOR_PREFIX, _LANGUAGE_PREFIX)):
            yield name, tensor
            continue
        try:
            pairs = list(_own(name, tensor, config))
        except (RuntimeError, IndexError) as error:
            shape = list(tensor.shape)
            raise CheckpointError(f"{name} is {shape}, which cannot be cut in queries, keys and values") from error
        yield from ((prefix + own, piece) for own, piece in pairs)


def _own(name: str, tensor: Tensor, config: InternVLConfig) -> Iterator[tuple[str, Tensor]]:
    if name.startswith(_VISION_PREFIX):
        yield from _vision(name, tensor)
    elif name.startswith(_LANGUAGE_PREFIX):
        yield from _language(name, tensor, config)
    else:
        number, _, kind = name.removeprefix(_PROJECTOR_PREFIX).partition(".")
        yield f"model.multi_modal_projector.{_PROJECTOR.get(number, number)}.{kind}", tensor


def published_name(name: str) -> str:
    """The published name of a tensor of `InternVLForConditionalGeneration`, the language model's own names kept.

    A packed projection of the vision tower is called `attention.qkv` in its place.
    """
    if name.startswith("model.vision_tower."):
        own = name.removeprefix("model.vision_tower.").replace("encoder.layer.", "encoder.layers.")
        names = {ours: published for published, ours in _VISION.items()}
        if own in names:
            return _VISION_PREFIX + names[own]
        for published, ours in {**_VISION_LAYER, "attn.qkv": "attention.qkv"}.items():
            own = re.sub(rf"(\.\d+\.){re.escape(ours)}(?=\.|$)", rf"\g<1>{published}", own)
        return _VISION_PREFIX + own
    if name.startswith("model.multi_modal_projector."):
        own = name.removeprefix("model.multi_modal_projector.")
        numbers = {ours: number for number, ours in _PROJECTOR.items()}
        part, _, kind = own.partition(".")
        return f"{_PROJECTOR_PREFIX}{numbers[part]}.{kind}"
    return _LANGUAGE_PREFIX + name.replace("model.language_model.", "model.", 1)


def merge_lora(tensors: Tensors, *, scale: float = 2.0) -> Iterator[tuple[str, Tensor]]:
    """Adds low-rank updates to the weights that they belong to, and takes the names of the wrapper away.

    Each update waits for its three tensors, which shards may give in any order. A checkpoint without LoRA passes
    through as it is.

    Args:
        tensors: pairs of published names and tensors
        scale: alpha divided by the rank; InternVL's own program always takes 2

    Raises:
        CheckpointError: for an update whose tensors are not all there
    """
    waiting: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors:
        plain = name.replace(_WRAPPER, ".", 1)
        match = _LORA.match(plain)
        if match is None:
            yield plain, tensor
            continue
        stem, part = match.groups()
        parts = waiting.setdefault(stem, {})
        parts[part] = tensor
        if len(parts) == len(_PARTS):
            base, down, up = (waiting[stem][each] for each in _PARTS)
            del waiting[stem]
            if base.shape != (len(up), down.shape[1]) or up.shape[1] != len(down):
                shapes = f"{list(up.shape)} and {list(down.shape)}"
                raise CheckpointError(f"the LoRA matrices of {stem} are {shapes}, its weight is {list(base.shape)}")
            # summed in float32, as a sum in bfloat16 would lose small updates before they are rounded once
            yield f"{stem}.weight", (base.float() + scale * (up.float() @ down.float())).to(base.dtype)
    if waiting:
        stem, parts = next(iter(waiting.items()))
        missing = ", ".join(f"{part}.weight" for part in _PARTS if part not in parts)
        raise CheckpointError(f"{len(waiting)} LoRA updates are not complete; {stem} lacks {missing}")


def _vision(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    own = name.removeprefix(_VISION_PREFIX)
    match = _LAYER.match(own)
    if match is None:
        yield f"model.vision_tower.{_VISION.get(own, own)}", tensor
        return
    number, part, kind = match.groups("")
    prefix = f"model.vision_tower.encoder.layer.{number}."
    if part == "attn.qkv":
        for letter, piece in zip("qkv", tensor.unflatten(0, (3, -1)), strict=True):
            yield f"{prefix}attention.{letter}_proj{kind}", piece.clone()  # three tensors, not three views of one
    else:
        yield f"{prefix}{_VISION_LAYER.get(part, part)}{kind}", tensor


def _language(name: str, tensor: Tensor, config: InternVLConfig) -> Iterator[tuple[str, Tensor]]:
    own = name.removeprefix(_LANGUAGE_PREFIX)
    pairs: Tensors = [(own, tensor)]
    if config.text_config.model_type == "llama":
        pairs = internlm2_tensors(own, tensor, config.text_config)
    for each, piece in pairs:
        yield (each if each.startswith("lm_head.") else each.replace("model.", "model.language_model.", 1)), piece
