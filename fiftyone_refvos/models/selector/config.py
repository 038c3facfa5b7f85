"""Configuration of the language key frame selector: the sizes of a checkpoint, and how it is run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from transformers import LlamaConfig

from fiftyone_refvos.models.checkpoint import CheckpointError, read_config
from fiftyone_refvos.models.clip_tower import ClipView
from fiftyone_refvos.models.llama import llama_config
from fiftyone_refvos.models.selector.prompt import Words

ARCHITECTURE = "VISAForCausalLM"
RESOURCES = ("frame_batch", "token_batch")  # settings that no score depends on
_RATES = ("spatial_cluster_rate0", "spatial_cluster_rate1", "spatial_cluster_rate2")


def check_smoothing(value: Any) -> None:
    """Raises a ValueError for what is no standard deviation in frames."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError(f"smoothing is {value!r}; it must be a number of frames of at least 0")


@dataclass(frozen=True)
class SelectorInference:
    """How the selector is run; the defaults are those of the published evaluation, but for its noise,
    and for the smoothing that a checkpoint asks for.

    Attributes:
        max_images: most images of a prompt, the target included. 2 shows the target as its only context, which
            the published program writes as 1
        noise_seed: the published program adds fresh random numbers below 1e-6 to the densities of clustering,
            whereby two runs can differ. None adds none; a seed adds them, drawn anew for each video
        smoothing: scores are averaged over neighbouring frames, weighted by a Gaussian of this standard deviation
            in frames. 0 leaves them as they are, as the published program does; None is what the checkpoint wants
        frame_batch: most frames that go through CLIP together
        token_batch: most positions that go through the language model together, next to a prompt's shared
            beginning; at least one prompt does
    """

    max_images: int = 12
    noise_seed: int | None = None
    smoothing: float | None = None
    frame_batch: int = 8
    token_batch: int = 2048

    def __post_init__(self) -> None:
        least = {"max_images": 2, "frame_batch": 1, "token_batch": 1}
        if self.noise_seed is not None:
            least["noise_seed"] = 0
        for name, bound in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < bound:
                raise ValueError(f"{name} is {value!r}; it must be a whole number of at least {bound}")
        if self.smoothing is not None:
            check_smoothing(self.smoothing)


@dataclass(frozen=True)
class SelectorConfig:
    """The sizes of one selector checkpoint.

    Attributes:
        llama: the language model
        clip_width: width of the CLIP features that the projector takes
        clip_layer: which hidden state of CLIP is used, counted from the end
        score_dim: width of the last hidden layer of the score head
        cluster_rates: of the three levels of merging: a number of clusters, or up to 1 a share of the tokens
        vision_tower: hub name or path of the CLIP model that was used in training
        clip_view: what CLIP sees of a frame that is no square: published is the square in its middle, "squash" all
            of it
        words: how the selector is asked
        smoothing: of its scores, unless told otherwise; see `SelectorInference`
    """

    llama: LlamaConfig
    clip_width: int
    clip_layer: int
    score_dim: int
    cluster_rates: tuple[float, ...]
    vision_tower: str
    clip_view: ClipView = "center_crop"
    words: Words = "published"
    smoothing: float = 0.0

    @classmethod
    def read(cls, folder: Path) -> SelectorConfig:
        """Reads the config.json of a checkpoint folder.

        Raises:
            CheckpointError: if the folder is no checkpoint, or one of another system, or lacks an entry
        """
        return cls.from_dict(read_config(folder), where=folder)

    @classmethod
    def from_dict(cls, config: Mapping[str, Any], *, where: Path) -> SelectorConfig:
        """Reads the entries of a config.json; `where` is what errors call it."""
        architectures = config.get("architectures") or []
        if ARCHITECTURE not in architectures:
            named = ", ".join(map(str, architectures)) or f"model type {config.get('model_type')!r}"
            raise CheckpointError(f"{where} is no key frame selector: its config.json names {named}")
        if config.get("rope_scaling"):
            raise CheckpointError(f"{where}/config.json asks for rope_scaling, which the selector does not have")
        try:
            clustering = config["config"]
            if not clustering["use_cluster"]:
                raise ValueError("use_cluster is off, and a selector always merges its tokens by clustering")
            rates = tuple(float(clustering[name]) for name in _RATES)
            if not all(rate > 0 for rate in rates):
                raise ValueError(f"cluster rates {rates}, which must be above 0")
            view = config.get("clip_view", "center_crop")
            if view not in get_args(ClipView):
                raise ValueError(f"clip_view is {view!r}; choose one of {get_args(ClipView)}")
            words = config.get("words", "published")
            if words not in get_args(Words):
                raise ValueError(f"words is {words!r}; choose one of {get_args(Words)}")
            smoothing = config.get("smoothing", 0.0)
            check_smoothing(smoothing)
            return cls(
                llama=llama_config(config),
                clip_width=int(config["mm_hidden_size"]),
                clip_layer=int(config.get("mm_vision_select_layer", -2)),
                score_dim=int(config["out_dim"]),
                cluster_rates=rates,
                vision_tower=str(config.get("mm_vision_tower") or config["vision_tower"]),
                clip_view=view,
                words=words,
                smoothing=float(smoothing),
            )
        except KeyError as error:
            raise CheckpointError(f"{where}/config.json lacks the entry {error}") from error
        except (TypeError, AttributeError, ValueError) as error:
            raise CheckpointError(f"{where}/config.json has a wrong entry: {error}") from error
