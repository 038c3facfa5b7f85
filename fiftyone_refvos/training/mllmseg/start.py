"""What a training of MLLMSeg begins with: a plain InternVL2.5 with two more tokens and a fresh mask decoder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor, nn

from fiftyone_refvos.models.checkpoint import CheckpointError, iterate_tensors, read_config
from fiftyone_refvos.models.glus.saving import PART_SIZE, new_folder
from fiftyone_refvos.models.internvl_config import LanguageFamily
from fiftyone_refvos.models.internvl_saving import TOKENIZER_FILES
from fiftyone_refvos.models.internvl_tokenizer import load_tokenizer
from fiftyone_refvos.models.internvl_weights import merge_lora
from fiftyone_refvos.models.mllmseg.config import ARCHITECTURE, MllmsegConfig
from fiftyone_refvos.models.mllmseg.decoder import MaskDecoder
from fiftyone_refvos.models.mllmseg.prompt import REJ_TOKEN, SEG_TOKEN
from fiftyone_refvos.models.mllmseg.weights import check_published_keys, published_decoder_name

BASE_ARCHITECTURE = "InternVLChatModel"

_NEW_TOKENS = (SEG_TOKEN, REJ_TOKEN)
_EMBEDDING_DEVIATION = 0.02
_OFFSET_DEVIATION = 0.001  # so that up-sampling begins as a plain one, as DySample does
_NO_OBJECT = -2.0
# Published names of the embedding table and of the output head.
_TABLES: Mapping[LanguageFamily, tuple[str, str]] = {
    "internlm2": ("language_model.model.tok_embeddings.weight", "language_model.output.weight"),
    "qwen2": ("language_model.model.embed_tokens.weight", "language_model.lm_head.weight"),
}
_LISTING = ("added_tokens.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_SPECIAL = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}


def is_plain_internvl(folder: Path) -> bool:
    """Whether a checkpoint folder holds an InternVL that knows no masks.

    Raises:
        CheckpointError: if it is no checkpoint folder
    """
    return BASE_ARCHITECTURE in (read_config(folder).get("architectures") or [])


def start_from_internvl(base: Path, folder: Path, *, seed: int = 0) -> None:
    """Writes the checkpoint that a training of MLLMSeg begins with, in the published layout of MLLMSeg.

    It gets [SEG] and [REJ], whose rows in the output head are the mean of all others and whose embeddings are random,
    and a mask decoder of random weights. Everything else stays as it is.

    Args:
        base: a published InternVL2.5, of either language family
        folder: gets it; an older one there is replaced
        seed: of what is random

    Raises:
        CheckpointError: for a base that is no such checkpoint, or whose vocabulary is not that of its tokenizer, and
            if the folder cannot be written; nothing of it stays then
    """
    if not is_plain_internvl(base):
        raise CheckpointError(f"{base} is no plain InternVL: its config.json does not name {BASE_ARCHITECTURE}")
    plain = {name: value for name, value in read_config(base).items() if name != "auto_map"}
    plain |= {"architectures": [ARCHITECTURE], "use_llm_lora": 0}
    family = MllmsegConfig.from_dict(plain, where=base).family
    words = int(plain["llm_config"]["vocab_size"])
    language = plain["llm_config"] | {"vocab_size": words + len(_NEW_TOKENS)}
    config = plain | {"llm_config": language}
    sizes = MllmsegConfig.from_dict(config, where=base)
    _check_tokenizer(base, family, words)
    tensors = dict(merge_lora(iterate_tensors(base)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _add_rows(tensors, family, words, where=base)
        tensors |= _fresh_decoder(sizes)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    check_published_keys(shapes, sizes, where=str(base))
    with new_folder(folder) as part:
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        _write_tokenizer(base, part, first=words)
        save_torch_state_dict(tensors, part, max_shard_size=PART_SIZE, metadata={"format": "pt"})


def _add_rows(tensors: dict[str, Tensor], family: LanguageFamily, words: int, *, where: Path) -> None:
    """Rows for the new tokens, in the precision of the table."""
    for name in _TABLES[family]:
        if name not in tensors or len(tensors[name]) != words:
            found = f"has {len(tensors[name])} rows" if name in tensors else "is missing"
            raise CheckpointError(f"{where}: {name} {found}, but config.json names {words} words")
    embeddings, head = _TABLES[family]
    table = tensors[embeddings]
    drawn = torch.randn(len(_NEW_TOKENS), table.shape[1]) * _EMBEDDING_DEVIATION
    tensors[embeddings] = torch.cat([table, drawn.to(table)])
    table = tensors[head]
    mean = table.float().mean(0, keepdim=True).expand(len(_NEW_TOKENS), -1)
    tensors[head] = torch.cat([table, mean.to(table)])


def _fresh_decoder(config: MllmsegConfig) -> dict[str, Tensor]:
    """A mask decoder as torch initialises it, but for two layers, under its published names.

    The last convolution sees what is never negative. With negative weights it would draw objects where all of that
    is 0, and where it is 0 nothing is learned: the decoder would go on drawing every object that there is. So its
    weights begin positive, and its bias says that most pixels show none.
    """
    sizes = config.internvl
    decoder = MaskDecoder(sizes.vision_config.hidden_size, sizes.text_config.hidden_size, config.patch_size)
    offset = decoder.upsample_adapter_l.offset
    nn.init.normal_(offset.weight, std=_OFFSET_DEVIATION)
    last = decoder.conv2
    assert offset.bias is not None  # a convolution has one by default
    assert last.bias is not None
    nn.init.zeros_(offset.bias)
    with torch.no_grad():
        last.weight.abs_()
        last.bias.fill_(_NO_OBJECT)
    return {published_decoder_name(f"mask_decoder.{name}"): each for name, each in decoder.state_dict().items()}


def _check_tokenizer(base: Path, family: LanguageFamily, words: int) -> None:
    """New tokens come right after all others, so that the tables only grow."""
    tokenizer = load_tokenizer(base, family)
    for token in _NEW_TOKENS:
        if token in tokenizer.reserved:
            raise CheckpointError(f"the tokenizer of {base} has {token!r} already: is it an MLLMSeg's?")
    last = max(tokenizer.token_id(token) for token in ("<img>", "</img>", "<IMG_CONTEXT>", "<|im_end|>"))
    if last >= words:
        raise CheckpointError(f"the tokenizer of {base} has a token {last}, but config.json names {words} words")


def _write_tokenizer(base: Path, folder: Path, *, first: int) -> None:
    """The files of a tokenizer, the new tokens in each that lists some."""
    new = {token: first + number for number, token in enumerate(_NEW_TOKENS)}
    for name in TOKENIZER_FILES:
        if (base / name).is_file() and name in _LISTING:
            content: dict[str, Any] = json.loads((base / name).read_text(encoding="utf-8"))
            text = json.dumps(_with_tokens(name, content, new), indent=2, ensure_ascii=False)
            (folder / name).write_text(text + "\n", encoding="utf-8")
        elif (base / name).is_file():
            shutil.copyfile(base / name, folder / name)


def _with_tokens(name: str, content: dict[str, Any], new: Mapping[str, int]) -> dict[str, Any]:
    """The content of a tokenizer's file, with the new tokens in its lists."""
    if name == "added_tokens.json":
        return content | dict(new)
    if name == "tokenizer.json":
        described = [{"id": number, "content": token, **_SPECIAL} for token, number in new.items()]
        return content | {"added_tokens": [*content.get("added_tokens", []), *described]}
    if "additional_special_tokens" in content:
        content = content | {"additional_special_tokens": [*content["additional_special_tokens"], *new]}
    if name == "tokenizer_config.json":
        decoder = {str(number): {"content": token, **_SPECIAL} for token, number in new.items()}
        content = content | {"added_tokens_decoder": content.get("added_tokens_decoder", {}) | decoder}
    return content
