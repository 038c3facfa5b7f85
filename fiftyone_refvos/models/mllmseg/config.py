"""Configuration of MLLMSeg: the sizes of a checkpoint, and how it is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from huggingface_hub.errors import StrictDataclassError
from transformers import InternVLConfig

from fiftyone_refvos.models.checkpoint import CheckpointError, read_config
from fiftyone_refvos.models.internvl_config import LanguageFamily, internvl_config, language_family

Prompting = Literal["single", "joint"]
Rejected = Literal["empty", "kept"]
OverTime = Literal["per_frame", "memory"]

ARCHITECTURE = "MLLMSeg"
RESOURCES = ("expression_batch",)  # settings that no mask depends on
_TEMPLATE = "internvl2_5"


@dataclass(frozen=True)
class MllmsegInference:
    """How MLLMSeg is run.

    Attributes:
        prompting: "single" asks about each expression on its own, so that no answer depends on what else is asked;
            "joint" asks about all expressions of an image in one prompt, as the published evaluation does
        expression_batch: most expressions that go through a network together
        rejected: the mask of an expression of which the model says that there is no such object: "empty", or "kept",
            which is what the model draws all the same, and what the published evaluations of no targets count
    """

    prompting: Prompting = "single"
    expression_batch: int = 32
    rejected: Rejected = "empty"

    def __post_init__(self) -> None:
        if self.prompting not in get_args(Prompting):
            raise ValueError(f"prompting is {self.prompting!r}; choose one of {get_args(Prompting)}")
        if self.rejected not in get_args(Rejected):
            raise ValueError(f"rejected is {self.rejected!r}; choose one of {get_args(Rejected)}")
        batch = self.expression_batch
        if not isinstance(batch, int) or isinstance(batch, bool) or batch < 1:
            raise ValueError(f"expression_batch is {batch!r}; it must be a whole number of at least 1")


@dataclass(frozen=True)
class MllmsegVideoInference(MllmsegInference):
    """How MLLMSeg is run over a video.

    Attributes:
        over_time: "per_frame" segments each frame on its own; "memory" segments one frame per expression, and SAM2
            carries its mask in both directions
        candidates: most frames among which that frame is chosen, spread over the video
    """

    over_time: OverTime = "per_frame"
    candidates: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.over_time not in get_args(OverTime):
            raise ValueError(f"over_time is {self.over_time!r}; choose one of {get_args(OverTime)}")
        if not isinstance(self.candidates, int) or isinstance(self.candidates, bool) or self.candidates < 1:
            raise ValueError(f"candidates is {self.candidates!r}; it must be a whole number of at least 1")
        if self.over_time == "memory" and self.rejected != "empty":
            raise ValueError(
                f"rejected={self.rejected!r} has no meaning with over_time='memory', where what is rejected is not "
                "tracked: leave it out, or choose over_time='per_frame'"
            )

    @property
    def images(self) -> MllmsegInference:
        """How each image is segmented."""
        return MllmsegInference(self.prompting, self.expression_batch, self.rejected)


@dataclass(frozen=True)
class MllmsegConfig:
    """The sizes of one MLLMSeg checkpoint.

    Attributes:
        internvl: vision tower, projector and language model
        family: of the language model
        lora_rank: of updates of the language model that are not merged; 0 if there are none
    """

    internvl: InternVLConfig
    family: LanguageFamily
    lora_rank: int = 0

    @property
    def image_size(self) -> int:
        """Side of the square input, in pixels."""
        return int(self.internvl.vision_config.image_size[0])

    @property
    def patch_size(self) -> int:
        """Side of a patch, in pixels."""
        return int(self.internvl.vision_config.patch_size[0])

    @classmethod
    def read(cls, folder: Path) -> MllmsegConfig:
        """Reads the config.json of a checkpoint folder.

        Raises:
            CheckpointError: if the folder is no checkpoint, or one of another system, or lacks an entry
        """
        return cls.from_dict(read_config(folder), where=folder)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], *, where: Path) -> MllmsegConfig:
        """Reads the entries of a config.json; `where` is what errors call it."""
        architectures = config.get("architectures") or []
        if ARCHITECTURE not in architectures:
            named = ", ".join(map(str, architectures)) or f"model type {config.get('model_type')!r}"
            raise CheckpointError(f"{where} is no MLLMSeg checkpoint: its config.json names {named}")
        try:
            if config.get("template", _TEMPLATE) != _TEMPLATE:
                raise ValueError(f"template is {config['template']!r}, and must be {_TEMPLATE!r}")
            internvl = internvl_config(config)
            return cls(internvl, language_family(config["llm_config"]), int(config.get("use_llm_lora") or 0))
        except KeyError as error:
            raise CheckpointError(f"{where}/config.json lacks the entry {error}") from error
        except (TypeError, AttributeError, IndexError, ValueError, StrictDataclassError) as error:
            raise CheckpointError(f"{where}/config.json has a wrong entry: {error}") from error
