"""Configuration of GLUS: the sizes of a checkpoint, and how it is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from transformers import LlamaConfig

from fiftyone_refvos.models.checkpoint import CheckpointError, read_config
from fiftyone_refvos.models.clip_tower import ClipView
from fiftyone_refvos.models.llama import llama_config
from fiftyone_refvos.models.sam2_config import Sam2Sizes, read_yaml
from fiftyone_refvos.sampling import CONTEXT_FRAMES, ContextMode

MemoryGamma = Literal["published", "checkpoint"]
Propagation = Literal["glus", "sam2"]

PUBLISHED_GAMMA = 1e-6
RESOURCES = ("feature_cache_bytes", "expression_batch")  # settings that no mask depends on
ARCHITECTURE = "GLUSForCausalLM"

_CHOICES: dict[str, tuple[Any, ...]] = {
    "memory_gamma": get_args(MemoryGamma),
    "clip_view": get_args(ClipView),
    "memory_bank": (True, False),
    "context_mode": get_args(ContextMode),
    "propagation": get_args(Propagation),
}
_LEAST = {"context_frames": 0, "window": 1, "memory_stride": 1, "expression_batch": 1, "feature_cache_bytes": 0}


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How a network has to be run because it was trained so: entries of config.json, which published ones lack.

    Attributes:
        memory_gamma: layer scale of SAM2's memory fuser. "published" is 1e-6, as the released evaluation
            script ran; "checkpoint" is the stored value, as in training and in the demo notebook
        clip_view: how CLIP, and so the language model, sees a frame that is no square. "center_crop" is the
            published square in the middle; "squash" is the whole frame, its aspect ratio not kept
        context_frames: frames of the whole video that come first; 0 leaves them out, and the sentence about them
        window: query frames that the language model sees, the newest included
        memory_bank: whether masks are remembered; without it each frame is decoded on its own
    """

    memory_gamma: MemoryGamma = "published"
    clip_view: ClipView = "center_crop"
    context_frames: int = CONTEXT_FRAMES
    window: int = 4
    memory_bank: bool = True

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class GlusInference:
    """How GLUS is run; the defaults are those of the published inference script.

    Attributes:
        memory_gamma, clip_view, context_frames, window, memory_bank: as in `RunSettings`; None takes what
            config.json records, and what is published where it records nothing
        context_mode: "center" takes the middles of equal segments, "linspace" the demo's evenly spaced frames
        memory_stride: every how many frames a long-term memory is kept (paper, supplement B)
        propagation: "glus" asks the language model about every frame; "sam2" only about the key frame, from which
            SAM2's own memory goes on, with the stored layer scale unless `memory_gamma` is given
        feature_cache_bytes: most host memory for SAM2 features that the backward pass reads again
        expression_batch: most expressions that go through a network together
    """

    memory_gamma: MemoryGamma | None = None
    clip_view: ClipView | None = None
    context_mode: ContextMode = "center"
    context_frames: int | None = None
    memory_bank: bool | None = None
    memory_stride: int = 3
    window: int | None = None
    propagation: Propagation = "glus"
    feature_cache_bytes: int = 4 << 30
    expression_batch: int = 8

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True)
class GlusConfig(RunSettings):
    """The sizes of one GLUS checkpoint, and what it was trained to run with.

    Attributes:
        llama: the language model
        clip_width: width of the CLIP features that the projector takes
        clip_layer: which hidden state of CLIP is used, counted from the end
        prompt_dim: length of a [SEG] embedding
        sam2: SAM2 configuration in the official yaml layout
        vision_tower: hub name or path of the CLIP model that was used in training
    """

    llama: LlamaConfig
    clip_width: int
    clip_layer: int
    prompt_dim: int
    sam2: dict[str, Any]
    vision_tower: str

    @property
    def recorded(self) -> dict[str, Any]:
        """The run settings as entries of a config.json."""
        return {name: getattr(self, name) for name in _RUN_SETTINGS}

    def run_settings(self, asked: GlusInference) -> RunSettings:
        """What was asked for, and what is recorded where nothing was."""
        chosen = {name: getattr(asked, name) for name in _RUN_SETTINGS if getattr(asked, name) is not None}
        return RunSettings(**self.recorded | chosen)

    @classmethod
    def read(cls, folder: Path, *, sam2_config: Path | None = None) -> GlusConfig:
        """Reads the config.json of a checkpoint folder.

        Args:
            folder: the checkpoint
            sam2_config: a SAM2 yaml, for checkpoints that are not Hiera-L and do not record their sizes

        Raises:
            CheckpointError: if the folder is no checkpoint, or one of another system, or lacks an entry
        """
        return cls.from_dict(
            read_config(folder),
            where=folder,
            sam2=read_yaml(sam2_config) if sam2_config is not None else None,
        )

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], *, where: Path, sam2: dict[str, Any] | None = None) -> GlusConfig:
        """Reads the entries of a config.json; `where` is what errors call it."""
        architectures = config.get("architectures") or []
        if ARCHITECTURE not in architectures:
            named = ", ".join(map(str, architectures)) or f"model type {config.get('model_type')!r}"
            raise CheckpointError(f"{where} is no GLUS checkpoint: its config.json names {named}")
        if config.get("rope_scaling"):
            raise CheckpointError(f"{where}/config.json asks for rope_scaling, which GLUS does not have")
        try:
            return cls(
                llama=llama_config(config),
                clip_width=int(config["mm_hidden_size"]),
                clip_layer=int(config.get("mm_vision_select_layer", -2)),
                prompt_dim=int(config["out_dim"]),
                sam2=sam2 or Sam2Sizes.from_dict(config.get("sam2", {})).to_yaml(),
                vision_tower=str(config.get("mm_vision_tower") or config["vision_tower"]),
                **{name: config[name] for name in _RUN_SETTINGS if name in config},
            )
        except KeyError as error:
            raise CheckpointError(f"{where}/config.json lacks the entry {error}") from error
        except (TypeError, AttributeError, ValueError) as error:
            raise CheckpointError(f"{where}/config.json has a wrong entry: {error}") from error


_RUN_SETTINGS = tuple(field.name for field in fields(RunSettings))


def _check(settings: RunSettings | GlusInference) -> None:
    for name, value in vars(settings).items():
        if value is None and isinstance(settings, GlusInference):
            continue
        if name in _CHOICES:
            choices = _CHOICES[name]
            if not isinstance(value, type(choices[0])) or value not in choices:
                raise ValueError(f"{name} is {value!r}; choose one of {choices}")
        elif name in _LEAST and (not isinstance(value, int) or isinstance(value, bool) or value < _LEAST[name]):
            raise ValueError(f"{name} is {value!r}; it must be a whole number of at least {_LEAST[name]}")
