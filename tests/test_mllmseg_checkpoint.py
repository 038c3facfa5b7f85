"""MLLMSeg checkpoints: every format that they may come in, every tensor accounted for, errors that can be mended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.internlm2_tokenizer import InternLM2Tokenizer
from fiftyone_refvos.models.internlm2_weights import pack_wqkv, unpack_wqkv
from fiftyone_refvos.models.mllmseg.loading import load_mllmseg
from fiftyone_refvos.models.mllmseg.network import MllmsegNetwork
from tests.shared import shared_path
from tests.small_mllmseg import change_config, change_weights, checkpoint_of, copy_checkpoint, golden_segmenter

INFERENCE = "gres_internlm2"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of one safetensors file with LoRA, to be broken."""
    return copy_checkpoint("train_lora", tmp_path)


def load(folder: Path) -> MllmsegNetwork:
    return load_mllmseg(folder, device="cpu", dtype="float32").network


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load(folder)
    return str(error.value)


def assert_same(network: MllmsegNetwork, other: MllmsegNetwork) -> None:
    state, expected = network.state_dict(), other.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], expected[name]) for name in state)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_all_weight_formats_give_the_same_network(tmp_path: Path, shards: int, suffix: str) -> None:
    folder = copy_checkpoint(INFERENCE, tmp_path)
    state: dict[str, torch.Tensor] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        state |= load_file(path)
        path.unlink()
    (folder / "model.safetensors.index.json").unlink()
    write_weights(folder, state, shards=shards, suffix=suffix)
    assert_same(load(folder), golden_segmenter(INFERENCE).network)


@pytest.mark.parametrize(("shards", "suffix"), [(3, "safetensors"), (1, "bin"), (3, "bin")])
def test_lora_is_merged_from_every_format(tmp_path: Path, checkpoint: Path, shards: int, suffix: str) -> None:
    state = load_file(checkpoint / "model.safetensors")
    expected = load(checkpoint)
    (checkpoint / "model.safetensors").unlink()
    # in shards, the three tensors of an update are in different files
    write_weights(checkpoint, state, shards=shards, suffix=suffix)
    assert_same(load(checkpoint), expected)


