"""Parts of Sa2VA that need no network: stop words, tiles, InternLM2's tokenizer, fused rows, padded answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import sentencepiece
import torch
from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLVisionConfig

from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.internvl_config import text_config
from fiftyone_refvos.models.internvl_weights import internvl_tensors
from fiftyone_refvos.models.sa2va.config import Sa2vaConfig, Tiling
from fiftyone_refvos.models.sa2va.language import Generation, LanguageModel, PromptInputs
from fiftyone_refvos.models.sa2va.pixels import tile_grid
from fiftyone_refvos.models.sa2va.stopping import StopRule
from fiftyone_refvos.models.sa2va.tokens import load_tokenizer
from fiftyone_refvos.models.sa2va.weights import translate

INTERNLM2 = {
    "architectures": ["InternLM2ForCausalLM"],
    "vocab_size": 30,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "rope_scaling": {"type": "dynamic", "factor": 2.0},
}


def test_answer_ends_with_a_stop_word_of_several_tokens_and_line_breaks_do_not_count() -> None:
    words = {1: "It is ", 2: "<|", 3: "en", 4: "d|>", 5: "\n", 6: "."}
    rule = StopRule(lambda ids: "".join(words[each] for each in ids), 9, ("<|end|>",))
    assert not rule.ends([1, 2, 3])
    assert rule.ends([1, 2, 3, 4])
    assert rule.ends([1, 2, 3, 4, 5])
    assert not rule.ends([1, 2, 3, 4, 6])
    assert rule.ends([1, 9])
    assert not StopRule(lambda _: "<|end|>", None, ()).ends([4])


@pytest.mark.parametrize(
    ("size", "grid"),
    [
        ((448, 448), (1, 1)),
        ((800, 800), (2, 2)),  # as square as one tile, and large enough for four
        ((1000, 1000), (3, 3)),
        ((200, 100), (2, 1)),
        ((100, 200), (1, 2)),
        ((5000, 100), (12, 1)),
        ((640, 480), (4, 3)),
    ],
)
def test_image_is_cut_into_the_grid_of_the_closest_shape(size: tuple[int, int], grid: tuple[int, int]) -> None:
    assert tile_grid(size, Tiling()) == grid


def test_states_are_those_where_a_token_went_in_so_the_last_one_has_none() -> None:
    generation = Generation([7, 3, 7, 3], torch.arange(4.0)[:, None])
    assert generation.states_at(3).flatten().tolist() == [2.0]
    assert generation.states_at(7).flatten().tolist() == [1.0, 3.0]
    assert generation.states_at(5).shape == (0, 1)


def test_fused_rows_of_internlm2_are_cut_per_key_head() -> None:
    mllm = InternVLConfig(text_config=text_config(INTERNLM2), tie_word_embeddings=False)
    config = Sa2vaConfig(mllm, "internlm2_chat", Tiling(), {})
    rows = torch.arange(64.0)[:, None].expand(64, 32)  # per key head: 2 query heads, key, value, of 8 rows each
    name = "language_model.model.layers.1.attention.wqkv.weight"
    parts = {name.split(".")[-2]: part[:, 0] for name, part in translate([(name, rows)], config)}
    assert parts["q_proj"].tolist() == [*range(16), *range(32, 48)]
    assert parts["k_proj"].tolist() == [*range(16, 24), *range(48, 56)]
    assert parts["v_proj"].tolist() == [*range(24, 32), *range(56, 64)]


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("language_model.model.layers.1.attention.wqkv.weight", [63, 32]),
        ("language_model.model.layers.1.attention.wqkv.weight", []),
        ("vision_model.encoder.layers.0.attn.qkv.bias", [4]),
    ],
)
def test_fused_rows_that_cannot_be_cut_are_named(name: str, shape: list[int]) -> None:
    mllm = InternVLConfig(text_config=text_config(INTERNLM2), tie_word_embeddings=False)
    config = Sa2vaConfig(mllm, "internlm2_chat", Tiling(), {})
    message = re.escape(f"{name} is {shape}, which cannot be cut in queries, keys and values")
    with pytest.raises(CheckpointError, match=message):
        list(translate([(name, torch.zeros(shape))], config))


def test_rotary_constants_that_old_files_hold_are_left_out() -> None:
    mllm = InternVLConfig(text_config=text_config(INTERNLM2), tie_word_embeddings=False)
    name = "language_model.model.layers.0.attention.rotary_emb.inv_freq"
    assert list(internvl_tensors([(name, torch.zeros(4)), ("other", torch.zeros(1))], mllm, prefix="mllm.")) == [
        ("other", torch.zeros(1))
    ]


def test_prompts_of_different_lengths_are_answered_together_as_each_is_alone() -> None:
    torch.manual_seed(0)
    vision = InternVLVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    config = InternVLConfig(vision_config=vision, text_config=text_config(INTERNLM2), tie_word_embeddings=False)
    language = LanguageModel(InternVLForConditionalGeneration(config).eval(), states_before_norm=False)
    beginning, *rest = torch.randn(9, 32), torch.randn(2, 32), torch.randn(6, 32), torch.randn(4, 32)
    stop = StopRule(lambda _: "", None, ())
    with torch.inference_mode():
        prefix = language.prefill(PromptInputs(beginning, torch.arange(9)[None]))
        together = language.answer(prefix, rest, stop, max_new_tokens=5)
        empty = language.prefill(PromptInputs(beginning[:0], torch.arange(0)[None]))
        for suffix, answer in zip(rest, together, strict=True):
            (alone,) = language.answer(empty, [torch.cat([beginning, suffix])], stop, max_new_tokens=5)
            assert answer.ids == alone.ids
            assert torch.allclose(answer.hidden, alone.hidden, atol=1e-5)
            read = language.read(prefix, suffix)
            assert torch.allclose(read[-1], answer.hidden[0], atol=1e-5)


@pytest.fixture
def internlm2_folder(tmp_path: Path) -> Path:
    text = tmp_path / "text.txt"
    text.write_text("Please segment the dog that runs.\nSure, it is user assistant\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(tmp_path / "tokenizer"),
        model_type="bpe",
        vocab_size=320,
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        hard_vocab_limit=False,
        minloglevel=2,
    )
    added = {"400": "<|im_start|>", "401": "<|im_end|>", "402": "<IMG_CONTEXT>", "403": "[SEG]"}
    entries = {number: {"content": token, "special": True} for number, token in added.items()}
    auto_map = {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]}
    config = {"added_tokens_decoder": entries, "auto_map": auto_map, "tokenizer_class": "InternLM2Tokenizer"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "tokenization_internlm2.py").write_text("raise RuntimeError('code of a checkpoint was run')")
    return tmp_path


def test_internlm2_tokenizer_keeps_white_space_around_added_tokens_and_runs_no_code(internlm2_folder: Path) -> None:
    tokenizer = load_tokenizer(internlm2_folder)
    text = "<|im_start|>user\nPlease segment the dog. [SEG] <|im_end|>\n"
    ids = [*tokenizer.start, *tokenizer.encode(text)]
    assert (ids[0], ids[1]) == (1, 400)
    assert ids.count(403) == 1
    assert tokenizer.decode(ids) == "<s>" + text
    assert tokenizer.end_id == 2
    assert {"[SEG]", "<|im_end|>", "</s>", "<image>"} <= set(tokenizer.reserved)


def test_tokenizer_without_seg_and_folder_without_tokenizer_are_named(internlm2_folder: Path, tmp_path: Path) -> None:
    path = internlm2_folder / "tokenizer_config.json"
    path.write_text(path.read_text().replace("[SEG]", "[CLS]"))
    with pytest.raises(CheckpointError, match=r"no token '\[SEG\]'"):
        load_tokenizer(internlm2_folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no tokenizer; expected one of tokenizer.json"):
        load_tokenizer(tmp_path / "empty")


def test_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match=f"the tokenizer in {tmp_path} cannot be read"):
        load_tokenizer(tmp_path)
