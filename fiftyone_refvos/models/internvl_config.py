"""The sizes of InternVL checkpoints (`internvl_chat`) as configurations of stock classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from transformers import InternVLConfig, InternVLVisionConfig, LlamaConfig, Qwen2Config

LanguageFamily = Literal["internlm2", "qwen2"]

_FAMILIES: dict[str, LanguageFamily] = {"InternLM2ForCausalLM": "internlm2", "Qwen2ForCausalLM": "qwen2"}
# What the stock classes do, and the values with which the published ones do the same.
_FIXED = {"select_layer": -1, "ps_version": "v2"}


def language_family(config: Mapping[str, Any]) -> LanguageFamily:
    """Which language model a config.json names.

    Raises:
        KeyError: for an entry that is missing
        ValueError: for another language model
    """
    name = config["llm_config"]["architectures"][0]
    if name not in _FAMILIES:
        raise ValueError(f"language model {name!r}; those supported are {', '.join(_FAMILIES)}")
    return _FAMILIES[name]


def internvl_config(config: Mapping[str, Any]) -> InternVLConfig:
    """Stock InternVL with the sizes of a config.json, whose own model type means remote code.

    Raises:
        KeyError: for a size that is missing
        ValueError: for a variant that the stock classes do not compute
    """
    for name, value in _FIXED.items():
        if config.get(name, value) != value:
            raise ValueError(f"{name} is {config[name]!r}, and must be {value!r}")
    return InternVLConfig(
        vision_config=_vision_config(config["vision_config"]),
        text_config=text_config(config["llm_config"], language_family(config)),
        downsample_ratio=config["downsample_ratio"],
        tie_word_embeddings=False,  # the stock default would make one table of embedding and output head
        attn_implementation="sdpa",
    )


def text_config(config: Mapping[str, Any], family: LanguageFamily) -> LlamaConfig | Qwen2Config:
    """The language model; InternLM2 is a LLaMA with packed projections."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config["rope_theta"]}
    if scaling := config.get("rope_scaling"):
        rope |= {"rope_type": scaling.get("type", scaling.get("rope_type")), "factor": scaling["factor"]}
    sizes = {
        "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "intermediate_size": config["intermediate_size"],
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": config["num_attention_heads"],
        "num_key_value_heads": config.get("num_key_value_heads") or config["num_attention_heads"],
        "hidden_act": config["hidden_act"],
        "max_position_embeddings": config["max_position_embeddings"],
        "rms_norm_eps": config["rms_norm_eps"],
        "rope_parameters": rope,
        "bos_token_id": config.get("bos_token_id"),
        "eos_token_id": config.get("eos_token_id"),
        "pad_token_id": config.get("pad_token_id"),
        "tie_word_embeddings": False,
        "attn_implementation": "sdpa",
    }
    if family == "internlm2":
        return LlamaConfig(attention_bias=bool(config.get("bias", False)), **sizes)
    return Qwen2Config(use_sliding_window=False, **sizes)


def _vision_config(config: Mapping[str, Any]) -> InternVLVisionConfig:
    return InternVLVisionConfig(
        hidden_size=config["hidden_size"],
        num_hidden_layers=config["num_hidden_layers"],
        num_attention_heads=config["num_attention_heads"],
        intermediate_size=config["intermediate_size"],
        hidden_act=config["hidden_act"],
        attention_bias=config["qkv_bias"],
        use_qk_norm=config["qk_normalization"],
        norm_type=config["norm_type"],
        layer_norm_eps=config["layer_norm_eps"],
        image_size=config["image_size"],
        patch_size=config["patch_size"],
        num_channels=config.get("num_channels", 3),
        use_mean_pooling=True,  # which leaves out a final norm, as InternViT has none
        attn_implementation="sdpa",
    )