def write_weights(folder: Path, state: dict[str, torch.Tensor], *, shards: int, suffix: str) -> None:
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = [f"{stem}.{suffix}"]
    if shards > 1:
        names = [f"{stem}-{number:05d}-of-{shards:05d}.{suffix}" for number in range(1, shards + 1)]
    for number, name in enumerate(names):
        part = {key: state[key] for key in sorted(state)[number::shards]}
        if suffix == "safetensors":
            save_file(part, folder / name)
        else:
            torch.save(part, folder / name)
    if shards > 1:
        weight_map = {key: names[number % shards] for number, key in enumerate(sorted(state))}
        (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def test_merged_lora_is_that_of_the_published_program() -> None:
    network = load(checkpoint_of("train_lora"))
    golden = load_file(shared_path("golden", "mllmseg", "train_lora", "outputs.safetensors"))
    state, config = network.state_dict(), network.config.internvl.text_config
    layers = "internvl.model.language_model.layers"
    query, key, value = (state[f"{layers}.0.self_attn.{letter}_proj.weight"] for letter in "qkv")
    ours = {
        "0.attention.wo": state[f"{layers}.0.self_attn.o_proj.weight"],
        "0.attention.wqkv": pack_wqkv(query, key, value, config),
        "1.feed_forward.w2": state[f"{layers}.1.mlp.down_proj.weight"],
    }
    for name, weight in ours.items():
        expected = golden[f"merged.language_model.model.layers.{name}.weight"]
        torch.testing.assert_close(weight, expected, atol=1e-6, rtol=0)


def test_packed_projection_is_cut_by_key_value_head() -> None:
    config = golden_segmenter(INFERENCE).network.config.internvl.text_config  # 6 heads, 2 of them key-value, of 16
    packed = torch.arange(160)[:, None]
    query, key, value = unpack_wqkv(packed, config)
    assert query[:, 0].tolist() == [*range(48), *range(80, 128)]
    assert key[:, 0].tolist() == [*range(48, 64), *range(128, 144)]
    assert value[:, 0].tolist() == [*range(64, 80), *range(144, 160)]
    assert torch.equal(pack_wqkv(query, key, value, config), packed)


def test_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    folder = copy_checkpoint("res_internlm2", tmp_path)
    torch.save({"mlp1.0.weight": Path("x")}, folder / "pytorch_model.bin")
    assert "loading it would run its code" in refusal(folder)


def test_missing_unexpected_and_misshaped_tensors_are_all_named(checkpoint: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        del state["res_decoder.conv1.1.running_mean"]
        state["res_decoder.conv3.weight"] = torch.zeros(1)
        state["language_model.base_model.model.model.layers.0.attention.wk.weight"] = torch.zeros(2)
        state["mlp1.0.weight"] = torch.zeros(3)

    change_weights(checkpoint, change)
    message = refusal(checkpoint)
    assert "1 missing: mask_decoder.conv1.1.running_mean" in message
    assert "2 unexpected: internvl.model.language_model.layers.0.attention.wk.weight" in message
    assert "mask_decoder.conv3.weight" in message
    assert "1 of another shape: internvl.model.multi_modal_projector.layer_norm.weight is [3]" in message


def test_lora_with_a_part_missing_or_of_another_rank_is_named(checkpoint: Path) -> None:
    stem = "language_model.model.layers.0.attention.wo"
    wrapped = stem.replace(".model", ".base_model.model.model", 1)

    def narrow(state: dict[str, torch.Tensor]) -> None:
        state[f"{wrapped}.lora_A.default.weight"] = state[f"{wrapped}.lora_A.default.weight"][:3].clone()

    def remove(state: dict[str, torch.Tensor]) -> None:
        del state[f"{wrapped}.lora_B.default.weight"]

    change_weights(checkpoint, narrow)
    assert f"LoRA matrices of {stem} are [96, 4] and [3, 96]" in refusal(checkpoint)
    change_weights(checkpoint, remove)
    assert f"1 LoRA updates are not complete; {stem} lacks lora_B.default.weight" in refusal(checkpoint)


def test_another_system_and_wrong_entries_are_named(checkpoint: Path) -> None:
    changes: dict[str, dict[str, Any]] = {
        "names Sa2VAChatModel": {"architectures": ["Sa2VAChatModel"]},
        "select_layer is -4, and must be -1": {"architectures": ["MLLMSeg"], "select_layer": -4},
        "template is 'phi3-chat'": {"select_layer": -1, "template": "phi3-chat"},
        "force_image_size is 224, but vision_config.image_size 448": {
            "template": "internvl2_5",
            "force_image_size": 224,
        },
        "llm_config.architectures names 'Qwen3ForCausalLM'; known are Qwen2ForCausalLM, InternLM2ForCausalLM": {
            "force_image_size": 448,
            "llm_config": {"architectures": ["Qwen3ForCausalLM"]},
        },
    }
    for message, entries in changes.items():
        change_config(checkpoint, entries)
        assert message in refusal(checkpoint)
    (checkpoint / "config.json").write_text('{"architectures": ["MLLMSeg"]}')
    assert "lacks the entry 'vision_config'" in refusal(checkpoint)


@pytest.mark.parametrize(
    ("part", "entry", "value", "message"),
    [
        ("llm_config", "rope_scaling", {"type": "linear", "factor": 2.0}, "rope_scaling is of type 'linear'"),
        ("llm_config", "bias", True, "llm_config.bias is true; InternLM2 is known without biases"),
        ("llm_config", "hidden_act", "swish9", "text_config.hidden_act is 'swish9'"),
        ("llm_config", "hidden_size", "96", "'hidden_size' expected int, got str"),
        ("llm_config", "architectures", ["Phi3ForCausalLM"], "Phi-3 was the base of unpublished models only"),
        ("vision_config", "norm_type", "batch_norm", "norm_type is 'batch_norm'; known are 'layer_norm', 'rms_norm'"),
    ],
)
def test_variants_that_are_not_computed_are_named(
    checkpoint: Path, part: str, entry: str, value: object, message: str
) -> None:
    change_config(checkpoint, {part: {entry: value}})
    assert message in refusal(checkpoint)


def test_unknown_and_wrong_settings_are_named() -> None:
    folder = checkpoint_of(INFERENCE)
    with pytest.raises(ValueError, match="unknown settings window; MLLMSeg has prompting, expression_batch"):
        load_mllmseg(folder, device="cpu", settings={"window": 4})
    with pytest.raises(ValueError, match="prompting is 'both'; choose one of"):
        load_mllmseg(folder, device="cpu", settings={"prompting": "both"})
    with pytest.raises(ValueError, match="expression_batch is 0; it must be a whole number of at least 1"):
        load_mllmseg(folder, device="cpu", settings={"expression_batch": 0})


def test_tokenizer_files_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    folder = copy_checkpoint(INFERENCE, tmp_path)
    (folder / "tokenizer_config.json").unlink()
    load(folder)  # added_tokens.json has [SEG] and [REJ], too
    (folder / "added_tokens.json").unlink()
    assert "has no tokenizer_config.json" in refusal(folder)
    (folder / "tokenizer_config.json").write_text("{}")
    assert "has no added tokens" in refusal(folder)
    (folder / "tokenizer_config.json").write_text('{"added_tokens_decoder": {"x": {"content": "[SEG]"}}}')
    assert "should say the ids of added tokens" in refusal(folder)
    (folder / "tokenizer_config.json").write_text('{"added_tokens_decoder": {"649": {"content": "[SEG]"}}}')
    assert "the tokenizer has no token '[REJ]'" in refusal(folder)
    (folder / "tokenizer.model").write_bytes(b"x")
    assert "is no SentencePiece model" in refusal(folder)
    (folder / "tokenizer.model").unlink()
    assert "tokenizer.model is missing" in refusal(folder)


def test_qwen2_tokenizer_without_its_files_is_named(tmp_path: Path) -> None:
    folder = copy_checkpoint("res_qwen2", tmp_path)
    (folder / "vocab.json").unlink()
    assert "has no tokenizer.json or vocab.json, which its tokenizer needs" in refusal(folder)
    (folder / "tokenizer_config.json").unlink()
    assert "has no tokenizer_config.json, which its tokenizer needs" in refusal(folder)


def test_internlm2_tokens_survive_a_round_trip() -> None:
    tokenizer = InternLM2Tokenizer(checkpoint_of(INFERENCE))
    for text in ("", " ", "a  b", "naïve 狗 😀", "[SEG] [REJ][SEG].\n<img>x</img>"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.start == (1,)


def test_special_pieces_stand_for_one_id_each_even_where_no_file_lists_them(tmp_path: Path) -> None:
    folder = copy_checkpoint(INFERENCE, tmp_path)
    (folder / "tokenizer_config.json").write_text('{"added_tokens_decoder": {"649": {"content": "[SEG]"}}}')
    (folder / "added_tokens.json").unlink(missing_ok=True)
    tokenizer = InternLM2Tokenizer(folder)
    assert tokenizer.encode("<s></s>[SEG]<unk>") == [1, 2, 649, 0]
    assert {"<s>", "</s>", "<unk>", "[SEG]", "<image>"} == set(tokenizer.reserved)
    assert tokenizer.end_id == 2
