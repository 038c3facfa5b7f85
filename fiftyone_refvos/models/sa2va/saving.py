"""Writing Sa2VA checkpoints in the layout in which they are published, so that they load like any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import save_torch_state_dict
from torch import Tensor

from fiftyone_refvos.models.checkpoint import read_config
from fiftyone_refvos.models.glus.saving import PART_SIZE, new_folder
from fiftyone_refvos.models.internvl_saving import TOKENIZER_FILES, published_tensors
from fiftyone_refvos.models.sa2va.config import Sa2vaConfig
from fiftyone_refvos.models.sa2va.weights import published_name

_MLLM = "mllm."


def save_checkpoint(state: Mapping[str, Tensor], folder: Path, *, base: Path) -> None:
    """Writes a checkpoint of the InternVL family with the sizes and the tokenizer of another one.

    Args:
        state: of a `Sa2vaNetwork`
        folder: the new checkpoint; an older one there is replaced
        base: the checkpoint that was trained further, or a folder with config.json and tokenizer

    Raises:
        CheckpointError: if it cannot be written; nothing of it stays then, and an older one does
    """
    with new_folder(folder) as part:
        config = read_config(base)
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in TOKENIZER_FILES:
            if (base / name).is_file():
                shutil.copyfile(base / name, part / name)
        sizes = Sa2vaConfig.from_dict(config, where=base)
        tensors = {name: tensor.contiguous() for name, tensor in _published(state, sizes)}
        save_torch_state_dict(tensors, part, max_shard_size=PART_SIZE, metadata={"format": "pt"})


def _published(state: Mapping[str, Tensor], config: Sa2vaConfig) -> Iterator[tuple[str, Tensor]]:
    yield from published_tensors(state, config.mllm, prefix=_MLLM)
    yield from ((published_name(name), tensor) for name, tensor in state.items() if not name.startswith(_MLLM))
