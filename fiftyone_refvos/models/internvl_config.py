"""The sizes of InternVL checkpoints (`internvl_chat`) as configurations of stock classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from transformers import InternVLConfig, InternVLVisionConfig, LlamaConfig, PretrainedConfig, Qwen2Config
from transformers.activations import ACT2FN

LanguageFamily = Literal["internlm2", "qwen2"]

_FAMILIES: dict[str, LanguageFamily] = {"Qwen2ForCausalLM": "qwen2", "InternLM2ForCausalLM": "internlm2"}
# What the stock classes do, and the values with which the published ones do the same.
_FIXED = {"select_layer": -1, "ps_version": "v2"}
_NORMS = ("layer_norm", "rms_norm")
# Above the length that a language model was trained for, published ones stretch their rotary positions; below it,
# where conversations are, "dynamic" is the same as none.
_SCALINGS = (None, "default", "dynamic")


def language_family(values: Mapping[str, Any]) -> LanguageFamily:
    """Which language model an `llm_config` names.

    Raises:
        ValueError: for another language model
    """
    name = str((values.get("architectures") or [None])[0])
    if name not in _FAMILIES:
        why = "; Phi-3 was the base of unpublished models only" if "Phi3" in name else ""
        raise ValueError(f"llm_config.architectures names {name!r}; known are {', '.join(_FAMILIES)}{why}")
    return _FAMILIES[name]


def internvl_config(config: Mapping[str, Any]) -> InternVLConfig:
    """Stock InternVL with the sizes of a config.json, whose own model type means remote code.

    Raises:
        KeyError: for a size that is missing
        StrictDataclassError: for a size that is no number
        ValueError: for a variant that the stock classes do not compute
    """
    for name, value in _FIXED.items():
        if config.get(name, value) != value:
            raise ValueError(f"{name} is {config[name]!r}, and must be {value!r}")
    vision = _vision_config(config["vision_config"])
    side = config.get("force_image_size", vision.image_size[0])
    if list(vision.image_size) != [side, side]:
        size = config["vision_config"]["image_size"]
        raise ValueError(f"force_image_size is {side!r}, but vision_config.image_size {size!r}")
    internvl = InternVLConfig(
        vision_config=vision,
        text_config=text_config(config["llm_config"]),
        downsample_ratio=config["downsample_ratio"],
        vision_feature_layer=-1,
        tie_word_embeddings=False,  # the stock default would make one table of embedding and output head
        attn_implementation="sdpa",
    )
    check_activations(internvl)
    return internvl


def text_config(values: Mapping[str, Any]) -> LlamaConfig | Qwen2Config:
    """The language model of an `llm_config`; InternLM2 is a LLaMA with packed projections.

    Raises:
        KeyError: for a size that is missing
        StrictDataclassError: for a size that is no number
        ValueError: for another language model, or an option of it that is unknown
    """
    family = language_family(values)
    scaling = values.get("rope_scaling") or {}
    kind = scaling.get("rope_type") or scaling.get("type")
    if kind not in _SCALINGS:
        raise ValueError(f"llm_config.rope_scaling is of type {kind!r}; known are 'dynamic' and none")
    sizes = {
        "vocab_size": values["vocab_size"],
        "hidden_size": values["hidden_size"],
        "intermediate_size": values["intermediate_size"],
        "num_hidden_layers": values["num_hidden_layers"],
        "num_attention_heads": values["num_attention_heads"],
        "num_key_value_heads": values.get("num_key_value_heads") or values["num_attention_heads"],
        "hidden_act": values["hidden_act"],
        "max_position_embeddings": values["max_position_embeddings"],
        "rms_norm_eps": values["rms_norm_eps"],
        "rope_parameters": {"rope_type": "default", "rope_theta": values["rope_theta"]},
        "bos_token_id": values.get("bos_token_id"),
        "eos_token_id": values.get("eos_token_id"),
        "pad_token_id": values.get("pad_token_id"),
        "tie_word_embeddings": False,
        "attn_implementation": "sdpa",
    }
    if family == "internlm2":
        if values.get("bias"):
            raise ValueError("llm_config.bias is true; InternLM2 is known without biases")
        return LlamaConfig(**sizes)
    if values.get("use_sliding_window"):
        raise ValueError("llm_config.use_sliding_window is true; Qwen2 is known with full attention")
    return Qwen2Config(use_sliding_window=False, **sizes)


def check_activations(config: PretrainedConfig) -> None:
    """Refuses activations that transformers does not know, which it would only miss when it builds a network.

    Args:
        config: of a vision tower and a language model

    Raises:
        ValueError: for such an activation
    """
    for part in ("vision_config", "text_config"):
        name = getattr(config, part).hidden_act
        if name not in ACT2FN:
            raise ValueError(f"{part}.hidden_act is {name!r}, which transformers does not know")


def _vision_config(values: Mapping[str, Any]) -> InternVLVisionConfig:
    if values["norm_type"] not in _NORMS:
        known = ", ".join(map(repr, _NORMS))
        raise ValueError(f"vision_config.norm_type is {values['norm_type']!r}; known are {known}")
    return InternVLVisionConfig(
        hidden_size=values["hidden_size"],
        num_hidden_layers=values["num_hidden_layers"],
        num_attention_heads=values["num_attention_heads"],
        intermediate_size=values["intermediate_size"],
        hidden_act=values["hidden_act"],
        attention_bias=values["qkv_bias"],
        use_qk_norm=values["qk_normalization"],
        norm_type=values["norm_type"],
        layer_norm_eps=values["layer_norm_eps"],
        image_size=values["image_size"],
        patch_size=values["patch_size"],
        num_channels=values.get("num_channels", 3),
        use_mean_pooling=True,  # which leaves out a final norm, as InternViT has none
        attn_implementation="sdpa",
    )
