"""Configuration of GLUS: the sizes of a checkpoint, and how it is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from transformers import LlamaConfig

from fiftyone_refvos.models.checkpoint import CheckpointError, read_config
from fiftyone_refvos.models.llama import llama_config
from fiftyone_refvos.models.sam2_config import Sam2Sizes, read_yaml
from fiftyone_refvos.sampling import ContextMode

MemoryGamma = Literal["published", "checkpoint"]

PUBLISHED_GAMMA = 1e-6
RESOURCES = ("feature_cache_bytes", "expression_batch")  # settings that no mask depends on
ARCHITECTURE = "GLUSForCausalLM"


@dataclass(frozen=True)
class GlusInference:
    """How GLUS is run; the defaults are those of the published inference script.

    Attributes:
        memory_gamma: layer scale of SAM2's memory fuser. "published" is 1e-6, as the released evaluation
            script ran; "checkpoint" is the stored value, as in training and in the demo notebook.
            None takes what config.json records, "published" where it records nothing
        context_mode: "center" takes the middles of four segments, "linspace" the demo's evenly spaced frames
        memory_stride: every how many frames a long-term memory is kept (paper, supplement B)
        window: query frames that the language model sees, the newest included
        feature_cache_bytes: most host memory for SAM2 features that the backward pass reads again
        expression_batch: most expressions that go through a network together
    """

    memory_gamma: MemoryGamma | None = None
    context_mode: ContextMode = "center"
    memory_stride: int = 3
    window: int = 4
    feature_cache_bytes: int = 4 << 30
    expression_batch: int = 8

    def __post_init__(self) -> None:
        if self.memory_gamma is not None and self.memory_gamma not in get_args(MemoryGamma):
            raise ValueError(f"memory_gamma is {self.memory_gamma!r}; choose one of {get_args(MemoryGamma)}")
        if self.context_mode not in get_args(ContextMode):
            raise ValueError(f"context_mode is {self.context_mode!r}; choose one of {get_args(ContextMode)}")
        least = {"memory_stride": 1, "window": 1, "expression_batch": 1, "feature_cache_bytes": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < bound:
                raise ValueError(f"{name} is {value!r}; it must be a whole number of at least {bound}")


@dataclass(frozen=True)
class GlusConfig:
    """The sizes of one GLUS checkpoint.

    Attributes:
        llama: the language model
        clip_width: width of the CLIP features that the projector takes
        clip_layer: which hidden state of CLIP is used, counted from the end
        prompt_dim: length of a [SEG] embedding
        sam2: SAM2 configuration in the official yaml layout
        vision_tower: hub name or path of the CLIP model that was used in training
        memory_gamma: what the checkpoint was trained to run with
    """

    llama: LlamaConfig
    clip_width: int
    clip_layer: int
    prompt_dim: int
    sam2: dict[str, Any]
    vision_tower: str
    memory_gamma: MemoryGamma = "published"

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
        gamma = config.get("memory_gamma", "published")
        if gamma not in get_args(MemoryGamma):
            raise CheckpointError(f"{where}/config.json has memory_gamma {gamma!r}; expected {get_args(MemoryGamma)}")
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
                memory_gamma=gamma,
            )
        except KeyError as error:
            raise CheckpointError(f"{where}/config.json lacks the entry {error}") from error
        except (TypeError, AttributeError, ValueError) as error:
            raise CheckpointError(f"{where}/config.json has a wrong entry: {error}") from error
