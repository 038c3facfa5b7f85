"""What a training run is made of; the defaults are the published GLUS training (paper, section 4.1), in float32."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, get_args

from fiftyone_refvos.sampling import CONTEXT_FRAMES

Precision = Literal["no", "bf16", "fp16"]
Trainable = Literal["published", "all", "all_but_clip"]
Wording = Literal["random", "inference"]
Decay = Literal["linear", "cosine"]


def _check_at_least(config: Any, **bounds: int) -> None:
    for name, bound in bounds.items():
        if getattr(config, name) < bound:
            raise ValueError(f"{name} is {getattr(config, name)!r}; it must be at least {bound}")


@dataclass(frozen=True)
class LoraConfig:
    """LoRA on every q_proj and v_proj of the language model.

    Attributes:
        rank, alpha: the update is `alpha / rank * B @ A`
        dropout: before A
    """

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.05

    def __post_init__(self) -> None:
        _check_at_least(self, rank=1, alpha=1)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout!r}; it must be at least 0 and below 1")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the losses, and two habits of the published program that can be switched off.

    Attributes:
        ce, bce, dice, contrastive: weights
        clip_targets: published targets are sums of masks, 2 where two objects of an expression overlap; True
            makes them 1 there
        same_object_negatives: in the published contrastive loss, tokens of the same object in another frame, said
            by another expression, are negatives; False leaves them out
        temperature: of the contrastive loss
        negatives: drawn per anchor, and the fewest that there have to be
        bank_size: most tokens that the bank holds
    """

    ce: float = 1.0
    bce: float = 2.0
    dice: float = 0.5
    contrastive: float = 0.1
    clip_targets: bool = False
    same_object_negatives: bool = True
    temperature: float = 0.07
    negatives: int = 128
    bank_size: int = 512

    def __post_init__(self) -> None:
        for name in ("ce", "bce", "dice", "contrastive"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"the weight {name} is {getattr(self, name)!r}; it must not be negative")
        if self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature!r}; it must be above 0")
        _check_at_least(self, negatives=1, bank_size=1)


@dataclass(frozen=True)
class SamplingConfig:
    """How a clip of a video becomes a sample.

    Attributes:
        query_frames: consecutive frames that are segmented, one round of the conversation each
        context_frames: frames that come first, one from each of as many segments of the video; 0 for a
            network that reasons locally only; None takes as many as the checkpoint records, 4 if it is published
        expressions: most expressions of a video per sample
        wording: "random" draws question and answer as published; "inference" takes those that are used at
            inference, and every [SEG] is predicted from exactly the prompt that it has there
        no_target: also draw expressions without a target, and supervise what stands in the place of [SEG]; the
            published recipe never does, so that its models cannot say that there is no object
    """

    query_frames: int = 4
    context_frames: int | None = None
    expressions: int = 3
    wording: Wording = "random"
    no_target: bool = False

    def __post_init__(self) -> None:
        _check_at_least(self, query_frames=1, expressions=1)
        if self.context_frames is not None:
            _check_at_least(self, context_frames=0)
        if self.wording not in get_args(Wording):
            raise ValueError(f"wording is {self.wording!r}; choose one of {get_args(Wording)}")

    @property
    def contexts(self) -> int:
        """The number of context frames, the published one where nothing is said."""
        return CONTEXT_FRAMES if self.context_frames is None else self.context_frames


@dataclass(frozen=True)
class TrainingConfig:
    """A training run.

    Attributes:
        steps: optimizer steps
        batch_size: videos per forward pass and process
        accumulation: forward passes per optimizer step
        learning_rate, betas, weight_decay: of AdamW
        warmup_steps: linear from 0; after them as `rate_decay` says to 0 at `steps`
        clip_norm: gradients are scaled to this total norm at most
        precision: mixed precision of accelerate; what trains, and the optimizer, stay in float32. With "bf16" the
            frozen weights of CLIP and the language model are held in bfloat16, half the memory
        gradient_checkpointing: what the layers of the language model computed is forgotten and computed again for
            the gradient, which is the same: slower, but a large model does not fit on a GPU without
        memory: whether a query frame sees the masks of those before it; published networks do
        trainable: "published" trains LoRA, embeddings, head, projector, [SEG] projection and mask decoder; "all"
            trains every parameter, for networks that start from nothing; "all_but_clip" leaves CLIP as it is
        seed: of all random choices
        save_every: steps between checkpoints that a killed run resumes from
        validate_every: steps between validations on the held-out view
        patience: stop after so many validations in a row without a better one; None never stops early
        lora: low-rank updates of the language model, for trainable="published" alone; None trains without
        rate_decay: how the learning rate falls, a fact of the system
        decays_all: whether the weight decay is that of all parameters, or not of biases and layer norms
    """

    rate_decay: ClassVar[Decay] = "linear"
    decays_all: ClassVar[bool] = True

    steps: int = 3000
    batch_size: int = 2
    accumulation: int = 10
    learning_rate: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    warmup_steps: int = 100
    clip_norm: float = 1.0
    precision: Precision = "no"
    memory: bool = True
    gradient_checkpointing: bool = True
    trainable: Trainable = "published"
    seed: int = 0
    save_every: int = 500
    validate_every: int = 500
    patience: int | None = None
    lora: LoraConfig | None = LoraConfig()
    losses: LossConfig = LossConfig()
    sampling: SamplingConfig = SamplingConfig()

    def __post_init__(self) -> None:
        _check_at_least(self, steps=1, batch_size=1, accumulation=1, warmup_steps=0, save_every=1, validate_every=1)
        if self.patience is not None:
            _check_at_least(self, patience=1)
        for name in ("learning_rate", "clip_norm"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be above 0")
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision is {self.precision!r}; choose one of {get_args(Precision)}")
        if self.trainable not in get_args(Trainable):
            raise ValueError(f"trainable is {self.trainable!r}; choose one of {get_args(Trainable)}")

    @property
    def run_settings(self) -> dict[str, Any]:
        """How a network that was trained so is to be run: fields of its `RunSettings`, entries of its config.json."""
        return {
            "context_frames": self.sampling.contexts,
            "window": self.sampling.query_frames,
            "memory_bank": self.memory,
        }

    @classmethod
    def of_length(cls, steps: int, **values: Any) -> Self:
        """The recipe for so many steps, with a shorter warm-up if they are few.

        Args:
            steps: optimizer steps
            values: of other fields, by name

        Raises:
            ValueError: for values that are none
        """
        return cls(**{"steps": steps, "warmup_steps": min(cls.warmup_steps, max(1, steps // 10)), **values})
