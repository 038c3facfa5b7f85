"""What is known of Sa2VA without a whole network: published tensor names and shapes, and InternLM2 on its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import InternVLConfig, InternVLForConditionalGeneration

from fiftyone_refvos.models.checkpoint import iterate_tensors, load_strictly, read_config, set_rotary
from fiftyone_refvos.models.internvl_config import text_config
from fiftyone_refvos.models.internvl_weights import internvl_tensors
from fiftyone_refvos.models.sa2va.config import Sa2vaConfig
from fiftyone_refvos.models.sa2va.language import LanguageModel, Prefix
from fiftyone_refvos.models.sa2va.stopping import StopRule
from fiftyone_refvos.models.sa2va.weights import check_published_keys, empty_network, has_tuned_decoder
from fiftyone_refvos.verify.report import CaseReport
from fiftyone_refvos.verify.sa2va_case import LANGUAGE
from fiftyone_refvos.verify.tables import names_stage, read_json

Shapes = Mapping[str, tuple[int, ...]]

_SEG = "text_hidden_fcs.0.weight"
_SAM2 = "grounding_encoder.sam2_model.no_mem_embed"
_HEAD_DIM = 128  # of all published language models but the smallest, which has 14 heads of 64
_SMALLEST = 896


def is_key_table(path: Path) -> bool:
    """A JSON object of tensor names and shapes with Sa2VA's own parts."""
    table = read_json(path)
    return isinstance(table, dict) and {_SEG, _SAM2} <= table.keys()


def check_keys(path: Path) -> CaseReport:
    """Builds the network that the shapes describe, without weights, and accounts for every tensor."""
    shapes = {name: tuple(shape) for name, shape in read_json(path).items()}
    report = CaseReport(path, "Sa2VA, tensor names")
    with names_stage(report, len(shapes)):
        config = Sa2vaConfig.from_dict(entries(shapes), where=path)
        network = empty_network(config, tuned_decoder=has_tuned_decoder(shapes))
        check_published_keys(shapes, network, where=str(path))
    return report


def entries(shapes: Shapes) -> dict[str, Any]:
    """The config.json entries that the shapes of a published checkpoint imply; SAM2 is Hiera-L."""
    common = {"model_type": "sa2va_chat", "template": "qwen_chat"}
    if "vision_model.embeddings.class_embedding" in shapes:
        return common | _internvl_entries(shapes)
    return common | _qwen_entries(shapes)


