"""Selector checkpoints: every tensor accounted for, and errors that say what to mend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.models.registry import SHIPPED
from fiftyone_refvos.models.selector.loading import load_selector
from tests.small_selector import TINY, selector_config, write_selector


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint, to be broken."""
    return write_selector(tmp_path / "selector")


def load(folder: Path) -> None:
    load_selector(folder, clip_path=TINY / "clip", device="cpu")


def change_weights(folder: Path, change) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def refusal(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load(folder)
    assert str(folder) in str(error.value)
    return str(error.value)


def test_missing_unexpected_and_misshaped_tensors_are_all_named(checkpoint: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        del state["model.norm.weight"]
        state["model.visual_model.no_mem_embed"] = torch.zeros(1)
        state["lm_head.weight"] = torch.zeros(3, 4)

    change_weights(checkpoint, change)
    message = refusal(checkpoint)
    assert "1 missing: llama.norm.weight" in message
    assert "1 unexpected: llama.visual_model.no_mem_embed" in message
    assert "1 of another shape: lm_head.weight is [3, 4]" in message


def test_score_head_is_as_strict_as_the_rest(checkpoint: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        state["model.text_hidden_fcs.0.5.weight"] = state.pop("model.text_hidden_fcs.0.4.weight")

    change_weights(checkpoint, change)
    message = refusal(checkpoint)
    assert "(score_head)" in message
    assert "1 missing: 4.weight" in message
    assert "1 unexpected: 5.weight" in message


def test_constants_are_ignored_and_shards_load_alike(checkpoint: Path) -> None:
    state = load_file(checkpoint / "model.safetensors")
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)
    (checkpoint / "model.safetensors").unlink()
    names = sorted(state)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, own in shards.items():
        torch.save({name: state[name] for name in own}, checkpoint / file)
    weight_map = {name: file for file, own in shards.items() for name in own}
    (checkpoint / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    network = load_selector(checkpoint, clip_path=TINY / "clip", device="cpu").network
    loaded = network.state_dict()
    assert torch.equal(loaded["score_head.2.weight"], state["model.text_hidden_fcs.0.2.weight"])
    assert torch.equal(loaded["projector.bias"], state["model.mm_projector.bias"])


def test_checkpoint_that_is_not_merged_says_so(checkpoint: Path) -> None:
    def change(state: dict[str, torch.Tensor]) -> None:
        for name in list(state):
            state[f"base_model.model.{name}"] = state.pop(name)

    change_weights(checkpoint, change)
    assert "LoRA weights" in refusal(checkpoint)
    assert "merge them first" in refusal(checkpoint)


def test_another_system_and_wrong_entries_are_named(checkpoint: Path) -> None:
    def entries(**changes) -> None:
        (checkpoint / "config.json").write_text(json.dumps(selector_config(**changes)))

    entries(architectures=["ChatUniViLlamaForCausalLM"])
    assert "names ChatUniViLlamaForCausalLM" in refusal(checkpoint)
    entries(config={"use_cluster": False})
    assert "use_cluster is off" in refusal(checkpoint)
    entries(config={"use_cluster": True, "spatial_cluster_rate0": 16})
    assert "lacks the entry 'spatial_cluster_rate1'" in refusal(checkpoint)
    entries(smoothing=-1)
    assert "smoothing is -1; it must be a number of frames of at least 0" in refusal(checkpoint)
    entries(words="chat")
    assert "words is 'chat'; choose one of ('published', 'glus')" in refusal(checkpoint)
    entries(mm_hidden_size=1024)
    with pytest.raises(CheckpointError, match="128 wide, the checkpoint needs 1024"):
        load(checkpoint)
    rates = {"spatial_cluster_rate0": 64, "spatial_cluster_rate1": 65, "spatial_cluster_rate2": 4}
    entries(config={"use_cluster": True, **rates})
    with pytest.raises(CheckpointError, match="more clusters than there are tokens: CLIP gives 64 patches"):
        load(checkpoint)
    with pytest.raises(CheckpointError, match="no key frame selector: its config.json names GLUSForCausalLM"):
        load_selector(SHIPPED / "glus-tiny")


def test_tokenizer_without_score_or_settings_is_named(checkpoint: Path) -> None:
    (checkpoint / "added_tokens.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"no token '\[SCORE\]'"):
        load(checkpoint)
    (checkpoint / "tokenizer_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="tokenizer_config.json should hold a JSON object"):
        load(checkpoint)
    (checkpoint / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match="tokenizer_config.json is missing"):
        load(checkpoint)


def test_legacy_tokenisation_begins_with_a_space_after_added_tokens_too(checkpoint: Path) -> None:
    modern = LlamaTokenizer.as_configured(checkpoint)
    (checkpoint / "tokenizer_config.json").write_text("{}")
    legacy = LlamaTokenizer.as_configured(checkpoint)
    score = modern.token_id("[SCORE]")
    assert (modern.legacy, legacy.legacy) == (False, True)
    plain = "the dog, and a cat"
    assert modern.encode(plain) == legacy.encode(plain)
    after = legacy.encode(f"a [SCORE]{plain}")
    assert after[after.index(score) + 1 :] == legacy.encode(plain)[1:]
    assert modern.encode("a [SCORE] ,") != legacy.encode("a [SCORE] ,")
    assert len(modern.encode("a [SCORE] ,")) == len(legacy.encode("a [SCORE] ,")) - 1


def test_unknown_setting_is_named(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="unknown settings window; the selector has max_images"):
        load_selector(checkpoint, clip_path=TINY / "clip", settings={"window": 4})
