"""A plain InternVL2.5 becomes the start of an MLLMSeg: two more tokens, a fresh mask decoder, all else as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.checkpoint import CheckpointError, iterate_tensors
from fiftyone_refvos.models.internvl_tokenizer import load_tokenizer
from fiftyone_refvos.models.mllmseg.loading import load_mllmseg
from fiftyone_refvos.training.mllmseg.start import is_plain_internvl, start_from_internvl
from tests.small_mllmseg import change_config, checkpoint_of, noise_image, plain_internvl

FAMILIES = ["res_internlm2", "res_qwen2"]
TABLES = {
    "res_internlm2": ("language_model.model.tok_embeddings.weight", "language_model.output.weight"),
    "res_qwen2": ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"),
}


@pytest.mark.parametrize("case", FAMILIES)
def test_new_rows_are_added_and_every_other_tensor_stays(case: str, tmp_path: Path) -> None:
    base, start = plain_internvl(case, tmp_path), tmp_path / "start"
    start_from_internvl(base, start)
    before, after = dict(iterate_tensors(base)), dict(iterate_tensors(start))
    embeddings, head = TABLES[case]
    words = len(before[head])
    assert all(len(after[name]) == words + 2 for name in TABLES[case])
    torch.testing.assert_close(after[head][words:], before[head].mean(0).expand(2, -1))
    drawn = after[embeddings][words:]
    assert 0.015 < drawn.std() < 0.025
    for name, tensor in before.items():
        assert torch.equal(after[name][:words] if name in TABLES[case] else after[name], tensor), name
    published = {name for name, _ in iterate_tensors(checkpoint_of(case))}
    assert set(after) == published  # of the mask decoder too


@pytest.mark.parametrize("case", FAMILIES)
def test_the_tokenizer_is_that_of_the_published_checkpoint(case: str, tmp_path: Path) -> None:
    start = tmp_path / "start"
    start_from_internvl(plain_internvl(case, tmp_path), start)
    family: Any = case.removeprefix("res_")
    ours, published = (load_tokenizer(folder, family) for folder in (start, checkpoint_of(case)))
    assert [ours.token_id(token) for token in ("[SEG]", "[REJ]")] == [
        published.token_id(token) for token in ("[SEG]", "[REJ]")
    ]
    text = (
        "<|im_start|>user\n<img></img>\n What are the dog in this image?<|im_end|>\nSure,the dog:[SEG], a cat:[REJ]."
    )
    assert ours.encode(text) == published.encode(text)
    config = json.loads((start / "config.json").read_text())
    assert config["architectures"] == ["MLLMSeg"]
    assert config["llm_config"]["vocab_size"] == ours.token_id("[REJ]") + 1


def test_the_start_is_drawn_by_its_seed_and_segments(tmp_path: Path) -> None:
    base = plain_internvl("res_internlm2", tmp_path)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        start_from_internvl(base, tmp_path / name, seed=seed)
    states = [load_file(tmp_path / name / "model.safetensors") for name in "abc"]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["res_decoder.text_down.weight"], states[2]["res_decoder.text_down.weight"])
    segmenter = load_mllmseg(tmp_path / "a", device="cpu", dtype="float32")
    (result,) = segmenter.segment_image(noise_image(30, 40), [Expression("0", "the dog")])
    assert result.unrejected.shape == (30, 40)


def test_what_the_fresh_decoder_draws_everywhere_can_be_learnt_away(tmp_path: Path) -> None:
    """Its last convolution draws where what it sees is positive: where that is 0, there is no gradient."""
    start_from_internvl(plain_internvl("res_internlm2", tmp_path), tmp_path / "start")
    state = load_file(tmp_path / "start" / "model.safetensors")
    assert state["res_decoder.conv2.weight"].min() >= 0
    assert state["res_decoder.conv2.bias"].sigmoid() < 0.2


def test_what_is_no_plain_internvl_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    start = tmp_path / "start"
    assert not is_plain_internvl(checkpoint_of("res_internlm2"))
    with pytest.raises(
        CheckpointError, match="is no plain InternVL: its config.json does not name InternVLChatModel"
    ):
        start_from_internvl(checkpoint_of("res_internlm2"), start)
    base = plain_internvl("res_internlm2", tmp_path)
    state = load_file(base / "model.safetensors")
    save_file({name: tensor for name, tensor in state.items() if "norm1" not in name}, base / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"do not fit the network\. 4 missing: .*layernorm_before"):
        start_from_internvl(base, start)
    save_file(state, base / "model.safetensors")
    change_config(base, {"llm_config": {"vocab_size": 700}})
    with pytest.raises(CheckpointError, match=r"tok_embeddings.weight has 649 rows, but config.json names 700 words"):
        start_from_internvl(base, start)
    change_config(base, {"llm_config": {"vocab_size": 630}})
    with pytest.raises(CheckpointError, match=r"has a token 64\d, but config.json names 630 words"):
        start_from_internvl(base, start)
    assert not start.exists()
