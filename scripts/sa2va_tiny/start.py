"""The network that the training of sa2va-tiny begins with: the parts of glus-tiny, in the places of Sa2VA's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPVisionModel

from fiftyone_refvos.demo.rendered import RenderedVideos
from fiftyone_refvos.models.clip_tower import clip_processor
from fiftyone_refvos.models.glus.config import GlusConfig
from fiftyone_refvos.models.glus.network import GlusNetwork
from fiftyone_refvos.models.glus.weights import load_network as load_glus
from fiftyone_refvos.models.registry import SHIPPED
from fiftyone_refvos.models.sa2va.config import MODEL_TYPE, Sa2vaConfig
from fiftyone_refvos.models.sa2va.network import Sa2vaNetwork
from fiftyone_refvos.models.sa2va.saving import save_checkpoint
from fiftyone_refvos.video import Frame

GLUS_TINY = SHIPPED / "glus-tiny"
ADDED = (
    *("<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"),
    *("[SEG]", "<p>", "</p>", "<vp>", "</vp>"),
)
_MEASURED = 64  # frames, to see how large CLIP's embeddings are
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_start(folder: Path, videos: Path, seed: int) -> None:
    """Writes the first checkpoint: config.json, tokenizer, weights.

    Args:
        folder: that gets it
        videos: rendered ones, of which some frames are looked at
        seed: of what glus-tiny has no part for: the projector, and the memory of SAM2 over time
    """
    base = folder.parent / f".{folder.name}.base"
    shutil.rmtree(base, ignore_errors=True)
    base.mkdir(parents=True)
    glus_config = GlusConfig.read(GLUS_TINY)
    glus = load_glus(GLUS_TINY, GLUS_TINY / "clip", glus_config, device=torch.device("cpu"), dtype=torch.float32)
    words = _write_tokenizer(base, glus_config.llama.vocab_size)
    config = _config(glus, words)
    (base / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    torch.manual_seed(seed)
    network = Sa2vaNetwork(Sa2vaConfig.read(base), tuned_decoder=False)
    with torch.no_grad():
        _take_language(network, glus)
        _take_vision(network, glus.clip, videos)
        network.sam.sam2.load_state_dict(glus.sam.sam2.state_dict())
        _take_masks(network)
    save_checkpoint(network.state_dict(), folder, base=base)
    shutil.rmtree(base)


def _write_tokenizer(folder: Path, known: int) -> int:
    """The words of glus-tiny and Sa2VA's own tokens; returns how many there are."""
    shutil.copyfile(GLUS_TINY / "tokenizer.model", folder / "tokenizer.model")
    taken = json.loads((GLUS_TINY / "added_tokens.json").read_text())
    first = known - len(taken)
    added = {token: first + number for number, token in enumerate(ADDED)}
    (folder / "added_tokens.json").write_text(json.dumps(added, indent=2) + "\n")
    return first + len(ADDED)


