"""Writing MLLMSeg checkpoints in the layout in which they are published, so that they load like any other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from huggingface_hub import save_torch_state_dict
from torch import Tensor

from fiftyone_refvos.models.checkpoint import read_config
from fiftyone_refvos.models.glus.saving import PART_SIZE, new_folder
from fiftyone_refvos.models.internvl_saving import TOKENIZER_FILES, published_tensors
from fiftyone_refvos.models.mllmseg.config import MllmsegConfig
from fiftyone_refvos.models.mllmseg.weights import published_decoder_name


def save_checkpoint(state: Mapping[str, Tensor], folder: Path, *, base: Path) -> None:
    """Writes a merged checkpoint with the sizes and the tokenizer of another one; an older one in `folder` goes.

    Args:
        state: of a network without LoRA
        folder: the new checkpoint
        base: the checkpoint that was trained further

    Raises:
        CheckpointError: if it cannot be written; nothing of it stays then, and an older one does
    """
    internvl = "internvl."
    tensors = dict(published_tensors(state, MllmsegConfig.read(base).internvl, prefix=internvl))
    tensors |= {published_decoder_name(n): tensor for n, tensor in state.items() if not n.startswith(internvl)}
    with new_folder(folder) as part:
        config = read_config(base) | {"use_llm_lora": 0}
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in TOKENIZER_FILES:
            if (base / name).is_file():
                shutil.copyfile(base / name, part / name)
        save_torch_state_dict(tensors, part, max_shard_size=PART_SIZE, metadata={"format": "pt"})
