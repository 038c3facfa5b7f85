"""Configuration of Sa2VA: the sizes of a checkpoint as stock configurations, and how it is run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from huggingface_hub.errors import StrictDataclassError
from transformers import PretrainedConfig, Qwen2_5_VLConfig, Qwen3VLConfig

from fiftyone_refvos.models.checkpoint import CheckpointError, read_config
from fiftyone_refvos.models.internvl_config import check_activations, internvl_config
from fiftyone_refvos.models.sam2_config import Sam2Sizes

Mode = Literal["first", "uniform", "sa2va_i"]
"""Which frames are asked about, and how their masks are carried through the video."""

MODEL_TYPE = "sa2va_chat"
TEMPLATES = ("qwen_chat", "internlm2_chat", "phi3_chat")
_QWEN: dict[str, type[PretrainedConfig]] = {"qwen2_5_vl": Qwen2_5_VLConfig, "qwen3_vl": Qwen3VLConfig}


@dataclass(frozen=True)
class Sa2vaInference:
    """How Sa2VA is run; the defaults are those of the published programs.

    Attributes:
        mode: "first" asks about the first frames, as Sa2VA; "uniform" about frames spread over the video, whose
            masks are all remembered before the walk from the first frame; "sa2va_i" about the same, decoded by the
            tuned decoder and carried on by the original SAM2 as mask prompts. None takes "sa2va_i" for
            checkpoints that have both decoders, and "first" for others
        key_frames: how many frames are asked about, fewer in shorter videos
        max_new_tokens: longest answer
        expression_batch: most expressions, or objects, that go through a network together
    """

    mode: Mode | None = None
    key_frames: int = 5
    max_new_tokens: int = 2048
    expression_batch: int = 8

    def __post_init__(self) -> None:
        if self.mode is not None and self.mode not in get_args(Mode):
            raise ValueError(f"mode is {self.mode!r}; choose one of {get_args(Mode)}")
        for name in ("key_frames", "max_new_tokens", "expression_batch"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be a whole number of at least 1")


RESOURCES = ("expression_batch",)  # settings that no mask depends on


@dataclass(frozen=True)
class Tiling:
    """How a single image is cut into square tiles, in the InternVL family.

    Attributes:
        side: of a tile, in pixels
        most: tiles of an image, its thumbnail not counted
        least: tiles of an image
        thumbnail: whether the whole image is a tile of its own where there are several
    """

    side: int = 448
    most: int = 12
    least: int = 1
    thumbnail: bool = True


@dataclass(frozen=True)
class Sa2vaConfig:
    """The sizes of one Sa2VA checkpoint.

    Attributes:
        mllm: stock configuration of the vision tower and the language model; its `model_type` is the family
        template: of the chat, in the InternVL family; the Qwen families have theirs beside the tokenizer
        tiling: of single images, in the InternVL family
        sam2: SAM2 configuration in the official yaml layout
    """

    mllm: PretrainedConfig
    template: str
    tiling: Tiling
    sam2: dict[str, Any]

    @property
    def family(self) -> str:
        """ "internvl", "qwen2_5_vl" or "qwen3_vl"."""
        return str(self.mllm.model_type)

    @property
    def text(self) -> PretrainedConfig:
        """Stock configuration of the language model."""
        return self.mllm.text_config

    @property
    def prompt_dim(self) -> int:
        """Length of a prompt embedding."""
        return int(self.sam2["model"]["memory_attention"]["d_model"])

    @classmethod
    def read(cls, folder: Path, *, sam2: Sam2Sizes | None = None) -> Sa2vaConfig:
        """Reads the config.json of a checkpoint folder, and never the code beside it.

        Args:
            folder: the checkpoint
            sam2: sizes of a SAM2 that is not Hiera-L, for checkpoints that do not record them

        Raises:
            CheckpointError: if the folder is no checkpoint, or one of another system, or has an entry that is
                missing or unknown
        """
        return cls.from_dict(read_config(folder), where=folder, sam2=sam2)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], *, where: Path, sam2: Sam2Sizes | None = None) -> Sa2vaConfig:
        """Reads the entries of a config.json; `where` is what errors call it."""
        if config.get("model_type") != MODEL_TYPE:
            raise CheckpointError(
                f"{where} is no Sa2VA checkpoint: its config.json names model type {config.get('model_type')!r}"
            )
        try:
            sizes = sam2 or Sam2Sizes.from_dict(config.get("sam2", {}))
            mllm = internvl_config(config) if "llm_config" in config else _qwen_vl(config)
            return cls(
                mllm=mllm,
                template=_template(config) if "llm_config" in config else "",
                tiling=_tiling(config),
                sam2=sizes.to_yaml(),
            )
        except KeyError as error:
            raise CheckpointError(f"{where}/config.json lacks the entry {error}") from error
        except (TypeError, AttributeError, ValueError, StrictDataclassError) as error:
            raise CheckpointError(f"{where}/config.json has a wrong entry: {error}") from error


def _qwen_vl(config: Mapping[str, Any]) -> PretrainedConfig:
    family = str(config["vision_config"]["model_type"])
    if family not in _QWEN:
        raise ValueError(f"vision_config.model_type is {family!r}; known are {', '.join(_QWEN)}")
    tokens = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    mllm = _QWEN[family](
        text_config=dict(config["text_config"]),
        vision_config=dict(config["vision_config"]),
        **{name: config[name] for name in tokens if name in config},
        tie_word_embeddings=False,
    )
    check_activations(mllm)
    return mllm


def _template(config: Mapping[str, Any]) -> str:
    name = str(config["template"]).replace("-", "_")
    if name not in TEMPLATES:
        raise ValueError(f"template is {config['template']!r}; known are {', '.join(TEMPLATES)}")
    return name


def _tiling(config: Mapping[str, Any]) -> Tiling:
    if not config.get("dynamic_image_size", True):
        raise ValueError("dynamic_image_size is false; only tiled images are known")
    least, most = int(config.get("min_dynamic_patch", 1)), int(config.get("max_dynamic_patch", 12))
    if not 1 <= least <= most:
        raise ValueError(f"min_dynamic_patch is {least}, max_dynamic_patch {most}; expected 1 <= min <= max")
    return Tiling(
        side=int(config.get("force_image_size", 448)),
        most=most,
        least=least,
        thumbnail=bool(config.get("use_thumbnail", True)),
    )