def _config(glus: GlusNetwork, words: int) -> dict[str, Any]:
    llama, clip = glus.config.llama, glus.clip.config
    sizes = json.loads((GLUS_TINY / "config.json").read_text())["sam2"]
    return {
        "architectures": ["Sa2VAChatModel"],
        "model_type": MODEL_TYPE,
        "template": "internlm2_chat",
        "force_image_size": clip.image_size,
        "downsample_ratio": 0.5,
        "dynamic_image_size": True,
        "max_dynamic_patch": 1,
        "use_thumbnail": True,
        "vision_config": {
            "hidden_size": clip.hidden_size,
            "num_hidden_layers": clip.num_hidden_layers,
            "num_attention_heads": clip.num_attention_heads,
            "intermediate_size": clip.intermediate_size,
            "hidden_act": clip.hidden_act,
            "qkv_bias": True,
            "qk_normalization": False,
            "norm_type": "layer_norm",
            "layer_norm_eps": clip.layer_norm_eps,
            "image_size": clip.image_size,
            "patch_size": clip.patch_size,
        },
        "llm_config": {
            "architectures": ["InternLM2ForCausalLM"],
            "vocab_size": words,
            "hidden_size": llama.hidden_size,
            "intermediate_size": llama.intermediate_size,
            "num_hidden_layers": llama.num_hidden_layers,
            "num_attention_heads": llama.num_attention_heads,
            "num_key_value_heads": llama.num_key_value_heads,
            "hidden_act": llama.hidden_act,
            "max_position_embeddings": llama.max_position_embeddings,
            "rms_norm_eps": llama.rms_norm_eps,
            "rope_theta": llama.rope_parameters["rope_theta"],
            "bias": False,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        "sam2": sizes,
    }


def _take_language(network: Sa2vaNetwork, glus: GlusNetwork) -> None:
    """LLaMA is InternLM2 under other names; the words that both know keep their rows, [SEG] among them."""
    model = network.mllm.model.language_model
    rows = {name: tensor for name, tensor in glus.llama.state_dict().items() if name != "embed_tokens.weight"}
    model.load_state_dict(rows, strict=False)
    taken = json.loads((GLUS_TINY / "added_tokens.json").read_text())
    first = glus.config.llama.vocab_size - len(taken)
    seg = first + ADDED.index("[SEG]")
    for ours, theirs in (
        (model.embed_tokens.weight, glus.llama.embed_tokens.weight),
        (network.mllm.lm_head.weight, glus.lm_head.weight),
    ):
        ours[:first] = theirs[:first]
        ours[first:] = torch.randn_like(ours[first:]) * float(theirs[:first].std())
        ours[seg] = theirs[taken["[SEG]"]]
    network.seg_projection.load_state_dict(glus.seg_projection.state_dict())


def _take_vision(network: Sa2vaNetwork, clip: CLIPVisionModel, videos: Path) -> None:
    """CLIP's layers are those of InternViT."""
    tower = network.mllm.model.vision_tower
    for ours, theirs in zip(tower.encoder.layer, clip.encoder.layers, strict=True):
        attention = theirs.self_attn
        pairs = (
            (ours.layernorm_before, theirs.layer_norm1),
            (ours.layernorm_after, theirs.layer_norm2),
            (ours.mlp, theirs.mlp),
            (ours.attention.q_proj, attention.q_proj),
            (ours.attention.k_proj, attention.k_proj),
            (ours.attention.v_proj, attention.v_proj),
            (ours.attention.projection_layer, attention.out_proj),
        )
        for own, taken in pairs:
            own.load_state_dict(taken.state_dict())
        ours.lambda_1.fill_(1)
        ours.lambda_2.fill_(1)
    _take_embeddings(tower.embeddings, clip, videos)


def _take_embeddings(ours: Any, clip: CLIPVisionModel, videos: Path) -> None:
    """CLIP's embeddings go through a norm, which InternViT has not: what it does on average goes into the weights.

    So does the difference between the constants with which the two normalise pixels.
    """
    theirs, norm = clip.embeddings, clip.pre_layrnorm
    scale = norm.weight / theirs(_frames(clip, videos)).std(-1, unbiased=False).mean()

    def normed(values: Tensor) -> Tensor:
        return (values - values.mean(-1, keepdim=True)) * scale

    weight = theirs.patch_embedding.weight.permute(1, 2, 3, 0)  # (3, P, P, W), for CLIP's own constants
    constants = (_CLIP_MEAN, _CLIP_STD, _MEAN, _STD)
    clip_mean, clip_std, mean, std = (torch.tensor(each).view(3, 1, 1, 1) for each in constants)
    projection = ours.patch_embeddings.projection
    projection.weight.copy_(normed(weight * std / clip_std).permute(3, 0, 1, 2))
    projection.bias.copy_(normed((weight * (mean - clip_mean) / clip_std).sum((0, 1, 2))))
    ours.position_embeddings.copy_((normed(theirs.position_embedding.weight) + norm.bias)[None])
    ours.cls_token.copy_(normed(theirs.class_embedding)[None, None])


def _frames(clip: CLIPVisionModel, videos: Path) -> Tensor:
    """CLIP's view of some frames, `(F, 3, S, S)`."""
    source, rng = RenderedVideos(videos), np.random.default_rng(0)
    frames: list[Frame] = []
    for _ in range(_MEASURED):
        video = source.video(int(rng.integers(len(source))))
        frames += video.read([int(rng.integers(len(video)))])
    pixels: Tensor = clip_processor(clip.config.image_size, "squash")(images=frames, return_tensors="pt")[
        "pixel_values"
    ]
    return pixels


def _take_masks(network: Sa2vaNetwork) -> None:
    """The three masks of which Sa2VA takes the best begin as the single one of glus-tiny."""
    decoder = network.sam.sam2.sam_mask_decoder
    decoder.mask_tokens.weight[1:] = decoder.mask_tokens.weight[:1]
    first = decoder.output_hypernetworks_mlps[0].state_dict()
    for other in decoder.output_hypernetworks_mlps[1:]:
        other.load_state_dict(first)
