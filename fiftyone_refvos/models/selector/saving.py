"""Writing selectors in the layout of merged published checkpoints, so that they load like any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fiftyone_refvos.models.glus.saving import BESIDE, new_folder, write_weights
from fiftyone_refvos.models.llama_tokenizer import LlamaTokenizer
from fiftyone_refvos.models.selector.weights import published_name


def save_selector(
    state: Mapping[str, Tensor],
    folder: Path,
    *,
    entries: Mapping[str, Any],
    tokenizer: LlamaTokenizer,
    base: Path,
    clip: Path,
) -> None:
    """Writes a checkpoint; an older one in `folder` is replaced.

    Args:
        state: of a network without LoRA; without CLIP's part if that is not to be written
        folder: the new checkpoint
        entries: its config.json
        tokenizer: says which words were added
        base: the folder with its other files
        clip: the CLIP folder that it was loaded with

    Raises:
        CheckpointError: if it cannot be written; nothing of it stays then, and an older one does
    """
    with new_folder(folder) as part:
        (part / "config.json").write_text(json.dumps(dict(entries), indent=2) + "\n", encoding="utf-8")
        for name in BESIDE:
            if (base / name).is_file():
                shutil.copyfile(base / name, part / name)
        (part / "added_tokens.json").write_text(json.dumps(tokenizer.added_tokens, indent=2) + "\n")
        write_weights(state, part, published=published_name)
        if (part / "clip").is_dir():
            shutil.copyfile(clip / "config.json", part / "clip" / "config.json")
