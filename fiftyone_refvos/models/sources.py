"""Folders and files that several systems are loaded from: what was given, what lies beside, or what is published."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from fiftyone_refvos.models.hub import fetch
from fiftyone_refvos.models.registry import CLIP, MODELS, SAM2, SAM2_FILE, SHIPPED


def find_checkpoint(name: str, checkpoint: str | Path | None = None, *, revision: str | None = None) -> Path:
    """The folder with the weights of a model, downloaded if need be; `checkpoint` where one is given."""
    spec = MODELS[name]
    if checkpoint is not None:
        return Path(checkpoint)
    if spec.source is not None:
        return fetch(dataclasses.replace(spec.source, revision=revision or spec.source.revision))
    return SHIPPED / name


def find_clip(checkpoint: Path, clip_path: str | Path | None = None) -> Path:
    """The folder with the CLIP model of a checkpoint: `clip_path` if given, its own, or the published one."""
    if clip_path is not None:
        return Path(clip_path)
    own = checkpoint / "clip"
    return own if own.is_dir() else fetch(CLIP, option="clip_path")


def find_tracker(tracker: str | Path | None = None) -> Path:
    """The weight file of SAM2 itself: `tracker` if given, or the published one."""
    return Path(tracker) if tracker is not None else fetch(SAM2, option="tracker") / SAM2_FILE
