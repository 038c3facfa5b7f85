"""Writing GLUS checkpoints in the layout in which they are published, so that they load like any other."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict
from safetensors import SafetensorError
from torch import Tensor

from fiftyone_refvos.models.checkpoint import CheckpointError, read_config
from fiftyone_refvos.models.glus.weights import published_name

CLIP = "clip."
PART_SIZE = "5GB"
_CLIP_PUBLISHED = "vision_model."
BESIDE = ("tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def save_checkpoint(
    state: Mapping[str, Tensor], folder: Path, *, base: Path, clip: Path, run_settings: Mapping[str, Any]
) -> None:
    """Writes a checkpoint with the sizes and the tokenizer of another one; an older one in `folder` is replaced.

    Published checkpoints do not hold CLIP: it is written where the base has it, too, or where it was trained.

    Args:
        state: of a network without LoRA; without CLIP's part if that is not to be written
        folder: the new checkpoint
        base: the checkpoint that was trained further
        clip: the CLIP folder that it was loaded with
        run_settings: entries of config.json that say how the network is to be run

    Raises:
        CheckpointError: if it cannot be written; nothing of it stays then, and an older one does
    """
    with new_folder(folder) as part:
        config = read_config(base) | dict(run_settings)
        (part / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        for name in BESIDE:
            if (base / name).is_file():
                shutil.copyfile(base / name, part / name)
        write_weights(state, part)
        if (part / "clip").is_dir():
            shutil.copyfile(clip / "config.json", part / "clip" / "config.json")


def write_weights(
    state: Mapping[str, Tensor], folder: Path, *, published: Callable[[str], str] = published_name
) -> None:
    """Writes tensors of a network under their `published` names, and those of CLIP into `clip/`."""
    own = {published(name): tensor for name, tensor in state.items() if not name.startswith(CLIP)}
    vision = {_CLIP_PUBLISHED + name.removeprefix(CLIP): t for name, t in state.items() if name.startswith(CLIP)}
    for tensors, target in ((own, folder), (vision, folder / "clip")):
        if tensors:
            target.mkdir(exist_ok=True)
            save_torch_state_dict(tensors, target, max_shard_size=PART_SIZE, metadata={"format": "pt"})


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A hidden folder to write into, which becomes `target` when all went well; an older one is replaced then.

    Raises:
        CheckpointError: if it cannot be written; nothing of it stays
    """
    part, old = (target.parent / f".{target.name}.{suffix}" for suffix in ("part", "old"))
    try:
        for leftover in (part, old):
            shutil.rmtree(leftover, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        if target.exists():
            os.replace(target, old)
        os.replace(part, target)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        free = shutil.disk_usage(next(folder for folder in target.absolute().parents if folder.exists())).free
        raise CheckpointError(
            f"{target} could not be written ({error}); its disk has {free / 1e6:.0f} MB free: make room, or choose "
            "another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