def _internvl_entries(shapes: Shapes) -> dict[str, Any]:
    width = shapes["vision_model.embeddings.class_embedding"][-1]
    layer = "vision_model.encoder.layers.0."
    vision = {
        "hidden_size": width,
        "intermediate_size": shapes[f"{layer}mlp.fc1.weight"][0],
        "num_hidden_layers": _layers(shapes, "vision_model.encoder.layers."),
        "num_attention_heads": 25 if width == 3200 else 16,
        "qkv_bias": f"{layer}attn.qkv.bias" in shapes,
        "qk_normalization": f"{layer}attn.q_norm.weight" in shapes,
        "norm_type": "layer_norm" if f"{layer}norm1.bias" in shapes else "rms_norm",
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu",
        "image_size": 448,
        "patch_size": 14,
    }
    internlm2 = "language_model.model.tok_embeddings.weight" in shapes
    words = shapes["language_model.model.tok_embeddings.weight" if internlm2 else _QWEN2_WORDS]
    first = "language_model.model.layers.0."
    language = {
        "architectures": ["InternLM2ForCausalLM" if internlm2 else "Qwen2ForCausalLM"],
        "intermediate_size": shapes[
            f"{first}feed_forward.w1.weight" if internlm2 else f"{first}mlp.gate_proj.weight"
        ][0],
        "num_hidden_layers": _layers(shapes, "language_model.model.layers."),
        "rope_theta": 1e6,
    }
    if internlm2:  # rows are query heads, and twice the key heads
        heads = words[1] // _HEAD_DIM
        key_heads = (shapes[f"{first}attention.wqkv.weight"][0] // _HEAD_DIM - heads) // 2
        language |= {"num_attention_heads": heads, "num_key_value_heads": key_heads}
    else:
        language |= _heads(words[1], shapes[f"{first}self_attn.k_proj.weight"][0])
    return {"vision_config": vision, "llm_config": _text(words) | language, "downsample_ratio": 0.5}


_QWEN2_WORDS = "language_model.model.embed_tokens.weight"


def _qwen_entries(shapes: Shapes) -> dict[str, Any]:
    visual, first = "model.model.visual.", "model.model.language_model.layers.0."
    words = shapes["model.model.language_model.embed_tokens.weight"]
    patches = shapes[f"{visual}patch_embed.proj.weight"]
    qwen3 = f"{visual}pos_embed.weight" in shapes
    text = _text(words) | {
        "intermediate_size": shapes[f"{first}mlp.gate_proj.weight"][0],
        "num_hidden_layers": _layers(shapes, "model.model.language_model.layers."),
    }
    vision: dict[str, Any] = {
        "model_type": "qwen3_vl" if qwen3 else "qwen2_5_vl",
        "hidden_size": patches[0],
        "patch_size": patches[-1],
        "depth": _layers(shapes, f"{visual}blocks."),
        "out_hidden_size": words[1],
        "num_heads": 16,
    }
    if qwen3:
        text |= {
            "head_dim": _HEAD_DIM,
            "num_attention_heads": shapes[f"{first}self_attn.q_proj.weight"][0] // _HEAD_DIM,
            "num_key_value_heads": shapes[f"{first}self_attn.k_proj.weight"][0] // _HEAD_DIM,
        }
        vision |= {
            "intermediate_size": shapes[f"{visual}blocks.0.mlp.linear_fc1.weight"][0],
            "num_position_embeddings": shapes[f"{visual}pos_embed.weight"][0],
            "deepstack_visual_indexes": list(range(_layers(shapes, f"{visual}deepstack_merger_list."))),
        }
    else:
        text |= _heads(words[1], shapes[f"{first}self_attn.k_proj.weight"][0])
        vision["intermediate_size"] = shapes[f"{visual}blocks.0.mlp.gate_proj.weight"][0]
    return {"vision_config": vision, "text_config": text}


def _text(words: tuple[int, ...]) -> dict[str, Any]:
    return {
        "vocab_size": words[0],
        "hidden_size": words[1],
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
    }


def _heads(width: int, key_rows: int) -> dict[str, int]:
    head_dim = 64 if width == _SMALLEST else _HEAD_DIM
    return {"num_attention_heads": width // head_dim, "num_key_value_heads": key_rows // head_dim}


def _layers(shapes: Shapes, prefix: str) -> int:
    return len({name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)})


def is_language_model_case(path: Path) -> bool:
    """A folder with the language model of a Sa2VA checkpoint, and its outputs."""
    if not path.is_dir() or not (path / "outputs.safetensors").is_file():
        return False
    config = read_json(path / "checkpoint" / "config.json")
    return isinstance(config, dict) and set(config) == {"llm_config"}


@torch.inference_mode()
def check_language_model(path: Path) -> CaseReport:
    """Runs the language model on stored embeddings, and lets it go on greedily."""
    report = CaseReport(path, "Sa2VA, language model")
    golden = load_file(path / "outputs.safetensors")
    values = read_config(path / "checkpoint")["llm_config"]
    model = _load_language_model(path / "checkpoint", values)
    embeds = golden["inputs_embeds"]
    decoder = model.model.language_model
    layers = decoder(inputs_embeds=embeds[None], output_hidden_states=True).hidden_states
    for number in range(len(layers)):
        name = f"hidden_states.{number}"
        if name in golden:
            report.add_values(name, layers[number][0], golden[name], LANGUAGE)
    report.add_values("logits", model.lm_head(layers[-1])[0], golden["logits"], LANGUAGE)
    count = len(golden["sequences"])
    stop = StopRule(lambda _: "", values["eos_token_id"], ())
    language = LanguageModel(model, states_before_norm=False)
    (answer,) = language.answer(Prefix([], 0, 0), [embeds], stop, max_new_tokens=count)
    report.add_equal("sequences", answer.ids, golden["sequences"].tolist())
    report.add_values("hidden_generated", answer.hidden, golden["hidden_generated"], LANGUAGE)
    for name in sorted(golden.keys() - {stage.name for stage in report.stages}):
        report.not_compared[name] = "an input" if name in ("input_ids", "inputs_embeds") else "unknown name"
    return report


def _load_language_model(folder: Path, values: Mapping[str, Any]) -> InternVLForConditionalGeneration:
    """A stock multimodal model of which only the language model has weights."""
    mllm = InternVLConfig(text_config=text_config(values), tie_word_embeddings=False)
    with torch.device("meta"):
        model = InternVLForConditionalGeneration(mllm)
    set_rotary(model)
    part = nn.ModuleDict({"language_model": model.model.language_model, "lm_head": model.lm_head})

    def own() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in internvl_tensors(iterate_tensors(folder), mllm, prefix=""):
            yield name.removeprefix("model."), tensor

    load_strictly(part, own(), where=str(folder), device=torch.device("cpu"), dtype=torch.float32)
    return model.eval()
