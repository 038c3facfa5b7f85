"""Sa2VA where golden data does not reach: several objects, image questions, InternViT-6B with InternLM2."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
import torch.nn.functional as F
from torch import Tensor

from fiftyone_refvos.masklet import Expression
from fiftyone_refvos.models.checkpoint import CheckpointError
from fiftyone_refvos.models.sa2va.asking import Answer
from fiftyone_refvos.models.sa2va.config import Sa2vaConfig, Sa2vaInference
from fiftyone_refvos.models.sa2va.families import InternVl
from fiftyone_refvos.models.sa2va.images import ImageAnswer, ask_about_image
from fiftyone_refvos.models.sa2va.inference import Sa2vaSegmenter, VideoAnswers
from fiftyone_refvos.models.sa2va.language import Generation
from fiftyone_refvos.models.sa2va.loading import load_sa2va
from fiftyone_refvos.models.sa2va.network import Sa2vaNetwork
from fiftyone_refvos.models.sa2va.tokens import load_tokenizer
from fiftyone_refvos.models.sa2va.weights import translate
from fiftyone_refvos.models.sam2_config import Sam2Sizes
from fiftyone_refvos.verify.sa2va_case import read_sizes
from fiftyone_refvos.video import FrameSource
from tests.shared import shared_path
from tests.small import noise_video

BALL, DOG, CAT = (Expression(text, f"the {text}") for text in ("ball", "dog", "cat"))


def small_sam2(case: str) -> Sam2Sizes:
    sizes = read_sizes(shared_path("golden", "sa2va", case, "sam2_dims.json"))
    assert sizes is not None
    return replace(sizes, image_size=256)


@pytest.fixture(scope="module")
def sa2va() -> Sa2vaSegmenter:
    folder = shared_path("golden", "sa2va", "internvl_qwen2_a", "checkpoint")
    return load_sa2va(folder, sam2=small_sam2("internvl_qwen2_a"), device="cpu", settings={"expression_batch": 2})


class Rearranged(Sa2vaSegmenter):
    """Whose answer about the ball names the dog as well, and whose answer about the dog names nothing."""

    def ask(self, frames: FrameSource, expressions: Sequence[Expression]) -> VideoAnswers:
        seen = super().ask(frames, expressions)
        ball, dog, cat = (answer.prompt_embeddings for answer in seen.answers)
        prompts = [torch.cat([ball, dog]), dog[:0], cat]
        answers = [replace(a, prompt_embeddings=p) for a, p in zip(seen.answers, prompts, strict=True)]
        return VideoAnswers(seen.key_frames, answers)


def test_answer_with_several_seg_has_a_mask_for_each_beside_answers_with_one_and_none(sa2va: Sa2vaSegmenter) -> None:
    asked = [BALL, DOG, CAT]
    alone = {(r.expression_id, r.frame): r.masks[0] for r in sa2va.segment(noise_video(6), asked)}
    found = {
        (r.expression_id, r.frame): r for r in Rearranged(sa2va.family, sa2va.settings).segment(noise_video(6), asked)
    }
    assert found.keys() == alone.keys()
    for frame in range(6):
        both = found["ball", frame]
        assert both.masks.shape == (2, 48, 64)
        assert both.scores.shape == (2,)
        for mask, name in zip(both.masks, ("ball", "dog"), strict=True):
            assert (mask != alone[name, frame]).mean() <= 5e-4
        assert (found["cat", frame].masks[0] != alone["cat", frame]).mean() <= 5e-4
        assert not found["dog", frame].found
        assert not found["dog", frame].masks.any()
    assert any((alone["ball", frame] != alone["dog", frame]).any() for frame in range(6))


def test_image_question_gives_text_and_a_mask_and_the_image_comes_first_by_default(sa2va: Sa2vaSegmenter) -> None:
    (image,) = noise_video(1).frames
    answer = ask_about_image(sa2va.asker, image, "Please segment the ball.")
    assert answer.answer.text == "Sure, [SEG].<|im_end|>"
    assert answer.caption == "Sure, ."
    assert answer.masks.shape == (1, *image.shape[:2])
    assert answer.scores.shape == (1,)
    written = ask_about_image(sa2va.asker, image, "<image>Please segment the ball.")
    assert written.answer.prompt == answer.answer.prompt
    assert (written.masks == answer.masks).all()


def test_regions_must_have_the_size_of_the_image(sa2va: Sa2vaSegmenter) -> None:
    (image,) = noise_video(1).frames
    with pytest.raises(ValueError, match=r"regions are \(1, 5, 5\), the image is \(48, 64\)"):
        ask_about_image(sa2va.asker, image, "What is region1?", regions=np.ones((1, 5, 5), dtype=bool))


def test_questions_with_other_texts_before_the_images_are_not_answered_together(sa2va: Sa2vaSegmenter) -> None:
    visual = sa2va.family.see_video(noise_video(1).frames)
    with pytest.raises(ValueError, match="the same text before <image>"):
        list(sa2va.asker.ask(["<image>What is it?", "See <image>. What is it?"], visual))


def test_phrases_and_caption_are_read_from_a_grounded_answer() -> None:
    nothing = torch.zeros(0, 4)
    text = "A <p> red ball </p> [SEG] and <p>the dog</p> [SEG] here.<|im_end|>"
    answer = Answer([], text, Generation([], nothing), nothing, nothing)
    grounded = ImageAnswer(answer, np.zeros((2, 3, 4), dtype=bool), np.zeros(2, dtype=np.float32))
    assert grounded.phrases == ["red ball", "the dog"]
    assert grounded.caption == "A red ball and the dog here."


def test_code_beside_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    source = shared_path("golden", "sa2va", "qwen2_5_vl_a", "checkpoint")
    for file in source.iterdir():
        (tmp_path / file.name).symlink_to(file)
    automatic = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoImageProcessor": "evil.Evil"}
    changes = {
        "config.json": automatic,
        "preprocessor_config.json": automatic,
        "tokenizer_config.json": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]},
    }
    for name, auto_map in changes.items():
        values = json.loads((source / name).read_text())
        values.pop("tokenizer_class", None)
        (tmp_path / name).unlink()
        (tmp_path / name).write_text(json.dumps(values | {"auto_map": auto_map}))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\nclass Evil: pass\n")
    loaded = load_sa2va(tmp_path, sam2=small_sam2("qwen2_5_vl_a"), device="cpu")
    assert loaded.mode == "first"
    assert not (tmp_path / "was_run").exists()


def large_config(words: int = 300) -> Sa2vaConfig:
    """The kinds of layers that Sa2VA-26B has, in few and narrow ones, and images of 16 patches."""
    vision = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "qkv_bias": False,
        "qk_normalization": True,
        "norm_type": "rms_norm",
        "layer_norm_eps": 1e-6,
        "hidden_act": "gelu",
        "image_size": 56,
        "patch_size": 14,
    }
    language = {
        "architectures": ["InternLM2ForCausalLM"],
        "vocab_size": words,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_act": "silu",
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "rope_scaling": {"type": "dynamic", "factor": 2.0},
        "bias": False,
    }
    values = {
        "model_type": "sa2va_chat",
        "template": "internlm2_chat",
        "vision_config": vision,
        "llm_config": language,
        "downsample_ratio": 0.5,
        "force_image_size": 56,
    }
    return Sa2vaConfig.from_dict(values, where=Path("a test"), sam2=small_sam2("internvl_qwen2_a"))


def intern_vit_6b(weights: dict[str, Tensor], pixels: Tensor, *, heads: int) -> Tensor:
    """InternViT-6B as published: RMS norms, and queries and keys normalised over all heads together."""

    def norm(x: Tensor, name: str) -> Tensor:
        return x * (x.square().mean(-1, keepdim=True) + 1e-6).rsqrt() * weights[f"{name}.weight"]

    start = "vision_model.embeddings."
    patches = F.conv2d(
        pixels, weights[f"{start}patch_embedding.weight"], weights[f"{start}patch_embedding.bias"], stride=14
    )
    first = weights[f"{start}class_embedding"].expand(len(pixels), 1, -1)
    x = torch.cat([first, patches.flatten(2).mT], dim=1) + weights[f"{start}position_embedding"]
    for number in range(2):
        layer = f"vision_model.encoder.layers.{number}."
        q, k, v = F.linear(norm(x, f"{layer}norm1"), weights[f"{layer}attn.qkv.weight"]).chunk(3, dim=-1)
        q, k = norm(q, f"{layer}attn.q_norm"), norm(k, f"{layer}attn.k_norm")
        q, k, v = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (q, k, v))
        scores = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        attended = (scores @ v).transpose(1, 2).flatten(2)
        x = x + weights[f"{layer}ls1"] * F.linear(
            attended, weights[f"{layer}attn.proj.weight"], weights[f"{layer}attn.proj.bias"]
        )
        inner = F.gelu(
            F.linear(norm(x, f"{layer}norm2"), weights[f"{layer}mlp.fc1.weight"], weights[f"{layer}mlp.fc1.bias"])
        )
        x = x + weights[f"{layer}ls2"] * F.linear(
            inner, weights[f"{layer}mlp.fc2.weight"], weights[f"{layer}mlp.fc2.bias"]
        )
    return x


def vit_weights() -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (1, 1, 32),
        "embeddings.position_embedding": (1, 17, 32),
        "embeddings.patch_embedding.weight": (32, 3, 14, 14),
        "embeddings.patch_embedding.bias": (32,),
    }
    layer: dict[str, tuple[int, ...]] = {
        "attn.qkv.weight": (96, 32),
        "attn.q_norm.weight": (32,),
        "attn.k_norm.weight": (32,),
        "attn.proj.weight": (32, 32),
        "attn.proj.bias": (32,),
        "norm1.weight": (32,),
        "norm2.weight": (32,),
        "ls1": (32,),
        "ls2": (32,),
        "mlp.fc1.weight": (48, 32),
        "mlp.fc1.bias": (48,),
        "mlp.fc2.weight": (32, 48),
        "mlp.fc2.bias": (32,),
    }
    for number in range(2):
        shapes |= {f"encoder.layers.{number}.{name}": shape for name, shape in layer.items()}
    generator = torch.Generator().manual_seed(0)
    return {f"vision_model.{name}": torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()}


def test_large_vision_tower_normalises_queries_and_keys_as_published() -> None:
    config, weights = large_config(), vit_weights()
    network = Sa2vaNetwork(config, tuned_decoder=False).eval()
    ours = {name.removeprefix("mllm.model."): tensor for name, tensor in translate(weights.items(), config)}
    tower = network.mllm.model.vision_tower
    tower.load_state_dict({name.removeprefix("vision_tower."): tensor for name, tensor in ours.items()})
    pixels = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.allclose(
            tower(pixels).last_hidden_state, intern_vit_6b(weights, pixels, heads=4), atol=1e-4, rtol=1e-4
        )


@pytest.fixture
def internlm2_tokenizer(tmp_path: Path) -> Path:
    text = tmp_path / "text.txt"
    text.write_text("Please segment the dog that runs.\nSure, it is user assistant\n" * 50)
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(tmp_path / "tokenizer"),
        model_type="bpe",
        vocab_size=320,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    base = sentencepiece.SentencePieceProcessor(str(tmp_path / "tokenizer.model")).GetPieceSize()
    added = ("<|im_start|>", "<|im_end|>", "<IMG_CONTEXT>", "[SEG]")
    (tmp_path / "added_tokens.json").write_text(json.dumps({token: base + n for n, token in enumerate(added)}))
    return tmp_path


def test_qwen_network_beside_the_tokenizer_of_internlm2_is_named(internlm2_tokenizer: Path) -> None:
    for file in shared_path("golden", "sa2va", "qwen2_5_vl_a", "checkpoint").glob("*"):
        if file.name == "config.json" or file.name.startswith("model"):
            (internlm2_tokenizer / file.name).symlink_to(file)
    with pytest.raises(CheckpointError, match="holds the tokenizer of InternLM2; Qwen-VL has tokenizer.json"):
        load_sa2va(internlm2_tokenizer, sam2=small_sam2("qwen2_5_vl_a"), device="cpu")


def test_internlm2_with_the_large_vision_tower_segments_a_video(internlm2_tokenizer: Path) -> None:
    torch.manual_seed(0)
    tokenizer = load_tokenizer(internlm2_tokenizer)
    seg = tokenizer.token_id("[SEG]")
    network = Sa2vaNetwork(large_config(seg + 1), tuned_decoder=False).requires_grad_(False).eval()
    family = InternVl(network, tokenizer)
    settings = Sa2vaInference(key_frames=2, max_new_tokens=2)
    segmenter = Sa2vaSegmenter(family, settings)
    with torch.inference_mode():
        (answer,) = segmenter.ask(noise_video(3), [DOG]).answers
        head = network.mllm.lm_head.weight
        head.zero_()
        head[seg] = answer.generation.hidden[0]  # so that [SEG] is what it says first
    assert answer.prompt.count(family.image_id) == 2 * 4
    results = list(segmenter.segment(noise_video(3), [DOG]))
    assert [result.frame for result in results] == [0, 1, 2]
    assert all(result.found and result.masks.shape == (1, 48, 64) for result in results)
