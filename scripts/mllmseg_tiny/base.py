"""The InternVL2.5 in miniature that mllmseg-tiny begins with: that in sa2va-tiny."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict

from fiftyone_refvos.models.checkpoint import iterate_tensors, read_config
from fiftyone_refvos.models.internlm2_tokenizer import InternLM2Tokenizer
from fiftyone_refvos.models.mllmseg.prompt import SYSTEM
from fiftyone_refvos.models.registry import SHIPPED

SA2VA_TINY = SHIPPED / "sa2va-tiny"

_PARTS = ("vision_model.", "language_model.", "mlp1.")
_EMBEDDINGS, _HEAD = "language_model.model.tok_embeddings.weight", "language_model.output.weight"


def write_base(folder: Path, source: Path = SA2VA_TINY) -> None:
    """Writes a checkpoint as InternVL2.5 is published.

    Its tokenizer has no tokens of Sa2VA; the system prompt, which is the same for all and Chinese, is one word of it.
    Sa2VA's language model collects what is meant where [SEG] stands, MLLMSeg reads it one place before: there stands
    a colon in the prompts of inference, which so begins with the embedding of [SEG].

    Args:
        folder: that gets it
        source: a Sa2VA of the InternVL family with InternLM2
    """
    part = folder.parent / f".{folder.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    shutil.copyfile(source / "tokenizer.model", part / "tokenizer.model")
    added = json.loads((source / "added_tokens.json").read_text())
    seg = added["[SEG]"]
    kept = {token: number for token, number in added.items() if number < seg} | {SYSTEM: seg}
    (part / "added_tokens.json").write_text(json.dumps(kept, indent=2) + "\n")
    config = _config(read_config(source), words=seg + 1)
    (part / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tensors = {name: tensor.float() for name, tensor in iterate_tensors(source) if name.startswith(_PARTS)}
    embeddings = tensors[_EMBEDDINGS]
    colon = InternLM2Tokenizer(part).encode("a:")[-1]
    embeddings[colon] = embeddings[seg]
    tensors |= {name: tensors[name][: seg + 1].clone() for name in (_EMBEDDINGS, _HEAD)}
    save_torch_state_dict(tensors, part, metadata={"format": "pt"})
    part.rename(folder)


def _config(config: dict[str, Any], words: int) -> dict[str, Any]:
    kept = {name: value for name, value in config.items() if name != "sam2"}
    return kept | {
        "architectures": ["InternVLChatModel"],
        "model_type": "internvl_chat",
        "template": "internvl2_5",
        "dynamic_image_size": False,
        "llm_config": config["llm_config"] | {"vocab_size": words},
    }
